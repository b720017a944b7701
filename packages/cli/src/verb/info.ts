/** `airlock info DEVICE`: everything that is known of one device. */
import type { Device, Inventory } from '@airlock/core/device.ts';
import { pciClassName } from '@airlock/core/pci-class.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { findAttestableFunctions } from '@airlock/linux/attest/devices.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { findDevice } from '@airlock/linux/find-device.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { type PciDetails, readPciDetails } from '@airlock/linux/pci-details.ts';
import { deviceFiles, type EnforcedLevel, readLevels } from '../device-files.ts';
import { hex, paintFor, whatIs, wrapWords } from '../device-view.ts';
import { tsmsText, tsmText } from '../proof-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'info',
  summary: 'everything that is known of one device',
  usage: 'DEVICE [--probe] [--json] [--root DIR]',
  help: `
DEVICE is an id as airlock list shows it, an address (00:03.0), a kernel name (virtio1) or an interface (vda, eth0).

  --probe      ask an unbound virtio function what it offers; writes its configuration space (needs root)
  --json       {device, config, enforced} as JSON
  --root DIR   a copy of a machine's /sys and /proc instead of this machine

  airlock info vda
  airlock info pci:0000:00:03.0 --probe
`,
  options: { probe: { type: 'boolean' }, json: { type: 'boolean' }, root: { type: 'string' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [word, ...more] = positionals;
  if (word === undefined) throw new UsageError('which device? airlock list shows them');
  if (more.length > 0) throw new UsageError('one device at a time');
  const files = deviceFiles(context, values);
  // First without a probe: only the device that was asked for may be written to.
  const inventory = await readInventory(files);
  if (!inventory.ok) {
    context.stderr(`airlock info: ${formatProblem(inventory.error)}\n`);
    return EXIT.environment;
  }
  const found = findDevice(inventory.value.devices, word);
  if (!found.ok) {
    context.stderr(`airlock info: ${formatProblem(found.error)}\n`);
    return EXIT.usage;
  }
  let device = found.value;
  if (values['probe'] === true) {
    const probed = await readInventory(files, { probe: [device.id] });
    if (probed.ok) device = probed.value.devices.find(({ id }) => id === device.id) ?? device;
    if (device.features?.offered === undefined && !device.faults.some(({ attribute }) => attribute === 'config')) {
      context.stderr(`airlock info: ${device.id} was not asked: only a virtio PCI function without a driver is\n`);
    }
  }
  const config =
    device.path.includes('/pci') && device.id.startsWith('pci:')
      ? await readPciDetails(files, device.path, device.vendor)
      : undefined;
  const levels = await readLevels(files);
  const enforced = typeof levels === 'object' ? levels.get(device.id) : undefined;
  const { spdm } = await findAttestableFunctions(files);
  const around: Around = { tsms: inventory.value.tsms, spdm: new Set(spdm) };
  if (values['json'] === true) {
    const details = config?.ok === true ? { config: config.value } : {};
    context.stdout(`${JSON.stringify({ device, ...details, ...(enforced ? { enforced } : {}) }, null, 2)}\n`);
  } else {
    context.stdout(describe(device, config?.ok === true ? config.value : undefined, enforced, around, context));
  }
  return EXIT.fine;
}

const LABEL = 15;

/** What of the machine is shown beside the device. */
interface Around {
  readonly tsms: Inventory['tsms'];
  /** Addresses of functions with a mailbox for SPDM. */
  readonly spdm: ReadonlySet<string>;
}

function describe(
  device: Device,
  config: PciDetails | undefined,
  enforced: EnforcedLevel | undefined,
  around: Around,
  context: Context,
): string {
  const paint = paintFor(context.terminal);
  const lines = [paint.bold(`${device.id}  ${whatIs(device)}`)];
  const tell = (label: string, ...texts: readonly (string | undefined)[]) => {
    const shown = texts.filter((text) => text !== undefined && text !== '');
    for (const [i, text] of shown.entries()) {
      lines.push(`  ${paint.dim((i === 0 ? label : '').padEnd(LABEL - 2))}${text}`);
    }
  };
  const wrap = (words: readonly string[]) => wrapWords(words, context.columns, LABEL);

  if (enforced !== undefined) {
    tell(
      'level',
      `${enforced.level}, ${printable(enforced.status)}`,
      `by ${printable(enforced.rule)}: ${printable(enforced.detail)}`,
    );
  }
  tell('path', printable(device.path));
  tell('below', device.parent);
  tell(
    'nodes',
    ...device.nodes.map(
      ({ bus, name, driver }) => `${bus} ${name}: ${driver === null ? 'no driver' : `driver ${printable(driver)}`}`,
    ),
  );
  tell('used as', wrap(device.interfaces.map(printable)));
  tell('ids', ids(device));
  tell(
    'class',
    typeof device.class === 'number' && device.class !== 0
      ? `${hex(device.class, 6)} ${device.id.startsWith('pci:') ? pciClassName(device.class) : ''}`.trim()
      : undefined,
  );
  tell('serial', typeof device.serial === 'string' ? device.serial : undefined);
  tell('modalias', device.modalias);
  tell(
    'plugged',
    device.origin === undefined ? undefined : device.origin === 'boot' ? 'present at boot' : 'hot-plugged',
  );
  tell('sr-iov', ...sriov(device));
  tell('iommu', iommu(device));
  tell('link', link(device));
  tell('doe', device.doe === undefined ? undefined : wrap(device.doe));
  tell('identity', proof(device, around.spdm, config));
  tell('tsm', ...tsm(device, around.tsms));
  for (const [label, text] of features(device, wrap)) tell(label, text);
  tell('status', device.status === undefined ? undefined : statusText(device.status));
  if (config !== undefined) {
    tell('bus master', config.busMaster ? 'on: it may write to memory by itself' : 'off');
    tell('capabilities', wrap(counted([...config.capabilities, ...config.extended].map(({ name }) => name))));
    if (config.size === 64) tell('capabilities', 'only root sees them');
    tell('virtio', ...config.virtio);
    tell('device serial', config.deviceSerialNumber);
    for (const text of config.broken) lines.push(paint.yellow(`  ! configuration space: ${text}`));
  }
  for (const fault of device.faults)
    lines.push(paint.yellow(`  ! ${fault.attribute}: ${fault.message} [${fault.code}]`));
  return `${lines.join('\n')}\n`;
}

/** Each name once, with how often: `vendor-specific(5)`. */
function counted(names: readonly string[]): readonly string[] {
  return [...new Set(names)].map((name) => {
    const times = names.filter((other) => other === name).length;
    return times === 1 ? name : `${name}(${times})`;
  });
}

function ids(device: Device): string | undefined {
  if (device.vendor === undefined || device.device === undefined) return undefined;
  const parts = [`${hex(device.vendor, 4)}:${hex(device.device, 4)}`];
  if (device.subsystem) parts.push(`subsystem ${hex(device.subsystem.vendor, 4)}:${hex(device.subsystem.device, 4)}`);
  if (typeof device.revision === 'number') parts.push(`revision ${device.revision}`);
  if (device.virtioId !== undefined) parts.push(`virtio type ${device.virtioId}`);
  return parts.join(', ');
}

function sriov({ sriov }: Device): readonly string[] {
  if (!sriov) return [];
  if (sriov.role === 'virtual') {
    const number = sriov.index === undefined ? '' : ` ${sriov.index}`;
    return [`virtual function${number} of ${sriov.physical ?? 'a function that cannot be told'}`];
  }
  return [
    `physical function, ${sriov.enabled ?? '?'} of ${sriov.total ?? '?'} virtual ones on`,
    ...(sriov.autoprobe === undefined
      ? []
      : [`drivers are ${sriov.autoprobe ? '' : 'not '}bound to its virtual functions by themselves`]),
  ];
}

function iommu(device: Device): string | undefined {
  if (device.iommu === undefined || (device.iommu === null && !device.id.startsWith('pci:'))) return undefined;
  return device.iommu === null ? 'none' : `group ${device.iommu.group}, ${device.iommu.type ?? 'type unknown'}`;
}

function link(device: Device): string | undefined {
  if (device.link === undefined) return undefined;
  const { speed, width } = device.link;
  return speed === null && width === null
    ? 'down'
    : `${speed ?? 'speed unknown'}, ${width === null ? 'width unknown' : `x${width}`}`;
}

function tsm(device: Device, tsms: Inventory['tsms']): readonly string[] {
  if (!device.id.startsWith('pci:')) return [];
  const own = tsmText(device);
  const { dsm } = device.tsm ?? {};
  return [
    own === '' ? (tsms === undefined ? 'this kernel has none' : 'has no part in it') : own,
    ...(tsms === undefined ? [] : [`here: ${tsmsText(tsms)}`]),
    ...(dsm === undefined || dsm === device.id ? [] : [`${dsm} speaks for it`]),
  ];
}

/** What can be asked of it, and how. */
function proof(device: Device, spdm: ReadonlySet<string>, config: PciDetails | undefined): string | undefined {
  if (!device.id.startsWith('pci:')) return undefined;
  if (spdm.has(device.location)) return `can be asked over SPDM: airlock device attest ${device.id}`;
  return device.doe === undefined && (config === undefined || config.size <= 64)
    ? 'only root sees whether it can be asked'
    : 'cannot be asked: no mailbox for SPDM (DOE)';
}

function features(device: Device, wrap: (words: readonly string[]) => string): readonly (readonly [string, string])[] {
  if (device.bus !== 'virtio' && device.bus !== 'vdpa') return [];
  const offered = device.features?.offered;
  const negotiated = device.features?.negotiated;
  const none = (names: readonly string[]) => (names.length === 0 ? 'none' : wrap(names));
  const out: (readonly [string, string])[] = [];
  if (negotiated !== undefined) out.push(['negotiated', none(negotiated)]);
  if (offered !== undefined) out.push(['offered', none(offered)]);
  if (negotiated === undefined && offered === undefined) {
    const askable = device.transport === 'pci' && device.nodes.every(({ driver }) => driver === null);
    out.push([
      'features',
      askable ? 'not known before a driver is bound; --probe asks the device' : 'not known before a driver is bound',
    ]);
  }
  return out;
}

/** VIRTIO 1.3 §2.1 */
function statusText(status: number): string {
  const names: readonly (readonly [number, string])[] = [
    [1, 'ACKNOWLEDGE'],
    [2, 'DRIVER'],
    [8, 'FEATURES_OK'],
    [4, 'DRIVER_OK'],
    [0x10, 'SUSPEND'],
    [0x40, 'DEVICE_NEEDS_RESET'],
    [0x80, 'FAILED'],
  ];
  const set = names.filter(([bit]) => (status & bit) !== 0).map(([, name]) => name);
  return `0x${status.toString(16)} ${set.join(' ')}`.trim();
}
