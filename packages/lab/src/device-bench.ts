/**
 * A device of every type, one after the other, in one running guest: served by a process of its own, plugged in, bound by
 * the kernel's driver, used, unplugged. What happened is what docs/device-types.md says.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import { SERVED_TYPES } from '@airlock/device/serve-types.ts';
import type { Kernel } from './cache.ts';
import { type DeviceProcess, startDevice } from './device-process.ts';
import { bootDriverGuest, type DriverImages } from './driver-guest.ts';
import type { Guest } from './guest.ts';
import { complaints, type DeviceStage, takeKernelLog } from './kernel-log.ts';
import { type PciListing, readPciListing } from './pci-listing.ts';
import type { Part } from './qemu.ts';

/**
 * How a device reaches the guest. `plain`: QEMU emulates MSI-X for the function; otherwise the function is all ours.
 * `vhost-user`: through QEMU's device for any type; `own`: through the one that QEMU has for the type.
 */
export const DEVICE_TRANSPORTS = ['vfio-user', 'vfio-user plain', 'vhost-user', 'vhost-user own'] as const;
export type DeviceTransport = (typeof DEVICE_TRANSPORTS)[number];

/** What a case has in hand while its device is plugged in. */
export interface Bench {
  readonly kernel: Kernel;
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
  /** What turns that driver on when a kernel is built: `CONFIG_` and this; null where Linux has none at all. */
  readonly option: string | null;
  /** QEMU's front-end for the type, with its properties; or why there is none here. */
  readonly frontEnd: { readonly driver: string; readonly properties?: Readonly<Record<string, string>> } | string;
  /** Queues and bytes of configuration, for a front-end that has to be told. */
  readonly shape: { readonly queues: number; readonly config: number };
  /**
   * Nobody in the guest holds the device any more: true once that is so. Asked before the driver has to let it go, where
   * Linux itself does not wait for its users.
   */
  settled?(bench: Bench): Promise<boolean>;
  /** Why Linux itself cannot let go of such a device: it stays plugged in until its guest ends. */
  readonly stays?: string;
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
  /** The driver was built beside the kernel, which lacks it. */
  readonly aside?: true;
  /** What was done, or why not. */
  readonly done: Result<string>;
  /** Why nothing was expected. */
  readonly excused: string | null;
  /** What the kernel logged as a warning or worse, and when; without what it says of any device of the type. */
  readonly warnings: readonly string[];
  /** The function as lspci in the guest reads it while its driver has it; null: it never came to that. */
  readonly listing: PciListing | null;
}

/** MiB of the guest, of which it uses the lower half: the upper one is for `memory` devices to plug. */
export const GUEST_MEMORY = 1024;
export const GUEST_USES = 512;
/** Slots of a guest. */
export const PORTS = 6;

/** Slots for what is plugged in while the guest runs: `port1` and on, with room for a window of 16 MiB each. */
export function freeSlots(): Part[] {
  return Array.from({ length: PORTS }, (_, i) => {
    const number = String(i + 1);
    return {
      device: {
        ...{ driver: 'pcie-root-port', id: `port${number}`, bus: 'pcie.0', chassis: number, slot: number },
        'pref32-reserve': '32M',
      },
    };
  });
}

/** Servers of functions that stay plugged in: a QEMU whose function lost its server may end when the next one comes. */
const staying = new WeakMap<Guest, DeviceProcess[]>();

/** Boots a guest with free slots. Codes: the guest's. */
export async function bootBench(images: DriverImages): Promise<Result<Guest>> {
  const booted = await bootDriverGuest(images, {
    parts: freeSlots(),
    memory: GUEST_MEMORY,
    // Time in an emulated guest on a busy machine is uneven, which is no fault of a device.
    cmdline: `mem=${GUEST_USES}M tsc=nowatchdog`,
  });
  if (!booted.ok) return booted;
  const devices: DeviceProcess[] = [];
  const guest: Guest = {
    ...booted.value,
    async end() {
      await booted.value.end();
      for (const device of devices.splice(0)) await device.end();
    },
  };
  staying.set(guest, devices);
  return ok(guest);
}

/** Whether a kernel was built with the driver of a type, and what its configuration says of it. */
export function kernelDriver(kernel: Kernel, option: string | null): { readonly has: boolean; readonly said: string } {
  if (option === null) return { has: false, said: 'Linux has no driver' };
  if (kernel.added?.includes(option)) return { has: true, said: `CONFIG_${option}, built aside` };
  const config = readFileSync(join(kernel.tree, 'config'), 'utf8');
  const set = new RegExp(`^CONFIG_${option}=[ym]$`, 'm').test(config);
  if (set) return { has: true, said: `CONFIG_${option}` };
  const known = config.includes(`# CONFIG_${option} is not set`);
  return { has: false, said: `no driver: ${known ? '' : 'no '}CONFIG_${option}${known ? ' is not set' : ' here'}` };
}

/** `index` says which slot; a case that stays plugged in (plain) keeps its own. */
export async function runCase(
  guest: Guest,
  kernel: Kernel,
  transport: DeviceTransport,
  one: DeviceCase,
  index: number,
): Promise<CaseOutcome> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-bench-'));
  const warnings: string[] = [];
  let driver: string | null = null;
  let listing: PciListing | null = null;
  const outcome = (done: Result<string>, excused: string | null = null): CaseOutcome => ({
    ...{ type: one.type, transport, driver, done, excused, warnings, listing },
    ...(driver !== null && kernel.added?.some((option) => option === one.option) ? { aside: true } : {}),
  });
  const way = transport.startsWith('vhost-user') ? 'vhost-user' : 'vfio-user';
  const none = transport === 'vhost-user own' && typeof one.frontEnd === 'string' ? one.frontEnd : undefined;
  const excuse = none ?? (await SERVED_TYPES[one.type]?.())?.served.not?.[way];
  if (excuse !== undefined) return outcome(fail('device-bench-failed', excuse), excuse);
  const control = join(folder, 'control');
  const expected = kernelDriver(kernel, one.option);
  const id = `dev${index}`;
  const keeps = expected.has && one.stays !== undefined;
  // QEMU 11 aborts when a function whose MSI-X it emulates is unplugged.
  const plain = transport === 'vfio-user plain';
  const bench: Bench = {
    ...{ kernel, transport, folder, guest },
    shell: (script, seconds) => shell(guest, script, seconds),
    ask: (words) => askControl(control, words),
  };

  /** Takes note of what the kernel has to say after a stage. */
  async function heard(stage: DeviceStage): Promise<Result<void>> {
    const log = await takeKernelLog(guest);
    if (!log.ok) return log;
    warnings.push(...complaints(log.value, one.type).map((line) => `${stage}: ${line}`));
    return ok(undefined);
  }
  async function use(): Promise<Result<string>> {
    driver = await driverOf(guest, one.type, expected.has ? 30 : 3);
    const probed = await heard('probe');
    if (!probed.ok) return probed;
    const listed = await listFunction(bench, one.type);
    if (!listed.ok) return listed;
    listing = listed.value;
    if (!expected.has) return driver === null ? ok(expected.said) : fail('device-bench-failed', `bound by ${driver}`);
    if (driver === null) return fail('device-bench-failed', `no driver: ${device?.ok ? device.value.said() : ''}`);
    const done = await one.use(bench);
    const used = await heard('operation');
    if (!done.ok) return done;
    if (!used.ok) return used;
    if (keeps) return done;
    const again = await rebind(bench, one.type);
    const free = (await one.settled?.(bench)) ?? true;
    const rebound = await heard('unbind');
    if (!again.ok) return again;
    if (!rebound.ok) return rebound;
    return free ? done : fail('device-bench-failed', 'the device stays in use');
  }

  let device: Result<DeviceProcess> | null = null;
  try {
    const flags = ['--transport', way, ...(transport === 'vfio-user plain' ? ['--plain'] : [])];
    device = await startDevice(
      one.type,
      [...one.options(folder), ...(one.silent ? [] : ['--control', control]), ...flags],
      { seconds: 60 },
    );
    if (!device.ok) return outcome(device);
    // What was logged before is none of this device's doing.
    const before = await takeKernelLog(guest);
    if (!before.ok) return outcome(before);
    const plugged = await plug(guest, transport, one, device.value.socket, id, `port${(index % PORTS) + 1}`);
    if (!plugged.ok) return outcome(plugged);
    const done = await use();
    if (!plain && !keeps && done.ok) {
      const unplugged = await unplug(guest, id);
      const quiet = await heard('unplug');
      if (!unplugged.ok) return outcome(unplugged);
      if (!quiet.ok) return outcome(quiet);
    }
    if (!expected.has && done.ok) return outcome(fail('device-bench-failed', done.value), done.value);
    return outcome(done);
  } finally {
    const stays = plain || keeps ? staying.get(guest) : undefined;
    if (device?.ok) {
      if (stays !== undefined) stays.push(device.value);
      else await device.value.end();
    }
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Sets `d` to the virtio device of a type. */
const findDevice = (type: VirtioTypeName) =>
  `for d in /sys/bus/virtio/devices/*; do
  [ "$(cat $d/device)" = 0x${VIRTIO_TYPES[type].toString(16).padStart(4, '0')} ] && break
done`;

/** What lspci says of the function that carries the device of a type. Codes: the guest's, `device-bench-failed`. */
async function listFunction(bench: Bench, type: VirtioTypeName): Promise<Result<PciListing>> {
  const listed = await bench.shell(
    `${findDevice(type)}
lspci -D -vvv -xxxx -s $(basename $(dirname $(readlink -f $d))) 2>&1`,
    120,
  );
  return listed.ok ? ok(readPciListing(listed.value)) : listed;
}

/** The driver lets the device go, and takes it again. Codes: the guest's, `device-bench-failed`. */
function rebind(bench: Bench, type: VirtioTypeName): Promise<Result<string>> {
  return bench.shell(
    `${findDevice(type)}
driver=$(readlink -f $d/driver)
name=$(basename $d)
echo $name >$driver/unbind
[ ! -e $d/driver ]
echo $name >$driver/bind
[ -e $d/driver ]`,
    120,
  );
}

async function plug(
  guest: Guest,
  transport: DeviceTransport,
  one: DeviceCase,
  socket: string,
  id: string,
  bus: string,
): Promise<Result<unknown>> {
  if (!transport.startsWith('vhost-user')) {
    const address = { type: 'unix', path: socket };
    // QEMU waits 5 s for an answer otherwise, which a busy machine can take.
    const patience = { 'x-msg-timeout': 30_000 };
    return guest.qmp.execute('device_add', { driver: 'vfio-user-pci', socket: address, ...patience, bus, id });
  }
  const made = await guest.qmp.execute('chardev-add', {
    id: `${id}-line`,
    backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: socket } }, server: false } },
  });
  if (!made.ok) return made;
  const line = { chardev: `${id}-line`, bus, id };
  if (transport === 'vhost-user own' && typeof one.frontEnd !== 'string') {
    return guest.qmp.execute('device_add', { driver: one.frontEnd.driver, ...line, ...one.frontEnd.properties });
  }
  return guest.qmp.execute('device_add', {
    ...{ driver: 'vhost-user-test-device-pci', ...line },
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
