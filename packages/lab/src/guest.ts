/**
 * A running guest. Everything that it takes of this machine (QEMU, sockets, a private folder) ends with it, also when
 * it fails to start and when this process dies in any way: a watcher holds a pipe from us, and what it waits for is the
 * end of that pipe.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Cache } from './cache.ts';
import { type Answer, channelReader, encodeCommand } from './channel.ts';
import {
  FIRMWARE_VARIABLES,
  firmwareVariables,
  type Machine,
  qemuEnvironment,
  qemuWords,
  TPM_FOLDER,
  tpmWords,
} from './qemu.ts';
import { openQmp, type Qmp } from './qmp.ts';

export interface Guest {
  readonly qmp: Qmp;
  /** Host path of the socket on which a person finds a shell. */
  readonly shellSocket: string;
  /** From the start of the machine to a guest that answers. */
  readonly bootMilliseconds: number;
  /** Runs a shell script as root. Codes: `channel-command`, `channel-closed`, `guest-timeout`, `guest-exited`, `guest-panic`. */
  run(script: string, seconds?: number): Promise<Result<Answer>>;
  /** What the kernel and init wrote to the console so far, escaped. */
  console(): string;
  /** Ends QEMU and removes its folder; may be called twice. */
  end(): Promise<void>;
}

export interface GuestOptions {
  readonly machine: Machine;
  /** A folder that ends with the guest too, however it ends. */
  readonly owns?: string;
  /** Seconds until the guest must answer. */
  readonly bootSeconds?: number;
  readonly signal?: AbortSignal;
  /** Called with each line of the console as it comes, escaped. */
  readonly onConsole?: (line: string) => void;
}

const CONSOLE_KEPT = 1 << 20;

/** $1 is the folder, $2 another one or nothing, the rest QEMU (or a guest's TPM): ends QEMU when our pipe closes, and cleans up when QEMU ends. */
const WATCHER = `
folder=$1 owned=$2; shift 2
exec 3<&0 4>&2 2>/dev/null # what the shell itself says must not meet a closed pipe
"$@" </dev/null 2>&4 3<&- 4>&- &
exec 4>&-
qemu=$!
( cat <&3; kill -9 $qemu ) >/dev/null 2>&1 &
watch=$!
wait $qemu
status=$?
kill $watch 2>/dev/null
rm -rf "$folder" "$owned"
exit $status
`;

/** Boots; gives the guest once it answers. Codes: `guest-start`, `guest-exited`, `guest-panic`, `guest-timeout`, `lab-interrupted`, QMP's. */
export async function startGuest(cache: Cache, options: GuestOptions): Promise<Result<Guest>> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-guest-'));
  mkdirSync(join(folder, 'share'));
  const { tpmState } = options.machine;
  const tpm = tpmState === undefined ? null : await startTpm(cache, tpmState, folder);
  if (tpm !== null && !tpm.ok) {
    rmSync(folder, { recursive: true, force: true });
    return tpm;
  }
  const child = startWatched(cache, folder, qemuWords(cache, options.machine, folder), options.owns);
  const sockets: Socket[] = [];
  const state = watchGuest(child, options.onConsole);

  async function end(): Promise<void> {
    options.signal?.removeEventListener('abort', interrupted);
    state.stop(fail('guest-exited', 'the guest was ended'));
    for (const socket of sockets) socket.destroy();
    child.stdin?.destroy();
    await state.gone;
    if (tpm?.ok) await tpm.value.end();
    rmSync(folder, { recursive: true, force: true });
  }
  const interrupted = () => {
    state.stop(fail('lab-interrupted', 'interrupted'));
    child.stdin?.destroy();
  };
  options.signal?.addEventListener('abort', interrupted, { once: true });
  if (options.signal?.aborted) interrupted();

  async function open(name: string): Promise<Result<Socket>> {
    const socket = await connectSoon(join(folder, `${name}.sock`), () => state.fault());
    if (socket.ok) sockets.push(socket.value);
    return socket;
  }

  async function start(): Promise<Result<Guest>> {
    const serial = await open('console');
    if (!serial.ok) return serial;
    serial.value.on('data', state.console).on('error', () => {});
    const line = await open('channel');
    if (!line.ok) return line;
    const control = await open('qmp');
    if (!control.ok) return control;
    const read = channelReader();
    let ready = () => {};
    const answers = new Map<number, (answer: Answer) => void>();
    line.value.on('error', () => {});
    line.value.on('data', (bytes: Buffer) => {
      for (const message of read(bytes)) {
        if (message.kind === 'ready') ready();
        else answers.get(message.id)?.(message.answer);
      }
    });
    const qmp = await openQmp(control.value);
    if (!qmp.ok) {
      // A machine that QEMU refuses: what it says about that comes a moment after its sockets close.
      await Promise.race([state.gone, new Promise((resolve) => setTimeout(resolve, 1000))]);
      return state.fault() ?? qmp;
    }
    const started = performance.now();
    const answering = state.until<void>(
      (done) => {
        ready = () => done(undefined);
      },
      options.bootSeconds ?? 180,
      'the guest did not come up',
    );
    const running = await qmp.value.execute('cont');
    if (!running.ok) return state.fault() ?? running;
    const up = await answering;
    if (!up.ok) {
      const last = state.text().trim().split('\n').slice(-3).join(' | ').slice(-300);
      return last === '' ? up : fail(up.error.code, up.error.message, { hint: `the console ends with: ${last}` });
    }
    const bootMilliseconds = performance.now() - started;

    let lastId = 0;
    let queue: Promise<unknown> = Promise.resolve();
    async function runOne(script: string, seconds: number): Promise<Result<Answer>> {
      lastId += 1;
      const id = lastId;
      const command = encodeCommand(id, seconds, script);
      if (!command.ok) return command;
      if (line.ok) line.value.write(command.value);
      // The guest ends the command itself; the slack is for an emulated machine that is slow to say so.
      const answer = await state.until<Answer>(
        (done) => void answers.set(id, done),
        seconds + 15,
        `no answer to: ${script.trim().split('\n')[0]?.slice(0, 80)}`,
      );
      answers.delete(id);
      return answer;
    }
    return ok({
      qmp: qmp.value,
      shellSocket: join(folder, 'shell.sock'),
      bootMilliseconds,
      run(script, seconds = 20) {
        // One at a time: the guest reads the next command when it is done with this one.
        const answer = queue.then(() => runOne(script, seconds));
        queue = answer;
        return answer;
      },
      console: state.text,
      end,
    });
  }
  const guest = await start();
  if (!guest.ok) await end();
  return guest;
}

function startWatched(cache: Cache, folder: string, words: readonly string[], owned = ''): ChildProcess {
  return spawn('sh', ['-c', WATCHER, 'guest', folder, owned, ...words], {
    stdio: ['pipe', 'ignore', 'pipe'],
    detached: true,
    cwd: folder,
    env: { ...process.env, ...qemuEnvironment(cache), TMPDIR: folder },
  });
}

/** Gives the TPM once it listens; it has a folder and a watcher of its own. Codes: `guest-start`. */
async function startTpm(
  cache: Cache,
  state: string,
  folder: string,
): Promise<Result<{ readonly end: () => Promise<void> }>> {
  const own = join(folder, TPM_FOLDER);
  mkdirSync(own);
  mkdirSync(state, { recursive: true });
  copyFileSync(firmwareVariables(cache), join(folder, FIRMWARE_VARIABLES));
  const child = startWatched(cache, own, tpmWords(cache, state, folder));
  let said = '';
  let over = false;
  child.stderr?.on('data', (bytes: Buffer) => {
    said = (said + asciiText(bytes)).slice(0, 4000);
  });
  const gone = new Promise<void>((resolve) => {
    const end = () => {
      over = true;
      resolve();
    };
    child.on('error', end).on('close', end);
  });
  const end = async () => {
    child.stdin?.destroy();
    await gone;
  };
  // It writes its number once it listens.
  for (let tries = 0; tries < 400 && !over; tries++) {
    if (existsSync(join(own, 'tpm.pid'))) return ok({ end });
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  await end();
  return fail('guest-start', `the software TPM did not start: ${said.trim().split('\n').at(-1) || 'it said nothing'}`);
}

/** The guest's life as seen from outside: its console, its end, and waiting for either. */
function watchGuest(child: ChildProcess, onConsole: ((line: string) => void) | undefined) {
  let text = '';
  let seen = 0;
  let complaint = '';
  let fault: Result<never> | undefined;
  const waiting = new Set<(fault: Result<never>) => void>();
  const stop = (why: Result<never>) => {
    fault ??= why;
    for (const tell of [...waiting]) tell(fault);
  };
  child.stderr?.on('data', (bytes: Buffer) => {
    complaint = (complaint + asciiText(bytes)).slice(0, 4000);
    if (/KVM internal error/.test(complaint)) stop(fail('guest-exited', 'KVM internal error'));
  });
  const gone = new Promise<void>((resolve) => {
    const over = () => {
      // What QEMU complained of, else the guest's last words.
      const said = [complaint, text]
        .map((from) => from.split('\n').filter((line) => line.trim() !== '' && !line.includes('warning:')))
        .map((lines) => lines.findLast((line) => line.startsWith('lab:')) ?? lines.at(-1));
      stop(fail(text === '' ? 'guest-start' : 'guest-exited', said[0] ?? said[1] ?? 'QEMU ended'));
      resolve();
    };
    child.on('error', over);
    child.on('close', over);
  });
  return {
    gone,
    stop,
    fault: () => fault,
    text: () => text,
    console(bytes: Buffer): void {
      text = (text + asciiText(bytes).replaceAll('\\x0d', '')).slice(-CONSOLE_KEPT);
      seen = Math.min(seen, text.length);
      for (let newline = text.indexOf('\n', seen); newline !== -1; newline = text.indexOf('\n', seen)) {
        const line = text.slice(seen, newline);
        seen = newline + 1;
        onConsole?.(line);
        if (line.includes('Kernel panic')) stop(fail('guest-panic', line.trim()));
      }
    },
    until<T>(begin: (done: (value: T) => void) => void, seconds: number, what: string): Promise<Result<T>> {
      return new Promise((resolve) => {
        const finish = (result: Result<T>) => {
          clearTimeout(timer);
          waiting.delete(finish);
          resolve(result);
        };
        const timer = setTimeout(() => finish(fail('guest-timeout', `${what} (${seconds} s)`)), seconds * 1000);
        waiting.add(finish);
        begin((value) => finish(ok(value)));
        if (fault) finish(fault);
      });
    },
  };
}

/** QEMU makes its sockets within a moment of its start. */
async function connectSoon(path: string, fault: () => Result<never> | undefined): Promise<Result<Socket>> {
  for (let tries = 0; tries < 400; tries++) {
    const why = fault();
    if (why) return why;
    const socket = await new Promise<Socket | undefined>((resolve) => {
      const attempt = connect(path);
      attempt.once('connect', () => resolve(attempt));
      attempt.once('error', () => resolve(undefined));
    });
    if (socket) return ok(socket);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return fail('guest-start', `QEMU did not open ${path} in 10 s`);
}
