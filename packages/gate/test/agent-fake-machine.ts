/** A small machine in memory whose kernel binds, unbinds, plugs and removes as Linux does. Used by the agent's tests. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type FakeFiles, type FakeNode, fakeFiles } from '@airlock/linux/fake-files.ts';
import { type FakeUevents, fakeUevents } from '@airlock/transport/fake-uevents.ts';
import type { UeventAction } from '@airlock/transport/uevent.ts';

export interface FakeFunction {
  readonly slot: string;
  readonly vendor: number;
  readonly device: number;
  readonly class: number;
  readonly revision?: number;
  /** For virtio: its type's id, the driver on the virtio bus, the bits that driver and device agree on. */
  readonly virtio?: { readonly id: number; readonly driver: string; readonly bits: readonly number[] };
  /** For other functions: the driver that matches. */
  readonly driver?: string;
  /** Shown below block/ once the driver is bound. */
  readonly serial?: FakeNode;
  readonly parent?: string;
}

export interface FakeMachine {
  readonly files: FakeFiles;
  readonly uevents: FakeUevents;
  plug(one: FakeFunction): void;
  unplug(slot: string): void;
  /** What a root shell or a careless program does: past the agent. */
  bind(slot: string): void;
  driverOf(slot: string): string | null;
  /** Seconds since boot. */
  setUptime(seconds: number): void;
  reboot(): void;
  /** Inode numbers of device folders. */
  readonly incarnations: Map<string, number>;
}

const V1_AP = [32, 33];
export const ROOT_DISK: FakeFunction = {
  slot: '0000:00:02.0',
  vendor: 0x1af4,
  device: 0x1042,
  class: 0x010000,
  revision: 1,
  virtio: { id: 2, driver: 'virtio_blk', bits: V1_AP },
  serial: 'root',
};
export const NIC: FakeFunction = {
  slot: '0000:00:03.0',
  vendor: 0x1af4,
  device: 0x1041,
  class: 0x020000,
  revision: 1,
  virtio: { id: 1, driver: 'virtio_net', bits: V1_AP },
};
export const BALLOON: FakeFunction = {
  slot: '0000:00:04.0',
  vendor: 0x1af4,
  device: 0x1045,
  class: 0x00ff00,
  revision: 1,
  virtio: { id: 5, driver: 'virtio_balloon', bits: V1_AP },
};
export const NVME: FakeFunction = {
  slot: '0000:00:08.0',
  vendor: 0x1b36,
  device: 0x0010,
  class: 0x010802,
  revision: 2,
  driver: 'nvme',
};

export const BOOT_ID = '11111111-2222-3333-4444-555555555555';

/** `autobinds`: hot-plugged PCI functions are bound in spite of autoprobe, as Linux does up to 6.12. */
export function fakeMachine(functions: readonly FakeFunction[], options: { autobinds?: boolean } = {}): FakeMachine {
  const files = fakeFiles({
    '/proc/uptime': '100.00 50.00\n',
    '/proc/sys/kernel/random/boot_id': `${BOOT_ID}\n`,
    '/proc/sys/kernel/osrelease': options.autobinds ? '6.12.0\n' : '7.2.0\n',
    '/proc/sys/kernel/modules_disabled': '0\n',
    '/proc/cmdline': 'swiotlb=force\n',
  });
  const { tree } = files;
  const uevents = fakeUevents();
  const known = new Map<string, FakeFunction>();
  const incarnations = new Map<string, number>();
  let nextVirtio = 0;
  let nextInode = 1000;

  const folder = (slot: string) => `/sys/devices/pci0000:00/${slot}`;
  const childOf = (slot: string) => {
    const link = [...tree.keys()].find((path) => path.startsWith(`${folder(slot)}/virtio`));
    return link === undefined ? undefined : (link.slice(folder(slot).length + 1).split('/')[0] ?? '');
  };
  const say = (action: UeventAction, path: string, subsystem: string) =>
    uevents.sendUevent(action, path.slice('/sys'.length), subsystem);
  const drop = (prefix: string) => {
    for (const path of [...tree.keys()]) if (path === prefix || path.startsWith(`${prefix}/`)) tree.delete(path);
  };
  const boundTo = (path: string): string | null => {
    const node = tree.get(`${path}/driver`);
    return typeof node === 'object' && 'link' in node ? node.link.slice(node.link.lastIndexOf('/') + 1) : null;
  };

  for (const bus of ['pci', 'virtio']) tree.set(`/sys/bus/${bus}/drivers_autoprobe`, '1\n');
  for (const driver of ['virtio-pci', 'nvme', 'vfio-pci']) driverFiles('pci', driver);
  for (const driver of ['virtio_blk', 'virtio_net', 'virtio_balloon']) driverFiles('virtio', driver);
  for (const name of ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_balloon', 'nvme']) {
    tree.set(`/sys/module/${name}/refcnt`, '0\n');
  }

  function driverFiles(bus: string, driver: string): void {
    tree.set(`/sys/bus/${bus}/drivers/${driver}/bind`, '');
    tree.set(`/sys/bus/${bus}/drivers/${driver}/unbind`, '');
    files.onWrite(`/sys/bus/${bus}/drivers/${driver}/bind`, (name) =>
      bus === 'pci' ? bindPci(name, driver) : bindVirtio(name, driver),
    );
    files.onWrite(`/sys/bus/${bus}/drivers/${driver}/unbind`, (name) => unbind(bus, name, driver));
  }

  function bindPci(slot: string, driver: string): Result<void> {
    const one = known.get(slot);
    const path = folder(slot);
    const override = tree.get(`${path}/driver_override`);
    const matching = one?.virtio ? 'virtio-pci' : one?.driver;
    const wanted = typeof override === 'string' && !/^(\(null\))?\n?$/.test(override) ? override.trim() : matching;
    if (one === undefined || wanted !== driver) return fail('file-refused', `${slot}: ENODEV`);
    if (boundTo(path) !== null) return fail('file-refused', `${slot}: EBUSY`);
    tree.set(`${path}/driver`, { link: `../../../bus/pci/drivers/${driver}` });
    say('bind', path, 'pci');
    if (driver === 'virtio-pci' && one.virtio) {
      const name = `virtio${nextVirtio++}`;
      const child = `${path}/${name}`;
      tree.set(`/sys/bus/virtio/devices/${name}`, { link: `../../../devices/pci0000:00/${slot}/${name}` });
      tree.set(`${child}/device`, `0x${one.virtio.id.toString(16).padStart(4, '0')}\n`);
      tree.set(`${child}/vendor`, '0x1af4\n');
      tree.set(`${child}/status`, '0x00000000\n');
      tree.set(`${child}/features`, `${'0'.repeat(64)}\n`);
      say('add', child, 'virtio');
    }
    return ok(undefined);
  }

  function bindVirtio(name: string, driver: string): Result<void> {
    const one = [...known.values()].find(({ slot }) => childOf(slot) === name);
    if (one?.virtio?.driver !== driver) return fail('file-refused', `${name}: ENODEV`);
    const child = `${folder(one.slot)}/${name}`;
    if (boundTo(child) !== null) return fail('file-refused', `${name}: EBUSY`);
    tree.set(`${child}/driver`, { link: `../../../../bus/virtio/drivers/${driver}` });
    tree.set(`${child}/status`, '0x0000000f\n');
    const bits = Array.from({ length: 64 }, (_, bit) => (one.virtio?.bits.includes(bit) ? '1' : '0')).join('');
    tree.set(`${child}/features`, `${bits}\n`);
    if (driver === 'virtio_blk') {
      const disk = `vd${String.fromCharCode(97 + Number(name.slice(6)))}`;
      tree.set(`/sys/class/block/${disk}`, { link: `../../devices/pci0000:00/${one.slot}/${name}/block/${disk}` });
      tree.set(`${child}/block/${disk}/serial`, one.serial ?? '');
    }
    say('bind', child, 'virtio');
    return ok(undefined);
  }

  function unbind(bus: string, name: string, driver: string): Result<void> {
    const one = bus === 'pci' ? known.get(name) : [...known.values()].find(({ slot }) => childOf(slot) === name);
    const path = bus === 'pci' ? folder(name) : `${folder(one?.slot ?? '')}/${name}`;
    if (one === undefined || boundTo(path) !== driver) return fail('file-refused', `${name}: ENODEV`);
    if (bus === 'pci') {
      const child = childOf(name);
      if (child !== undefined) {
        dropClass(`${path}/${child}`);
        drop(`${path}/${child}`);
        tree.delete(`/sys/bus/virtio/devices/${child}`);
      }
    } else {
      dropClass(path);
      drop(`${path}/block`);
      tree.set(`${path}/status`, '0x00000000\n');
    }
    tree.delete(`${path}/driver`);
    say('unbind', path, bus);
    return ok(undefined);
  }

  function dropClass(path: string): void {
    for (const [at, node] of tree) {
      if (!at.startsWith('/sys/class/') || typeof node !== 'object' || !('link' in node)) continue;
      if (`/sys/class/block/${node.link}`.includes(path.slice('/sys'.length))) tree.delete(at);
    }
  }

  function plug(one: FakeFunction): void {
    known.set(one.slot, one);
    const path = folder(one.slot);
    const hex = (value: number, digits = 4) => `0x${value.toString(16).padStart(digits, '0')}\n`;
    incarnations.set(path, nextInode++);
    tree.set(`/sys/bus/pci/devices/${one.slot}`, { link: `../../../devices/pci0000:00/${one.slot}` });
    tree.set(`${path}/vendor`, hex(one.vendor));
    tree.set(`${path}/device`, hex(one.device));
    tree.set(`${path}/class`, hex(one.class, 6));
    tree.set(`${path}/revision`, hex(one.revision ?? 0, 2));
    tree.set(`${path}/subsystem_vendor`, hex(one.vendor));
    tree.set(`${path}/subsystem_device`, hex(0x1100));
    tree.set(`${path}/driver_override`, '(null)\n');
    tree.set(`${path}/remove`, '');
    tree.set(`${path}/reset`, '');
    const config = new Uint8Array(256);
    const view = new DataView(config.buffer);
    view.setUint16(0, one.vendor, true);
    view.setUint16(2, one.device, true);
    view.setUint32(8, one.class * 256 + (one.revision ?? 0), true);
    tree.set(`${path}/config`, config);
    say('add', path, 'pci');
    if (options.autobinds) bindPci(one.slot, one.virtio ? 'virtio-pci' : (one.driver ?? ''));
  }

  function unplug(slot: string): void {
    const child = childOf(slot);
    if (child !== undefined) {
      dropClass(folder(slot));
      tree.delete(`/sys/bus/virtio/devices/${child}`);
    }
    drop(folder(slot));
    tree.delete(`/sys/bus/pci/devices/${slot}`);
    known.delete(slot);
    incarnations.delete(folder(slot));
    say('remove', folder(slot), 'pci');
  }

  files.onWrite(/\/remove$/, (_data, path) => {
    const slot = path.split('/').at(-2) ?? '';
    if (!known.has(slot)) return fail('file-missing', `${path}: ENOENT`);
    unplug(slot);
    return ok(undefined);
  });

  const machine: FakeMachine = {
    files,
    uevents,
    plug,
    unplug,
    bind(slot) {
      const one = known.get(slot);
      tree.set(`${folder(slot)}/driver_override`, '(null)\n');
      bindPci(slot, one?.virtio ? 'virtio-pci' : (one?.driver ?? ''));
      const child = childOf(slot);
      if (child !== undefined) bindVirtio(child, one?.virtio?.driver ?? '');
    },
    driverOf(slot) {
      const child = childOf(slot);
      return child === undefined ? boundTo(folder(slot)) : boundTo(`${folder(slot)}/${child}`);
    },
    setUptime: (seconds) => void tree.set('/proc/uptime', `${seconds.toFixed(2)} 0.00\n`),
    reboot: () => void tree.set('/proc/sys/kernel/random/boot_id', '99999999-2222-3333-4444-555555555555\n'),
    incarnations,
  };
  const quiet = options.autobinds;
  options.autobinds = false;
  for (const one of functions) plug(one);
  if (quiet !== undefined) options.autobinds = quiet;
  return machine;
}
