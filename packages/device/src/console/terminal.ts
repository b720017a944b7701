/** Terminals and files as ends of a port. termios(3), pty(7). */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Reactor } from '@airlock/transport/reactor.ts';
import {
  O_CLOEXEC,
  O_CREAT,
  O_NOCTTY,
  O_NOFOLLOW,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  pathBytes,
} from '@airlock/transport/sys/directories.ts';
import { F_DUPFD_CLOEXEC, O_NONBLOCK } from '@airlock/transport/sys/files.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import { callFailed, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { fdStream } from '../fd-stream.ts';
import { FixedEnd, type PortEnd } from './port-end.ts';

const O_APPEND = 0o2000;
const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTPEER = 0x5441;
/** struct termios of the kernel: four words of flags, a byte, 19 characters. */
const TERMIOS_SIZE = 36;
const INPUT_FLAGS = 0;
const LOCAL_FLAGS = 12;
/** BRKINT, ISTRIP, INLCR, IGNCR, ICRNL, IXON: what changes bytes on their way in. */
const CHANGES_INPUT = 0o2 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000;
/** ICANON, ECHO, ECHONL, IEXTEN: what waits for lines and shows them. Signals stay: ^C ends the server. */
const LINES_AND_ECHO = 0o2 | 0o10 | 0o100 | 0o100000;
const SIGNALS = 0o1;
const OUTPUT_FLAGS = 4;
const CHANGES_OUTPUT = 0o1;

/** Output goes to the end of a file; nothing comes from it. Codes: `system-call-failed`. */
export function openFileEnd(calls: SystemCalls, reactor: Reactor, path: string): Result<PortEnd> {
  const bytes = pathBytes(path);
  if (bytes === null) return fail('device-option-invalid', 'a path with a zero byte');
  const flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
  const output = calls.open(bytes, flags, 0o600);
  if (output < 0) return callFailed(calls, `open(${path})`, output);
  return ok(new FixedEnd(fdStream(calls, reactor, { input: -1, output, endsWithInput: false })));
}

/**
 * This process's own input and output. A terminal gives every key as it is pressed, and is as it was afterwards.
 * Codes: `system-call-failed`.
 */
export function openStdioEnd(calls: SystemCalls, reactor: Reactor): Result<PortEnd> {
  const input = reopen(calls, 0, O_RDONLY);
  if (input < 0) return callFailed(calls, 'standard input', input);
  const output = reopen(calls, 1, O_WRONLY);
  if (output < 0) {
    calls.close(input);
    return callFailed(calls, 'standard output', output);
  }
  const before = calls.allocate(TERMIOS_SIZE);
  const isTerminal = calls.ioctl(input, TCGETS, before.address) >= 0;
  if (isTerminal) {
    const raw = calls.allocate(TERMIOS_SIZE);
    raw.bytes.set(before.bytes);
    clear(raw, INPUT_FLAGS, CHANGES_INPUT);
    clear(raw, LOCAL_FLAGS, LINES_AND_ECHO);
    calls.ioctl(input, TCSETS, raw.address);
  }
  const closed = () => {
    if (isTerminal) calls.ioctl(0, TCSETS, before.address);
  };
  return ok(new FixedEnd(fdStream(calls, reactor, { input, output, endsWithInput: false, closed })));
}

/** The same file, opened anew: what is changed about the descriptor is not changed for the shell that shares it. */
function reopen(calls: SystemCalls, fd: number, access: number): number {
  const path = pathBytes(`/proc/self/fd/${fd}`) ?? new Uint8Array(1);
  const opened = calls.open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
  // A socket cannot be opened by a path.
  return opened >= 0 ? opened : calls.fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

export interface PtyEnd {
  readonly end: PortEnd;
  /** `/dev/pts/3`: for a terminal program. */
  readonly path: string;
}

/** A new pseudo-terminal that passes every byte as it is. Codes: `system-call-failed`. */
export function openPtyEnd(calls: SystemCalls, reactor: Reactor): Result<PtyEnd> {
  const path = pathBytes('/dev/ptmx') ?? new Uint8Array(1);
  const master = calls.open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);
  if (master < 0) return callFailed(calls, 'open(/dev/ptmx)', master);
  const number = calls.allocate(4);
  const unlocked = calls.ioctl(master, TIOCSPTLCK, number.address);
  const named = unlocked < 0 ? unlocked : calls.ioctl(master, TIOCGPTN, number.address);
  // Held open, so that a program that leaves does not end the terminal for the next one.
  const other = named < 0 ? named : calls.ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  const output = other < 0 ? other : calls.fcntl(master, F_DUPFD_CLOEXEC, 0);
  if (output < 0) {
    if (other >= 0) calls.close(other);
    calls.close(master);
    return callFailed(calls, 'a pseudo-terminal', output);
  }
  const settings = calls.allocate(TERMIOS_SIZE);
  calls.ioctl(other, TCGETS, settings.address);
  clear(settings, INPUT_FLAGS, CHANGES_INPUT);
  clear(settings, OUTPUT_FLAGS, CHANGES_OUTPUT);
  clear(settings, LOCAL_FLAGS, LINES_AND_ECHO | SIGNALS);
  calls.ioctl(other, TCSETS, settings.address);
  const closed = () => void calls.close(other);
  const stream = fdStream(calls, reactor, { input: master, output, endsWithInput: false, closed });
  return ok({ end: new FixedEnd(stream), path: `/dev/pts/${number.view.getUint32(0, true)}` });
}

function clear(settings: Memory, at: number, flags: number): void {
  settings.view.setUint32(at, settings.view.getUint32(at, true) & ~flags, true);
}
