import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FilterOptions, type Machine, seccompProgram } from '@airlock/transport/seccomp-filter.ts';

const ALLOW = 0x7fff_0000;
const KILL = 0x8000_0000;
const EPERM = 0x0005_0001;
const ENOSYS = 0x0005_0026;
const ARCH: Record<Machine, number> = { x64: 0xc000_003e, arm64: 0xc000_00b7 };
const NONE: FilterOptions = { unixSockets: false, rings: false };

/** Runs the program as the kernel would: classic BPF over struct seccomp_data. */
function verdict(program: Uint8Array, arch: number, number: number, args: readonly number[] = []): number {
  const code = new DataView(program.buffer);
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, arch, true);
  for (const [i, value] of args.entries()) data.setBigUint64(16 + 8 * i, BigInt.asUintN(64, BigInt(value)), true);
  let accumulator = 0;
  for (let at = 0; at < program.length; at += 8) {
    const value = code.getUint32(at + 4, true);
    const jump = (taken: boolean) => {
      at += 8 * code.getUint8(at + (taken ? 2 : 3));
    };
    switch (code.getUint16(at, true)) {
      case 0x20:
        accumulator = data.getUint32(value, true);
        break;
      case 0x15:
        jump(accumulator === value);
        break;
      case 0x35:
        jump(accumulator >= value);
        break;
      case 0x45:
        jump((accumulator & value) !== 0);
        break;
      case 0x06:
        return value;
      default:
        assert.fail(`instruction ${code.getUint16(at, true)}`);
    }
  }
  return assert.fail('the program has no end');
}

const numbers: Record<Machine, Record<string, number>> = {
  x64: { read: 0, write: 1, mmap: 9, ioctl: 16, socket: 41, clone: 56, execve: 59, mount: 165, exit_group: 231 },
  arm64: { read: 63, write: 64, mmap: 222, ioctl: 29, socket: 198, clone: 220, execve: 221, mount: 40, exit_group: 94 },
};

for (const machine of ['x64', 'arm64'] as const) {
  const of = (name: string) => numbers[machine][name] ?? -1;
  const run = (name: string | number, args: readonly number[] = [], options = NONE) =>
    verdict(seccompProgram(machine, options), ARCH[machine], typeof name === 'number' ? name : of(name), args);

  test(`${machine}: what an engine needs is allowed, new programs and mounts are not`, () => {
    for (const name of ['read', 'write', 'mmap', 'exit_group']) assert.equal(run(name), ALLOW, name);
    // epoll_pwait2, io_uring_enter, io_uring_register, futex_waitv
    for (const number of [441, 426, 427, 449]) assert.equal(run(number), ALLOW, String(number));
    for (const name of ['execve', 'mount']) assert.equal(run(name), EPERM, name);
    for (const number of [424, 434, 438, 428, 442]) assert.equal(run(number), EPERM, String(number));
  });

  test(`${machine}: threads may be made, processes not, however it is asked for`, () => {
    assert.equal(run('clone', [0x0001_0000 | 0x100]), ALLOW);
    assert.equal(run('clone', [0x11]), EPERM);
    assert.equal(run('clone', [0x2000_0000]), EPERM);
    assert.equal(run(435), ENOSYS);
  });

  test(`${machine}: signals by kill, tkill and both ways of sigqueue are denied`, () => {
    const numbersOf = machine === 'x64' ? [62, 200, 129, 297, 424] : [129, 130, 138, 240, 424];
    for (const number of numbersOf) assert.equal(run(number), EPERM, String(number));
    // Threads of the engine signal each other, and it ends itself, by tgkill(2).
    assert.equal(run(machine === 'x64' ? 234 : 131), ALLOW);
  });

  test(`${machine}: sockets and rings only as asked for`, () => {
    for (const domain of [1, 2, 10, 16, 17, 40]) assert.equal(run('socket', [domain]), EPERM, String(domain));
    const unix = { unixSockets: true, rings: false };
    assert.equal(run('socket', [1], unix), ALLOW);
    for (const domain of [2, 10, 16, 17, 40]) assert.equal(run('socket', [domain], unix), EPERM, String(domain));
    assert.equal(run(425), EPERM);
    assert.equal(run(425, [], { unixSockets: false, rings: true }), ALLOW);
  });

  test(`${machine}: nothing is typed into the terminal; other requests pass`, () => {
    // The kernel looks at 32 bits of the request only.
    for (const request of [0x5412, 0x541c, 0x1_0000_5412]) assert.equal(run('ioctl', [0, request]), EPERM);
    assert.equal(run('ioctl', [0, 0x5401]), ALLOW);
  });

  test(`${machine}: calls of another machine end the process`, () => {
    const program = seccompProgram(machine, NONE);
    // i386, arm, the other one
    for (const arch of [0x4000_0003, 0x4000_0028, ARCH[machine === 'x64' ? 'arm64' : 'x64']]) {
      assert.equal(verdict(program, arch, of('read')), KILL);
    }
    if (machine === 'x64') {
      for (const number of [0x4000_0000, 0x4000_003b, 0xffff_ffff]) assert.equal(run(number), KILL);
    }
  });

  test(`${machine}: every number ends in a verdict, whatever the options`, () => {
    for (const unixSockets of [false, true]) {
      for (const rings of [false, true]) {
        const program = seccompProgram(machine, { unixSockets, rings });
        for (let number = 0; number < 512; number++) {
          assert.ok([ALLOW, EPERM, ENOSYS].includes(verdict(program, ARCH[machine], number, [0, 0])));
        }
      }
    }
  });
}
