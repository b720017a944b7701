/**
 * The system calls that a device process has no business with, as a program for seccomp(2): new programs, other processes,
 * namespaces and mounts, modules, keys, clocks, new sockets but those it was said to need. They fail with EPERM; calls of
 * another machine's numbering end the process.
 *
 * It is a list of what is denied, because the engine needs many calls and other ones with each version; what it leaves
 * open is narrowed by the namespaces and by having no capabilities.
 */

export interface FilterOptions {
  /** New Unix sockets may be made. */
  readonly unixSockets: boolean;
  /** New io_urings may be made. */
  readonly rings: boolean;
}

export type Machine = 'x64' | 'arm64';

/** Name: number on x86-64, on arm64; -1 where there is none. */
const DENIED: Readonly<Record<string, readonly [number, number]>> = {
  execve: [59, 221],
  execveat: [322, 281],
  fork: [57, -1],
  vfork: [58, -1],
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  kcmp: [312, 272],
  kill: [62, 129],
  tkill: [200, 130],
  rt_sigqueueinfo: [129, 138],
  rt_tgsigqueueinfo: [297, 240],
  process_mrelease: [448, 448],
  pidfd_send_signal: [424, 424],
  pidfd_open: [434, 434],
  pidfd_getfd: [438, 438],
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  open_tree_attr: [467, 467],
  unshare: [272, 97],
  setns: [308, 268],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  userfaultfd: [323, 282],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  capset: [126, 91],
  personality: [135, 92],
  acct: [163, 89],
  quotactl: [179, 60],
  syslog: [103, 116],
  open_by_handle_at: [304, 265],
  iopl: [172, -1],
  ioperm: [173, -1],
  modify_ldt: [154, -1],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  adjtimex: [159, 171],
  clock_adjtime: [305, 266],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  vhangup: [153, 58],
};
const SOCKET = [41, 198] as const;
const CLONE = [56, 220] as const;
const CLONE3 = 435;
const IOCTL = [16, 29] as const;
const IO_URING_SETUP = 425;

const AF_UNIX = 1;
const CLONE_THREAD = 0x0001_0000;
/** Typing into the terminal that this process inherited. */
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

const AUDIT_ARCH: Readonly<Record<Machine, number>> = { x64: 0xc000_003e, arm64: 0xc000_00b7 };
/** Numbers from here on are those of the x32 ABI. */
const X32 = 0x4000_0000;

const ALLOW = 0x7fff_0000;
const KILL_PROCESS = 0x8000_0000;
const EPERM = 0x0005_0001;
const ENOSYS = 0x0005_0026;

/** struct seccomp_data: number, machine, instruction, six arguments (the low halves on little-endian machines). */
const NUMBER = 0;
const ARCH = 4;
const argument = (index: number): number => 16 + 8 * index;

const LOAD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER_EQUAL = 0x35;
const JUMP_SET = 0x45;
const RETURN = 0x06;

type Instruction = readonly [code: number, ifTrue: number, ifFalse: number, value: number];

/** struct sock_filter for each instruction, 8 bytes each. */
export function seccompProgram(machine: Machine, options: FilterOptions): Uint8Array {
  const column = machine === 'x64' ? 0 : 1;
  const program: Instruction[] = [
    [LOAD, 0, 0, ARCH],
    [JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]],
    [RETURN, 0, 0, KILL_PROCESS],
    [LOAD, 0, 0, NUMBER],
  ];
  if (machine === 'x64') program.push([JUMP_GREATER_EQUAL, 0, 1, X32], [RETURN, 0, 0, KILL_PROCESS]);
  const deny = (number: number, answer = EPERM): void => {
    if (number >= 0) program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, answer]);
  };
  for (const numbers of Object.values(DENIED)) deny(numbers[column]);
  if (!options.rings) deny(IO_URING_SETUP);
  // The C library makes threads with it, and with clone(2) where it is not there, whose flags can be looked at.
  deny(CLONE3, ENOSYS);
  const allowOnly = (number: number, test: Instruction): void => {
    program.push(
      [JUMP_EQUAL, 0, 4, number],
      [LOAD, 0, 0, argument(0)],
      test,
      [RETURN, 0, 0, ALLOW],
      [RETURN, 0, 0, EPERM],
    );
  };
  allowOnly(CLONE[column], [JUMP_SET, 0, 1, CLONE_THREAD]);
  if (options.unixSockets) allowOnly(SOCKET[column], [JUMP_EQUAL, 0, 1, AF_UNIX]);
  else deny(SOCKET[column]);
  program.push(
    [JUMP_EQUAL, 0, 4, IOCTL[column]],
    [LOAD, 0, 0, argument(1)],
    [JUMP_EQUAL, 1, 0, TIOCSTI],
    [JUMP_EQUAL, 0, 1, TIOCLINUX],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  );
  const bytes = new Uint8Array(8 * program.length);
  const view = new DataView(bytes.buffer);
  for (const [i, [code, ifTrue, ifFalse, value]] of program.entries()) {
    view.setUint16(8 * i, code, true);
    view.setUint8(8 * i + 2, ifTrue);
    view.setUint8(8 * i + 3, ifFalse);
    view.setUint32(8 * i + 4, value, true);
  }
  return bytes;
}
