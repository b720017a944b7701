/** A first policy from a machine as it is: what is in use there may be used, nothing else. */
import { asciiText } from '@airlock/core/bytes.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import { pciClassName } from '@airlock/core/pci-class.ts';
import type { Mode } from './policy.ts';

interface Draft {
  id: string;
  readonly match: readonly string[];
  /** Of each of the devices, where they are known. */
  readonly negotiated: (readonly string[])[];
  comments: readonly string[];
  readonly disk: boolean;
  devices: string[];
}

/**
 * YAML text. Each rule asks for the most specific facts that survive a reboot: ids, serial numbers and "there at boot",
 * never the place where a device sits if anything else tells it apart. `learn` is written with a time of 30 minutes.
 */
export function generatePolicy(inventory: Inventory, options: { readonly mode?: Mode } = {}): string {
  const mode = options.mode ?? 'audit';
  const drafts: Draft[] = [];
  const unused: Device[] = [];
  const used = new Set<string>();
  for (const device of inventory.devices) {
    if (!isBound(device)) {
      unused.push(device);
      continue;
    }
    const draft = draftFor(device);
    const same = drafts.find((one) => one.match.join() === draft.match.join());
    if (same !== undefined) {
      same.devices.push(device.id);
      same.negotiated.push(...draft.negotiated);
      same.comments = [...new Set([...same.comments, ...draft.comments])];
      continue;
    }
    drafts.push(draft);
  }
  // A rule that asks for more comes first, else a broader one would decide its device.
  drafts.sort((a, b) => b.match.length - a.match.length);
  for (const draft of drafts) draft.id = unique(draft.id, used);
  const disks = drafts.filter((draft) => draft.disk);
  const lines = [
    '# yaml-language-server: $schema=../schema/policy.schema.json',
    '#',
    `# Made from a machine as it was (Linux ${comment(inventory.kernel.release || 'unknown')}): what had a driver may be used,`,
    '# everything else is disconnected. Read it, remove what the machine does not need, then set mode: enforce.',
    '# Ids and serial numbers are what the host shows: they tell devices apart, they prove nothing.',
    'version: 1',
    `mode: ${mode}`,
    ...(mode === 'learn' ? ['learn: { for: 30m }'] : []),
    'default: disconnected',
  ];
  if (disks.length > 0) {
    lines.push(
      '',
      '# Disks that were in use; leave only the one that the machine boots from.',
      `boot-critical: [${disks.map((draft) => draft.id).join(', ')}]`,
    );
  }
  lines.push('', drafts.length === 0 ? 'rules: []' : 'rules:');
  for (const [index, draft] of drafts.entries()) {
    if (index > 0) lines.push('');
    const shown = draft.devices.slice(0, 4).map(comment).join(', ');
    const more = draft.devices.length > 4 ? ` and ${draft.devices.length - 4} more` : '';
    lines.push(`  # ${shown}${more}`);
    for (const one of draft.comments) lines.push(`  # ${one}`);
    lines.push(`  - id: ${draft.id}`, `    match: { ${draft.match.join(', ')} }`, '    level: limited');
    const features = featuresOf(draft.negotiated);
    if (features.length > 0) lines.push(`    features: { ${features.join(', ')} }`);
  }
  if (unused.length > 0) {
    lines.push('', '# Without a driver when this was made, so disconnected by the default:');
    for (const device of unused.slice(0, 50)) {
      lines.push(`#   ${comment(`${device.id} ${device.bus} ${device.type ?? ''}`.trim())}`);
    }
    if (unused.length > 50) lines.push(`#   and ${unused.length - 50} more`);
  }
  return `${lines.join('\n')}\n`;
}

function draftFor(device: Device): Draft {
  const comments: string[] = [];
  const negotiated = device.features?.negotiated ?? [];
  const seen = negotiated.length === 0 ? [] : [negotiated];
  const match: string[] = [`bus: ${device.bus}`];
  let id = device.type ?? device.bus;
  let disk = device.interfaces.some((name) => name.startsWith('block/') || name.startsWith('nvme/'));

  if (isBridge(device)) {
    return {
      id: 'bridges',
      match: ['bus: pci', 'class: bridge'],
      negotiated: [],
      comments: ['Bridges do no DMA of their own; what is behind them is decided by itself.'],
      disk: false,
      devices: [device.id],
    };
  }
  if (device.bus === 'virtio') {
    if (isId(device.virtioId) && device.virtioId > 0) match.push(`type: ${virtioType(device)}`);
    else if (device.transport !== null) match.push(`transport: ${device.transport}`);
    disk ||= device.virtioId === 2;
    if (negotiated.length > 0 && !negotiated.includes('ACCESS_PLATFORM')) {
      comments.push('It ran without ACCESS_PLATFORM: its memory accesses were not bounced.');
    }
  } else if (isId(device.vendor) && isId(device.device)) {
    match.push(`vendor: ${hex(device.vendor)}`, `device: ${hex(device.device)}`);
    if (device.subsystem && isId(device.subsystem.vendor) && isId(device.subsystem.device)) {
      match.push(`subsystem: { vendor: ${hex(device.subsystem.vendor)}, device: ${hex(device.subsystem.device)} }`);
    }
    if (typeof device.class === 'number' && device.bus === 'pci') {
      id = pciClassName(device.class);
      match.push(
        `class: ${/^[a-z]/.test(id) && !id.startsWith('class-') ? id : `0x${hex(device.class, 6).slice(2, 4)}`}`,
      );
    }
  } else if (plainPlace(device.location)) {
    match.push(`location: ${JSON.stringify(device.location)}`);
    comments.push('It shows no ids: only its place tells it apart.');
  }
  if (typeof device.serial === 'string' && /^[\x20-\x7e]{1,128}$/.test(device.serial)) {
    match.push(`serial: ${JSON.stringify(device.serial)}`);
  } else if (disk) {
    comments.push('It shows no serial number: another disk of this kind would be taken as well.');
  }
  if (device.sriov?.role === 'physical') match.push('function: physical');
  if (device.sriov?.role === 'virtual') {
    const place = device.sriov.physical?.slice('pci:'.length);
    match.push(
      place !== undefined && plainPlace(place) ? `physical-function: ${JSON.stringify(place)}` : 'function: virtual',
    );
    comments.push('Virtual functions are made after the gate has looked, so they count as hot-plugged.');
  } else {
    match.push('hotplugged: false');
  }
  return { id: slug(id), match, negotiated: seen, comments, disk, devices: [device.id] };
}

/** What holds for every device that the rule was made from. */
function featuresOf(negotiated: readonly (readonly string[])[]): string[] {
  if (negotiated.length === 0) return [];
  const needed = ['VERSION_1', 'ACCESS_PLATFORM'].filter((name) => negotiated.every((list) => list.includes(name)));
  return [
    ...(needed.length > 0 ? [`require: [${needed.join(', ')}]`] : []),
    ...(negotiated.some((list) => list.includes('RING_PACKED')) ? [] : ['forbid: [RING_PACKED]']),
  ];
}

/** What the language can write; nothing else is ever read from a kernel. */
function isId(value: number | undefined): value is number {
  return value !== undefined && value >= 0 && value <= 0xffff;
}

function isBridge(device: Device): boolean {
  return device.bus === 'pci' && typeof device.class === 'number' && device.class >>> 16 === 0x06;
}

/** A name that the language knows, else the number. */
function virtioType(device: Device): string {
  const known = device.type !== null && /^[a-z0-9]+$/.test(device.type) && !/^[0-9]+$/.test(device.type);
  return known ? String(device.type) : String(device.virtioId);
}

function plainPlace(location: string): boolean {
  return /^[\x21-\x29\x2b-\x7e]{1,128}$/.test(location);
}

function hex(value: number, digits = 4): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

function slug(text: string): string {
  const plain = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 48);
  return plain === '' ? 'device' : plain;
}

function unique(id: string, used: Set<string>): string {
  let name = id;
  for (let n = 2; used.has(name); n++) name = `${id}-${n}`;
  used.add(name);
  return name;
}

/** Text from a device on one line of a comment. */
function comment(text: string): string {
  return asciiText(Uint8Array.from(text.slice(0, 200), (character) => Math.min(character.charCodeAt(0), 255))).replace(
    /[\n\t]/g,
    ' ',
  );
}
