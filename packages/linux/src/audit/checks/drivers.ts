/** Drivers that are there: loaded, registered, or built into the kernel. */
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, notApplicable, passed, REFERENCES, unknown, verdictOf } from '../finding.ts';
import { fact, names, type Observations } from '../reading.ts';

/** Drivers on the virtio bus, by the names that they register with, for the types that Intel hardened. */
const HARDENED_DRIVERS: readonly string[] = [
  'virtio_net',
  'virtio_blk',
  'virtio_console',
  'virtio_rproc_serial', // registered by virtio_console
  '9pnet_virtio',
  'vmw_vsock_virtio_transport',
];

/** Modules of virtio device drivers that nobody hardened. */
const UNHARDENED_MODULES: readonly string[] = [
  'virtio_balloon',
  'virtio_bt',
  'virtio_can',
  'virtio_crypto',
  'virtio_gpu',
  'virtio_input',
  'virtio_iommu',
  'virtio_mem',
  'virtio_mmio',
  'virtio_pmem',
  'virtio_rng',
  'virtio_rpmsg_bus',
  'virtio_rtc',
  'virtio_scsi',
  'virtio_snd',
  'virtiofs',
  'i2c_virtio',
  'gpio_virtio',
  'spi_virtio',
  'caif_virtio',
];

/** Drivers that talk to devices before any program runs when they are built in. */
const EARLY_MODULES: readonly string[] = [
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'virtio_console',
  '9pnet_virtio',
  'vmw_vsock_virtio_transport',
];

/** Emulated and legacy hardware that a VM on virtio has no use for. */
const UNNEEDED_MODULES: readonly string[] = [
  '8139cp',
  '8139too',
  'ata_piix',
  'bluetooth',
  'bochs',
  'cirrus',
  'cirrus_qemu',
  'e100',
  'e1000',
  'e1000e',
  'ehci_pci',
  'firewire_ohci',
  'floppy',
  'i6300esb',
  'iTCO_wdt',
  'joydev',
  'lp',
  'ne2k_pci',
  'ohci_pci',
  'parport_pc',
  'pata_legacy',
  'pcnet32',
  'pcspkr',
  'ppdev',
  'psmouse',
  'pvpanic',
  'pvpanic_mmio',
  'pvpanic_pci',
  'qemu_fw_cfg',
  'qxl',
  'rtl8139',
  'snd_ens1370',
  'snd_hda_intel',
  'snd_intel8x0',
  'sr_mod',
  'thunderbolt',
  'uas',
  'uhci_hcd',
  'usb_storage',
  'usbhid',
  'vboxvideo',
  'vmwgfx',
  'vmxnet3',
  'xhci_pci',
];

/** Names of modules that are built in, from modules.builtin. */
function builtIn(observations: Observations): { path: string; names: Set<string> } | undefined {
  const release = fact(observations, '/proc/sys/kernel/osrelease');
  if (release.state !== 'read') return undefined;
  const path = `/lib/modules/${release.text}/modules.builtin`;
  const list = fact(observations, path);
  if (list.state !== 'read') return undefined;
  const modules = list.text
    .split('\n', 20_000)
    .map((line) => /([^/]+)\.ko$/.exec(line)?.[1]?.replaceAll('-', '_') ?? '');
  return { path, names: new Set(modules) };
}

function builtInCheck(wanted: readonly string[]): Check['run'] {
  return (observations) => {
    const built = builtIn(observations);
    if (built === undefined) return unknown('/lib/modules/*/modules.builtin', 'not there for this kernel');
    return verdictOf(
      wanted.filter((name) => built.names.has(name)).map((name) => evidence(built.path, name)),
      [evidence(built.path, `none of ${wanted.length} drivers`)],
    );
  };
}

function loaded(text: string): string[] {
  return text.split('\n', 4096).map((line) => line.split(' ', 1)[0] ?? '');
}

export const driverChecks: readonly Check[] = [
  {
    id: 'unhardened-virtio-driver',
    area: 'drivers',
    title: 'Virtio drivers that nobody hardened are ready for a device',
    severity: 'medium',
    elsewhere: null,
    looksAt: ['/sys/bus/virtio/drivers', '/proc/modules'],
    why: 'A driver that is registered takes any matching device that the host adds. Only net, block, console, 9p and vsock were audited against hostile devices.',
    fix: 'Keep the modules out: module_blacklist=NAME,... on the command line, or the gate, which loads a module only for a device that a rule allows. Built in: initcall_blacklist=.',
    reference: REFERENCES.intelVirtio,
    run: (observations) => {
      const drivers = names(observations, '/sys/bus/virtio/drivers');
      if (drivers.state === 'absent') return passed(evidence(drivers.path, 'absent: no virtio bus'));
      if (drivers.state === 'unknown') return drivers;
      const modules = fact(observations, '/proc/modules');
      const present = modules.state === 'read' ? loaded(modules.text) : [];
      return verdictOf(
        drivers.names
          .filter((name) => !HARDENED_DRIVERS.includes(name))
          .map((name) => evidence(`${drivers.path}/${name}`, present.includes(name) ? 'loaded' : 'registered')),
        drivers.names.map((name) => evidence(`${drivers.path}/${name}`, 'registered')),
      );
    },
  },
  {
    id: 'unhardened-driver-built-in',
    area: 'drivers',
    title: 'Virtio drivers that nobody hardened are built into the kernel',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/lib/modules/RELEASE/modules.builtin'],
    why: 'A built-in driver cannot be kept from loading, and takes its device before the first program runs.',
    fix: 'Build them as modules or not at all; until then initcall_blacklist=INIT_FUNCTION on a measured command line.',
    reference: REFERENCES.intelVirtio,
    run: builtInCheck(UNHARDENED_MODULES),
  },
  {
    id: 'driver-before-gate',
    area: 'drivers',
    title: 'Virtio drivers are built in: they talk to their devices before any policy can be applied',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/lib/modules/RELEASE/modules.builtin'],
    why: 'These drivers are hardened, but the device has been configured and used before the gate takes it back.',
    fix: 'Build virtio_pci and the device drivers as modules; for the console initcall_blacklist=virtio_console_init.',
    reference: REFERENCES.threatModel,
    run: builtInCheck(EARLY_MODULES),
  },
  {
    id: 'unneeded-driver-loaded',
    area: 'drivers',
    title: 'Drivers for emulated or legacy hardware are loaded',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/proc/modules'],
    why: 'Each is code that trusts its hardware, which here is the host. More than 95 % of what a guest reads from its host is read by drivers.',
    fix: 'Have the VMM not offer the devices, and keep the modules out: module_blacklist=NAME,..., or the gate.',
    reference: REFERENCES.intelFilter,
    run: (observations, machine) => {
      if (machine.virtual === false) return notApplicable('not a virtual machine');
      const modules = fact(observations, '/proc/modules');
      if (modules.state === 'unknown') return modules;
      if (modules.state === 'absent') return passed(evidence(modules.path, 'absent: no module can be loaded'));
      const present = loaded(modules.text);
      const wrong: Evidence[] = UNNEEDED_MODULES.filter((name) => present.includes(name)).map((name) =>
        evidence(modules.path, name),
      );
      return verdictOf(wrong, [
        evidence(modules.path, `${present.filter((name) => name !== '').length} modules, none of them`),
      ]);
    },
  },
];
