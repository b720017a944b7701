/**
 * A device of every type, one after the other, in one running guest: served by a process of its own, plugged in, bound by
 * the kernel's driver, used, unplugged. What happened is what docs/device-types.md says.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import type { KernelSeries } from './cache.ts';
import { type DeviceProcess, startDevice } from './device-process.ts';
import { bootDriverGuest, type DriverImages } from './driver-guest.ts';
import type { Guest } from './guest.ts';
import type { Part } from './qemu.ts';

/** How a device reaches the guest. `plain`: QEMU emulates MSI-X for the function; otherwise the function is all ours. */
export const DEVICE_TRANSPORTS = ['vfio-user', 'vfio-user plain', 'vhost-user'] as const;
export type DeviceTransport = (typeof DEVICE_TRANSPORTS)[number];

/** What a case has in hand while its device is plugged in. */
export interface Bench {
  readonly series: KernelSeries;
  readonly transport: DeviceTransport;
  /** Of this machine, for files of the device. */
  readonly folder: string;
  readonly guest: Guest;
  /** Runs a shell script in the guest. Codes: the guest's, `device-bench-failed`. */
  shell(script: string, seconds?: number): Promise<Result<string>>;
  /** Says a word to the device's control socket. Codes: `device-bench-failed`, the device's. */
  ask(words: string): Promise<Result<unknown>>;
}

export interface DeviceCase {
  readonly type: VirtioTypeName;
  /** The driver that is to bind. */
  readonly driver: string;
  /** Kernels that have none, of those of the lab. */
  readonly without?: readonly KernelSeries[];
  /** Transports that cannot carry the device, with why. */
  readonly not?: Partial<Readonly<Record<DeviceTransport, string>>>;
  /** Queues and bytes of configuration, for a front-end that has to be told. */
  readonly shape: { readonly queues: number; readonly config: number };
  /** What a kernel's own driver says of every device of the type, however good it is. */
  readonly usual?: RegExp;
  /** It has no control socket: its own tests ask it in other ways. */
  readonly silent?: true;
  /** Makes what the device needs in `folder` and gives its options. */
  options(folder: string): readonly string[];
  /** One real operation, seen from both sides; says what was done. Codes: `device-bench-failed` and others. */
  use(bench: Bench): Promise<Result<string>>;
}

/** What became of one case. */
export interface CaseOutcome {
  readonly type: VirtioTypeName;
  readonly transport: DeviceTransport;
  /** `null`: none bound. */
  readonly driver: string | null;
  /** What was done, or why not. */
  readonly done: Result<string>;
  /** Why nothing was expected. */
  readonly excused: string | null;
  /** What the kernel logged as a warning or worse meanwhile. */
  readonly warnings: readonly string[];
}

/** MiB of the guest, of which it uses the lower half: the upper one is for `memory` devices to plug. */
export const GUEST_MEMORY = 1024;
export const GUEST_USES = 512;
const PORTS = 6;

/** Boots a guest with free slots. Codes: the guest's. */
export function bootBench(images: DriverImages): Promise<Result<Guest>> {
  const ports = Array.from({ length: PORTS }, (_, i): Part => {
    const number = String(i + 1);
    return {
      device: {
        ...{ driver: 'pcie-root-port', id: `port${number}`, bus: 'pcie.0', chassis: number, slot: number },
        'pref32-reserve': '32M',
      },
    };
  });
  return bootDriverGuest(images, {
    parts: ports,
    memory: GUEST_MEMORY,
    // Time in an emulated guest on a busy machine is uneven, which is no fault of a device.
    cmdline: `mem=${GUEST_USES}M tsc=nowatchdog`,
  });
}

/** `index` says which slot; a case that stays plugged in (plain) keeps its own. */
export async function runCase(
  guest: Guest,
  series: KernelSeries,
  transport: DeviceTransport,
  one: DeviceCase,
  index: number,
): Promise<CaseOutcome> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-bench-'));
  const outcome = (driver: string | null, done: Result<string>, excused: string | null = null): CaseOutcome => ({
    ...{ type: one.type, transport, driver, done, excused, warnings: [] },
  });
  const excuse = one.not?.[transport];
  if (excuse !== undefined) return outcome(null, fail('device-bench-failed', excuse), excuse);
  const before = await kernelWarnings(guest);
  const control = join(folder, 'control');
  let device: Result<DeviceProcess> | null = null;
  try {
    const flags =
      transport === 'vhost-user'
        ? []
        : ['--transport', 'vfio-user', ...(transport === 'vfio-user plain' ? ['--plain'] : [])];
    device = await startDevice(
      one.type,
      [...one.options(folder), ...(one.silent ? [] : ['--control', control]), ...flags],
      { seconds: 60 },
    );
    if (!device.ok) return outcome(null, device);
    const id = `dev${index}`;
    const plugged = await plug(guest, transport, one, device.value.socket, id, `port${(index % PORTS) + 1}`);
    if (!plugged.ok) return outcome(null, plugged);
    if (one.without?.includes(series)) {
      const found = await driverOf(guest, one.type, 3);
      const unplugged = transport === 'vfio-user plain' ? ok('') : await unplug(guest, id);
      const why = 'this kernel has no driver';
      if (!unplugged.ok || found !== null) return outcome(found, fail('device-bench-failed', `bound by ${found}`));
      return outcome(null, fail('device-bench-failed', why), why);
    }
    const driver = await driverOf(guest, one.type, 30);
    if (driver === null) return outcome(null, fail('device-bench-failed', `no driver: ${device.value.said()}`));
    const done = await one.use({
      ...{ series, transport, folder, guest },
      shell: (script, seconds) => shell(guest, script, seconds),
      ask: (words) => askControl(control, words),
    });
    // QEMU 11 aborts when a function whose MSI-X it emulates is unplugged.
    const unplugged = transport === 'vfio-user plain' || !done.ok ? ok('') : await unplug(guest, id);
    const after = await kernelWarnings(guest);
    const warnings = after.slice(before.length).filter((line) => one.usual?.test(line) !== true);
    return { ...outcome(driver, unplugged.ok ? done : unplugged), warnings };
  } finally {
    if (device?.ok) await (transport === 'vfio-user plain' ? device.value.kill() : device.value.end());
    rmSync(folder, { recursive: true, force: true });
  }
}

async function plug(
  guest: Guest,
  transport: DeviceTransport,
  one: DeviceCase,
  socket: string,
  id: string,
  bus: string,
): Promise<Result<unknown>> {
  if (transport !== 'vhost-user') {
    const address = { type: 'unix', path: socket };
    return guest.qmp.execute('device_add', { driver: 'vfio-user-pci', socket: address, bus, id });
  }
  const made = await guest.qmp.execute('chardev-add', {
    id: `${id}-line`,
    backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: socket } }, server: false } },
  });
  if (!made.ok) return made;
  return guest.qmp.execute('device_add', {
    ...{ driver: 'vhost-user-test-device-pci', chardev: `${id}-line`, bus, id },
    ...{ 'virtio-id': VIRTIO_TYPES[one.type], num_vqs: one.shape.queues, config_size: one.shape.config },
  });
}

async function unplug(guest: Guest, id: string): Promise<Result<string>> {
  const asked = await guest.qmp.execute('device_del', { id });
  if (!asked.ok) return asked;
  const gone = await guest.qmp.event(({ event, data }) => event === 'DEVICE_DELETED' && data['device'] === id, 30);
  if (!gone.ok) return gone;
  await guest.qmp.execute('chardev-remove', { id: `${id}-line` });
  return ok('');
}

/** The name of the driver that holds the device of this type; null when there is none in time. */
async function driverOf(guest: Guest, type: VirtioTypeName, seconds: number): Promise<string | null> {
  const number = VIRTIO_TYPES[type].toString(16).padStart(4, '0');
  const found = await guest.run(
    `for i in $(seq ${seconds * 5}); do
  for d in /sys/bus/virtio/devices/*; do
    if [ "$(cat $d/device)" = 0x${number} ] && [ -e $d/driver ]; then basename $(readlink $d/driver); exit 0; fi
  done
  sleep 0.2
done`,
    seconds + 60,
  );
  const name = found.ok ? found.value.stdout.trim() : '';
  return name === '' ? null : name;
}

async function shell(guest: Guest, script: string, seconds = 60): Promise<Result<string>> {
  const answer = await guest.run(`set -e\n${script}`, seconds);
  if (!answer.ok) return answer;
  const { status, stdout, stderr } = answer.value;
  if (status === 0) return ok(stdout);
  return fail('device-bench-failed', `status ${status} of:\n${script}\n${stdout}\n${stderr}`);
}

/** Lines of the kernel's log at warning or worse. */
async function kernelWarnings(guest: Guest): Promise<readonly string[]> {
  const log = await guest.run('dmesg -r', 20);
  if (!log.ok) return [];
  return log.value.stdout.split('\n').filter((line) => Number(/^<([0-9]+)>/.exec(line)?.[1] ?? 7) % 8 <= 4);
}

/** One word to a control socket, one line back. */
export function askControl(path: string, words: string): Promise<Result<unknown>> {
  return new Promise((resolve) => {
    const socket = connect(path);
    let heard = '';
    const done = (result: Result<unknown>) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    const timer = setTimeout(() => done(fail('device-bench-failed', `${words}: no answer`)), 20_000);
    socket.setEncoding('latin1');
    socket.on('error', (error) => done(fail('device-bench-failed', `${words}: ${error.message}`)));
    socket.on('connect', () => socket.write(`${words}\n`));
    socket.on('data', (piece: string) => {
      heard += piece;
      if (heard.endsWith('\n')) done(JSON.parse(heard) as Result<unknown>);
    });
    socket.on('close', () => done(fail('device-bench-failed', `${words}: the device hung up`)));
  });
}
