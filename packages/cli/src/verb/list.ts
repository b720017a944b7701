/** `airlock list`: the devices of this machine. */
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { findAttestableFunctions } from '@airlock/linux/attest/devices.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { deviceFiles, type EnforcedLevel, readLevels } from '../device-files.ts';
import { alignRows, driverOf, idsOf, kernelLine, type Paint, paintFor, usedAs, whatIs } from '../device-view.ts';
import { proofOf, tsmsText } from '../proof-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'list',
  summary: 'the devices of this machine: what they are, who drives them, what a policy made of them',
  usage: '[--tree] [--blocked] [--probe] [--json] [--root DIR]',
  help: `
Shows PCI functions, virtio devices over PCI and MMIO, vdpa and USB devices, serial ports, i8042, fw_cfg and TPMs. Where
a gate has run, also the trust level of each and the rule that gave it. A virtio device over PCI is one device.

  --tree       nested: bridges, hubs, virtual functions below their physical one
  --blocked    only what no driver serves, or what the policy disconnects
  --probe      also ask unbound virtio functions what they offer; writes their configuration space (needs root)
  --json       the inventory as JSON: input for airlock policy explain --inventory
  --root DIR   a copy of a machine's /sys and /proc instead of this machine

PROVES ITSELF is shown where a function can be asked who it is over SPDM (airlock device attest; older kernels show it
to root only), or where the kernel's TSM says something of it.

Plain list only reads. What a device answers wrongly, slowly or not at all is shown below it with "!".

  airlock list --tree
  airlock list --json > inventory.json
`,
  options: {
    tree: { type: 'boolean' },
    blocked: { type: 'boolean' },
    probe: { type: 'boolean' },
    json: { type: 'boolean' },
    root: { type: 'string' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0)
    throw new UsageError(`no argument expected; airlock info ${positionals[0]} shows one device`);
  const files = deviceFiles(context, values);
  const inventory = await readInventory(files, { probe: values['probe'] === true });
  if (!inventory.ok) {
    context.stderr(`airlock list: ${formatProblem(inventory.error)}\n`);
    return EXIT.environment;
  }
  const found = await readLevels(files);
  if (found === 'malformed') {
    context.stderr('airlock list: /run/airlock/enforcement.json is not what the gate writes; no levels shown\n');
  }
  if (found === 'denied') context.stderr('airlock list: only root sees the levels\n');
  const levels = typeof found === 'string' ? undefined : found;
  const blocked = (device: Device) => !isBound(device) || levels?.get(device.id)?.level === 'disconnected';
  const devices = inventory.value.devices.filter((device) => values['blocked'] !== true || blocked(device));
  if (values['json'] === true) {
    context.stdout(`${JSON.stringify({ ...inventory.value, devices }, null, 2)}\n`);
    return EXIT.fine;
  }
  const paint = paintFor(context.terminal);
  const { spdm } = await findAttestableFunctions(files);
  const proofs = new Map(devices.map((device) => [device.id, proofOf(device, new Set(spdm))]));
  const order = values['tree'] === true ? nest(devices) : devices.map((device) => ({ device, stem: '' }));
  if (order.length > 0) context.stdout(table(order, levels, proofs, paint));
  context.stdout(`${paint.dim(summary(inventory.value, devices, values['blocked'] === true))}\n`);
  return EXIT.fine;
}

interface Line {
  readonly device: Device;
  /** What stands before its id: the branches of the tree. */
  readonly stem: string;
}

function table(
  order: readonly Line[],
  levels: ReadonlyMap<string, EnforcedLevel> | undefined,
  proofs: ReadonlyMap<string, string>,
  paint: Paint,
): string {
  const rows = order.map(({ device, stem }) => {
    const enforced = levels?.get(device.id);
    return [
      `${stem}${device.id}`,
      whatIs(device),
      driverOf(device),
      usedAs(device),
      idsOf(device),
      proofs.get(device.id) ?? '',
      device.origin === 'hotplug' ? 'hot-plugged' : '',
      levels === undefined ? '' : (enforced?.level ?? 'undecided'),
      printable(enforced?.rule ?? ''),
      enforced === undefined || enforced.status === 'enforced' ? '' : printable(enforced.status),
    ];
  });
  const [header = '', ...lines] = alignRows([
    ['DEVICE', 'WHAT', 'DRIVER', 'USED AS', 'IDS', 'PROVES ITSELF', 'PLUGGED', 'LEVEL', 'RULE', 'STATUS'],
    ...rows,
  ]);
  const body = lines.map((line, i) => {
    const device = order[i]?.device;
    if (device === undefined) return line;
    const level = levels?.get(device.id)?.level;
    const painted = level === 'disconnected' ? paint.red(line) : isBound(device) ? line : paint.dim(line);
    return [painted, ...faultLines(device).map((text) => paint.yellow(text))].join('\n');
  });
  return `${[paint.bold(header), ...body].join('\n')}\n\n`;
}

function faultLines(device: Device): string[] {
  const shown = device.faults.slice(0, 3).map((fault) => `  ! ${fault.message} [${fault.code}]`);
  return device.faults.length > 3 ? [...shown, `  ! and ${device.faults.length - 3} more faults`] : shown;
}

/** Every device once, below its parent where that is shown too; a virtual function below its physical one. */
function nest(devices: readonly Device[]): readonly Line[] {
  const shown = new Set(devices.map(({ id }) => id));
  const parentOf = (device: Device) =>
    [device.sriov?.physical, device.parent].find((id) => id !== undefined && id !== device.id && shown.has(id));
  const children = new Map<string | undefined, Device[]>();
  for (const device of devices) {
    const parent = parentOf(device);
    children.set(parent, [...(children.get(parent) ?? []), device]);
  }
  const lines: Line[] = [];
  const seen = new Set<string>();
  const walk = (device: Device, stem: string, below: string) => {
    if (seen.has(device.id)) return;
    seen.add(device.id);
    lines.push({ device, stem });
    const own = children.get(device.id) ?? [];
    own.forEach((child, i) => {
      const last = i === own.length - 1;
      walk(child, `${below}${last ? '└─ ' : '├─ '}`, `${below}${last ? '   ' : '│  '}`);
    });
  };
  for (const device of children.get(undefined) ?? []) walk(device, '', '');
  // Two functions that each claim to be the other's physical one have no way in from above.
  for (const device of devices) walk(device, '', '');
  return lines;
}

function summary(inventory: Inventory, devices: readonly Device[], blockedOnly: boolean): string {
  const count = (n: number, word: string) => `${n} ${word}${n === 1 ? '' : 's'}`;
  const faulty = devices.filter(({ faults }) => faults.length > 0).length;
  const parts = blockedOnly
    ? [`${devices.length} of ${count(inventory.devices.length, 'device')} blocked or without a driver`]
    : [count(devices.length, 'device'), `${devices.filter(isBound).length} in use`];
  if (faulty > 0) parts.push(`${faulty} with faults`);
  if (!inventory.devices.some(({ id }) => id.startsWith('pci:'))) parts.push('no PCI on this machine');
  if (inventory.tsms !== undefined) parts.push(`TSM ${tsmsText(inventory.tsms)}`);
  return `${parts.join(', ')}. ${kernelLine(inventory.kernel)}.`;
}
