/** What stands between a block device and the disks of the host: the stack of device-mapper, md, loop and partitions. */
import { resolveLink } from '../attribute.ts';
import { fact, linkOf, type Mount, mountOf, names, type Observations } from './reading.ts';

export const BLOCK = '/sys/class/block';
/** Longer or wider stacks than these are not followed to their end, and then not judged. */
const DEPTH_LIMIT = 16;
const VISIT_LIMIT = 256;

export type Protection = 'yes' | 'no' | 'unknown';

export interface Shield {
  /** Is everything that reaches a disk encrypted by the kernel? */
  readonly encryption: Protection;
  /** Is a change made by the disk noticed? */
  readonly integrity: Protection;
  /** The stack from the top: `dm-0 crypt > vda2 > vda` */
  readonly layers: readonly string[];
  /** Why something is unknown. */
  readonly because?: string;
}

type Kind =
  | 'crypt'
  | 'integrity'
  | 'verity'
  | 'memory'
  | 'backed'
  | 'through'
  | 'loop'
  | 'partition'
  | 'disk'
  | 'unknown';

const MEMORY: Shield = { encryption: 'yes', integrity: 'yes', layers: ['memory'] };
const OPEN: Shield = { encryption: 'no', integrity: 'no', layers: [] };

/** The shield of a block device by its kernel name (`dm-0`, `vda1`). */
export function shieldOf(observations: Observations, mounts: readonly Mount[], device: string): Shield {
  let visits = 0;

  function visit(name: string, depth: number): Shield {
    visits++;
    if (depth > DEPTH_LIMIT || visits > VISIT_LIMIT) return unsure(name, 'the stack goes on and on');
    const kind = kindOf(observations, name);
    const label = kind === 'partition' || kind === 'disk' || kind === 'through' ? name : `${name} ${kind}`;
    if (kind === 'memory') return MEMORY;
    if (kind === 'unknown') return unsure(name, `${name}: sysfs does not show of what kind it is`);
    if (kind === 'disk') return diskShield(name, label);
    const below = beneath(name, kind, depth + 1);
    const layers = [label, ...below.layers].slice(0, DEPTH_LIMIT);
    if (kind === 'crypt') return { ...below, encryption: 'yes', layers };
    if (kind === 'verity' || kind === 'integrity') return { ...below, integrity: 'yes', layers };
    return { ...below, layers };
  }

  /** dm-crypt can keep its tags in the disk's own metadata, without a device of its own; sysfs does not show whether. */
  function diskShield(name: string, label: string): Shield {
    const tags = fact(observations, `${BLOCK}/${name}/integrity/tag_size`);
    return tags.state === 'read' && tags.text !== '0'
      ? {
          ...OPEN,
          integrity: 'unknown',
          layers: [label],
          because: `${name} has room for integrity tags; used or not is not shown`,
        }
      : { ...OPEN, layers: [label] };
  }

  function beneath(name: string, kind: Kind, depth: number): Shield {
    if (kind === 'partition') {
      const parent = parentOf(observations, name);
      return parent === undefined ? unsure(name, `${name}: disk not found`) : visit(parent, depth);
    }
    if (kind === 'loop') {
      const file = fact(observations, `${BLOCK}/${name}/loop/backing_file`);
      const under = file.state === 'read' ? deviceOfPath(observations, mounts, file.text) : undefined;
      return under === undefined ? unsure(name, `${name}: backing file's disk not found`) : visit(under, depth);
    }
    if (kind === 'backed') {
      const backing = fact(observations, `${BLOCK}/${name}/backing_dev`);
      const under = backing.state === 'read' ? deviceOfNode(observations, backing.text) : undefined;
      return under === undefined ? unsure(name, `${name}: backing device not found`) : visit(under, depth);
    }
    const slaves = names(observations, `${BLOCK}/${name}/slaves`);
    if (slaves.state !== 'listed' || slaves.names.length === 0) return unsure(name, `${name}: nothing seen below it`);
    return weakest(slaves.names.map((slave) => visit(slave, depth)));
  }

  return visit(device, 0);
}

/** As weak as its weakest part: no < unknown < yes. */
export function weakest(shields: readonly Shield[]): Shield {
  const worst = (pick: (shield: Shield) => Protection): Protection => {
    const seen = shields.map(pick);
    return seen.includes('no') ? 'no' : seen.includes('unknown') || seen.length === 0 ? 'unknown' : 'yes';
  };
  const because = shields.find((shield) => shield.because !== undefined)?.because;
  return {
    encryption: worst((shield) => shield.encryption),
    integrity: worst((shield) => shield.integrity),
    layers: (shields.find((shield) => shield.encryption === 'no') ?? shields[0])?.layers ?? [],
    ...(because === undefined ? {} : { because }),
  };
}

function unsure(name: string, because: string): Shield {
  return { encryption: 'unknown', integrity: 'unknown', layers: [name], because };
}

/**
 * By the UUID that cryptsetup, LVM and multipath give a device-mapper device. `CRYPT-SUBDEV` is the dm-integrity
 * device that cryptsetup 2.8 puts below LUKS2 (`CRYPT-INTEGRITY` before).
 */
function kindOf(observations: Observations, name: string): Kind {
  if (/^ram\d+$/.test(name)) return 'memory';
  if (/^zram\d+$/.test(name)) {
    const backing = fact(observations, `${BLOCK}/${name}/backing_dev`);
    if (backing.state === 'unknown') return 'unknown';
    return backing.state === 'read' && backing.text !== 'none' ? 'backed' : 'memory';
  }
  const uuid = fact(observations, `${BLOCK}/${name}/dm/uuid`);
  if (uuid.state === 'read') {
    if (uuid.text.startsWith('CRYPT-VERITY-')) return 'verity';
    if (uuid.text.startsWith('CRYPT-INTEGRITY-') || uuid.text.startsWith('CRYPT-SUBDEV-')) return 'integrity';
    if (/^CRYPT-(LUKS[12]|PLAIN|TCRYPT|BITLK|FVAULT2|LOOPAES)-/.test(uuid.text)) return 'crypt';
    return /^(LVM-|mpath-|part\d+-|DMRAID-)/.test(uuid.text) ? 'through' : 'unknown';
  }
  if (/^dm-\d+$/.test(name)) return 'unknown';
  if (/^loop\d+$/.test(name)) return 'loop';
  const partition = fact(observations, `${BLOCK}/${name}/partition`);
  if (partition.state === 'read') return 'partition';
  const slaves = names(observations, `${BLOCK}/${name}/slaves`);
  if (partition.state === 'unknown' || slaves.state === 'unknown') return 'unknown';
  return slaves.state === 'listed' && slaves.names.length > 0 ? 'through' : 'disk';
}

/** The disk of a partition: the folder above it in /sys/devices. */
function parentOf(observations: Observations, name: string): string | undefined {
  const target = linkOf(observations, `${BLOCK}/${name}`);
  const path = target === undefined ? undefined : resolveLink(BLOCK, target);
  const parts = path?.split('/') ?? [];
  const parent = parts[parts.length - 2];
  return parent !== undefined && parts[parts.length - 1] === name && parent !== 'block' ? parent : undefined;
}

/** The block device whose number is `8:1`. */
export function deviceOfNumber(observations: Observations, number: string): string | undefined {
  const all = names(observations, BLOCK);
  if (all.state !== 'listed') return undefined;
  return all.names.find((name) => {
    const dev = fact(observations, `${BLOCK}/${name}/dev`);
    return dev.state === 'read' && dev.text === number;
  });
}

/** `/dev/vda2`, `/dev/mapper/swap`, `/dev/dm-0` */
export function deviceOfNode(observations: Observations, node: string): string | undefined {
  const all = names(observations, BLOCK);
  if (all.state !== 'listed' || !node.startsWith('/dev/')) return undefined;
  const plain = node.slice(5).replaceAll('/', '!');
  if (all.names.includes(plain)) return plain;
  const mapped = node.startsWith('/dev/mapper/') ? node.slice(12) : undefined;
  return mapped === undefined
    ? undefined
    : all.names.find((name) => {
        const given = fact(observations, `${BLOCK}/${name}/dm/name`);
        return given.state === 'read' && given.text === mapped;
      });
}

/** The device that holds a mounted file system: by number, and by its source where the number is anonymous (btrfs). */
export function deviceOfMount(observations: Observations, mount: Mount): string | undefined {
  return mount.device.startsWith('0:')
    ? deviceOfNode(observations, mount.source)
    : deviceOfNumber(observations, mount.device);
}

function deviceOfPath(observations: Observations, mounts: readonly Mount[], path: string): string | undefined {
  const mount = path.startsWith('/') ? mountOf(mounts, path) : undefined;
  return mount === undefined ? undefined : deviceOfMount(observations, mount);
}

/** The shield of the file system that holds a file; file systems without a block device have none to show. */
export function shieldOfPath(observations: Observations, mounts: readonly Mount[], path: string): Shield {
  const mount = mountOf(mounts, path);
  if (mount !== undefined && (mount.type === 'tmpfs' || mount.type === 'ramfs')) return MEMORY;
  const device = deviceOfPath(observations, mounts, path);
  return device === undefined
    ? unsure(path, `${path}: its disk was not found`)
    : shieldOfDevices(observations, mounts, device);
}

/** A btrfs of several devices is as weak as the weakest of them. */
export function shieldOfDevices(observations: Observations, mounts: readonly Mount[], device: string): Shield {
  const pools = names(observations, '/sys/fs/btrfs');
  if (pools.state === 'listed') {
    for (const pool of pools.names) {
      const members = names(observations, `/sys/fs/btrfs/${pool}/devices`);
      if (members.state === 'listed' && members.names.includes(device)) {
        return weakest(members.names.map((member) => shieldOf(observations, mounts, member)));
      }
    }
  }
  return shieldOf(observations, mounts, device);
}
