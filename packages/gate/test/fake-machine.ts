/** A machine in memory for the gate's tests: fakeFiles that plays the driver core, and a modprobe that registers drivers. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type FakeCommands, fakeCommands } from '@airlock/linux/fake-commands.ts';
import { type FakeFiles, fakeFiles } from '@airlock/linux/fake-files.ts';

export interface FakeFunction {
  /** `0000:00:03.0` */
  readonly address: string;
  /** `pci:v00001AF4d00001042sv...` is made of these. */
  readonly vendor: number;
  readonly device: number;
  readonly class: number;
  /** Its driver on the PCI bus, and the module that brings it. */
  readonly driver: string;
  /** For virtio: the driver on the virtio bus, and what is negotiated once it is bound. */
  readonly virtio?: { readonly driver: string; readonly features?: readonly number[] };
  /** Shown below block/ once bound. */
  readonly serial?: string;
  /** SR-IOV: how many virtual functions it can have; as many as sriov_numvfs says are behind it, with its own ids. */
  readonly virtuals?: number;
  /** The physical function of a virtual one. */
  readonly physical?: string;
}

export interface FakeMachine {
  readonly files: FakeFiles;
  readonly commands: FakeCommands;
  readonly driverOf: (bus: string, node: string) => string | null;
  /** As the host does it: the function appears; up to 6.12 a loaded driver takes it whatever autoprobe says. */
  readonly plug: (one: FakeFunction) => void;
  readonly unplug: (address: string) => void;
  /** Of device folders; never the same twice. */
  readonly inodes: ReadonlyMap<string, string>;
}

export interface FakeMachineOptions {
  readonly release?: string;
  readonly cmdline?: string;
  readonly functions: readonly FakeFunction[];
  /** Built-in drivers, by bus: bound before the gate runs. */
  readonly builtin?: Readonly<Record<string, readonly string[]>>;
  /** Modules that modprobe can load, with the bus whose driver each registers. */
  readonly modules?: Readonly<Record<string, { readonly bus: string; readonly driver: string }>>;
  /** Drivers that take the request to bind, answer success, and bind nothing. */
  readonly liars?: readonly string[];
  readonly modprobe?: boolean;
}

const hex = (value: number, digits: number) => value.toString(16).toUpperCase().padStart(digits, '0');

export const MODULES = {
  virtio_pci: { bus: 'pci', driver: 'virtio-pci' },
  nvme: { bus: 'pci', driver: 'nvme' },
  virtio_blk: { bus: 'virtio', driver: 'virtio_blk' },
  virtio_net: { bus: 'virtio', driver: 'virtio_net' },
  virtio_balloon: { bus: 'virtio', driver: 'virtio_balloon' },
} as const;

export const disk = (
  address: string,
  serial: string,
  features: readonly number[] = [28, 29, 32, 33],
): FakeFunction => ({
  address,
  vendor: 0x1af4,
  device: 0x1042,
  class: 0x010000,
  driver: 'virtio-pci',
  virtio: { driver: 'virtio_blk', features },
  serial,
});
export const card = (address: string, features: readonly number[] = [28, 29, 32, 33]): FakeFunction => ({
  address,
  vendor: 0x1af4,
  device: 0x1041,
  class: 0x020000,
  driver: 'virtio-pci',
  virtio: { driver: 'virtio_net', features },
});
export const nvme = (address: string): FakeFunction => ({
  address,
  vendor: 0x1b36,
  device: 0x0010,
  class: 0x010802,
  driver: 'nvme',
});

export function fakeMachine(options: FakeMachineOptions): FakeMachine {
  const files = fakeFiles({
    '/proc/sys/kernel/osrelease': `${options.release ?? '7.2.12+deb13-amd64'}\n`,
    '/proc/sys/kernel/arch': 'x86_64\n',
    '/proc/sys/kernel/modules_disabled': '0\n',
    '/proc/cmdline': `${options.cmdline ?? 'console=ttyS0 swiotlb=force'}\n`,
    '/sys/bus/pci/drivers_autoprobe': '1\n',
    '/sys/bus/pci/drivers_probe': '',
  });
  const { tree } = files;
  const functions = new Map<string, FakeFunction>();
  const drivers = new Map<string, Set<string>>(); // bus -> names
  const inodes = new Map<string, string>();
  let virtioNumber = 0;
  let inode = 4_294_967_300;

  const real = (bus: string, node: string) => {
    const link = tree.get(`/sys/bus/${bus}/devices/${node}`);
    return typeof link === 'object' && 'link' in link ? link.link.replace('../../../', '/sys/') : undefined;
  };
  const driverOf = (bus: string, node: string): string | null => {
    const link = tree.get(`${real(bus, node)}/driver`);
    return typeof link === 'object' && 'link' in link ? link.link.slice(link.link.lastIndexOf('/') + 1) : null;
  };
  const text = (path: string) => String(tree.get(path) ?? '').trim();
  const auto = (bus: string) => text(`/sys/bus/${bus}/drivers_autoprobe`) !== '0';
  const ownerOf = (virtio: string) => {
    const path = real('virtio', virtio) ?? '';
    return functions.get(path.split('/').at(-2) ?? '');
  };
  const matches = (bus: string, node: string, driver: string) => {
    if (bus === 'virtio') return ownerOf(node)?.virtio?.driver === driver;
    const override = text(`${real(bus, node)}/driver_override`).replace('(null)', '');
    return override === '' ? functions.get(node)?.driver === driver : override === driver;
  };

  /** As pci_device_can_probe() has it: of virtual functions, and never for a wrong driver_override. */
  function canProbe(node: string): boolean {
    const physical = functions.get(node)?.physical;
    if (physical === undefined || text(`${real('pci', node)}/driver_override`) !== '(null)') return true;
    return text(`${real('pci', physical)}/sriov_drivers_autoprobe`) !== '0';
  }

  function attach(bus: string, node: string, driver: string): boolean {
    if (!matches(bus, node, driver) || driverOf(bus, node) !== null) return false;
    if (bus === 'pci' && !canProbe(node)) return false;
    if (options.liars?.includes(driver)) return true;
    const path = real(bus, node) ?? '';
    tree.set(`${path}/driver`, { link: `../../../bus/${bus}/drivers/${driver}` });
    const one = bus === 'pci' ? functions.get(node) : ownerOf(node);
    if (bus === 'pci' && one?.virtio !== undefined) {
      const child = `virtio${virtioNumber++}`;
      tree.set(`${path}/${child}/device`, `0x${hex(one.device - 0x1040, 4).toLowerCase()}\n`);
      tree.set(`${path}/${child}/vendor`, '0x1af4\n');
      tree.set(`${path}/${child}/features`, `${'0'.repeat(128)}\n`);
      tree.set(`/sys/bus/virtio/devices/${child}`, { link: `../../../devices/pci0000:00/${node}/${child}` });
      if (auto('virtio')) for (const name of drivers.get('virtio') ?? []) attach('virtio', child, name);
    }
    if (bus === 'virtio') {
      const bits = Array.from({ length: 128 }, (_, bit) => (one?.virtio?.features?.includes(bit) ? '1' : '0'));
      tree.set(`${path}/features`, `${bits.join('')}\n`);
      if (one?.serial !== undefined) {
        tree.set(`${path}/block/vda/serial`, one.serial);
        tree.set(`/sys/class/block/vd${node.slice(6)}`, { link: `../..${path.slice(4)}/block/vda` });
      }
    }
    return true;
  }

  function detach(bus: string, node: string): void {
    const path = real(bus, node);
    tree.delete(`${path}/driver`);
    for (const key of [...tree.keys()]) {
      if (key.startsWith(`${path}/block`)) tree.delete(key);
      if (bus === 'pci' && key.startsWith(`${path}/virtio`)) tree.delete(key);
    }
    for (const [key, value] of [...tree]) {
      if (!key.startsWith('/sys/bus/virtio/devices/') || typeof value !== 'object' || !('link' in value)) continue;
      if (bus === 'pci' && value.link.includes(`/${node}/`)) tree.delete(key);
    }
    for (const [key, value] of [...tree]) {
      if (!key.startsWith('/sys/class/block/') || typeof value !== 'object' || !('link' in value)) continue;
      if (!tree.has(`/sys${value.link.slice(5)}/serial`)) tree.delete(key);
    }
  }

  function register(bus: string, driver: string): void {
    const known = drivers.get(bus) ?? new Set();
    drivers.set(bus, known.add(driver));
    const folder = `/sys/bus/${bus}/drivers/${driver}`;
    tree.set(`${folder}/bind`, '');
    tree.set(`${folder}/unbind`, '');
    if (!auto(bus)) return;
    for (const key of [...tree.keys()]) {
      const node = new RegExp(`^/sys/bus/${bus}/devices/([^/]+)$`).exec(key)?.[1];
      if (node !== undefined) attach(bus, node, driver);
    }
  }

  function ensureVirtioBus(): void {
    if (tree.has('/sys/bus/virtio/drivers_autoprobe')) return;
    tree.set('/sys/bus/virtio/drivers_autoprobe', '1\n');
    tree.set('/sys/bus/virtio/drivers_probe', '');
  }

  function add(one: FakeFunction): void {
    functions.set(one.address, one);
    const path = `/sys/devices/pci0000:00/${one.address}`;
    const base = hex(one.class, 6);
    inodes.set(path, String(inode++));
    tree.set(
      `${path}/modalias`,
      `pci:v0000${hex(one.vendor, 4)}d0000${hex(one.device, 4)}sv00001AF4sd00001100bc${base.slice(0, 2)}sc${base.slice(2, 4)}i${base.slice(4)}\n`,
    );
    tree.set(`${path}/revision`, '0x01\n');
    tree.set(`${path}/driver_override`, '(null)\n');
    tree.set(`${path}/config`, new Uint8Array(256));
    tree.set(`/sys/bus/pci/devices/${one.address}`, { link: `../../../devices/pci0000:00/${one.address}` });
    if (one.physical !== undefined) tree.set(`${path}/physfn`, { link: `../${one.physical}` });
    if (one.virtuals === undefined) return;
    tree.set(`${path}/sriov_totalvfs`, `${one.virtuals}\n`);
    tree.set(`${path}/sriov_numvfs`, '0\n');
    tree.set(`${path}/sriov_drivers_autoprobe`, '1\n');
  }

  /** Other kernels than 7.2 do not ask the bus's autoprobe. */
  function appear(one: FakeFunction): void {
    add(one);
    if (!auto('pci') && options.release?.startsWith('7.') === true) return;
    for (const driver of drivers.get('pci') ?? []) if (attach('pci', one.address, driver)) break;
  }

  function disappear(address: string): void {
    if (driverOf('pci', address) !== null) detach('pci', address);
    for (const key of [...tree.keys()]) if (key.includes(`/${address}`)) tree.delete(key);
    functions.delete(address);
  }

  files.onWrite(/\/sriov_drivers_autoprobe$/, (data, path) => {
    tree.set(path, `${data.trim()}\n`);
    return ok(undefined);
  });
  files.onWrite(/\/sriov_numvfs$/, (data, path) => {
    const one = functions.get(path.split('/').at(-2) ?? '');
    if (one === undefined || Number(data) > (one.virtuals ?? 0)) return fail('file-refused', `${path}: ERANGE`);
    const folder = real('pci', one.address);
    for (const [address, each] of [...functions]) if (each.physical === one.address) disappear(address);
    for (const key of [...tree.keys()]) if (key.startsWith(`${folder}/virtfn`)) tree.delete(key);
    const { virtuals: _, ...plain } = one;
    for (let i = 0; i < Number(data); i++) {
      const address = `${one.address.slice(0, -1)}${i + 1}`;
      tree.set(`${folder}/virtfn${i}`, { link: `../${address}` });
      appear({ ...plain, address, physical: one.address });
    }
    tree.set(`${folder}/sriov_numvfs`, `${data.trim()}\n`);
    return ok(undefined);
  });

  files.onWrite(/\/driver_override$/, (data, path) => {
    tree.set(path, data.trim() === '' ? '(null)\n' : `${data.trim()}\n`);
    return ok(undefined);
  });
  files.onWrite(/^\/sys\/bus\/[^/]+\/drivers\/[^/]+\/(un)?bind$/, (data, path): Result<void> => {
    const [, , , bus = '', , driver = '', verb] = path.split('/');
    if (!tree.has(path)) return fail('file-missing', `${path}: ENOENT`);
    if (verb === 'unbind') {
      if (driverOf(bus, data) !== driver) return fail('file-refused', `${path}: ENODEV`);
      detach(bus, data);
      return ok(undefined);
    }
    return attach(bus, data, driver) ? ok(undefined) : fail('file-refused', `${path}: ENODEV`);
  });
  files.onWrite(/^\/sys\/bus\/[^/]+\/drivers_probe$/, (data, path) => {
    const bus = path.split('/')[3] ?? '';
    for (const driver of drivers.get(bus) ?? []) if (attach(bus, data, driver)) break;
    return ok(undefined);
  });

  const commands = fakeCommands({
    '/sbin/modprobe': (argv) => {
      let status = 0;
      for (const name of argv.slice(2)) {
        const module = options.modules?.[name];
        if (name === 'virtio') ensureVirtioBus();
        else if (module === undefined) {
          status = 1;
          continue;
        }
        tree.set(`/sys/module/${name}/initstate`, 'live\n');
        if (module !== undefined) {
          if (module.bus === 'virtio' || module.driver === 'virtio-pci') ensureVirtioBus();
          register(module.bus, module.driver);
        }
      }
      return { status, stderr: status === 0 ? '' : 'modprobe: FATAL: Module not found\n' };
    },
  });
  if (options.modprobe !== false) tree.set('/sbin/modprobe', 'ELF');

  for (const one of options.functions) add(one);
  for (const [bus, names] of Object.entries(options.builtin ?? {})) {
    if (bus === 'virtio' || names.includes('virtio-pci')) ensureVirtioBus();
    for (const name of names) register(bus, name);
  }
  return {
    files,
    commands,
    driverOf,
    inodes,
    plug: appear,
    unplug: disappear,
  };
}
