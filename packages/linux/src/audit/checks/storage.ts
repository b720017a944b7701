/** What is written to disks that belong to the host. */
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, REFERENCES, unknown, type Verdict, verdictOf } from '../finding.ts';
import {
  fact,
  MOUNTINFO,
  type Mount,
  mountOf,
  mountsOf,
  type Observations,
  type Unknown,
  unescapeOctal,
} from '../reading.ts';
import {
  deviceOfMount,
  deviceOfNode,
  deviceOfNumber,
  type Shield,
  shieldOf,
  shieldOfDevices,
  shieldOfPath,
} from '../storage.ts';

const SWAPS = '/proc/swaps';
const SWAPS_LIMIT = 64;
const DISKS_LIMIT = 256;
/** Read by firmware and boot loader, which know no dm-crypt: protected by measuring or signing instead. */
const BOOT_PLACES: readonly string[] = ['/boot', '/boot/efi', '/boot/firmware', '/efi'];
/** File systems that the host serves and can change at will. */
const HOST_SHARES: readonly string[] = ['9p', 'virtiofs'];

interface Shielded {
  readonly what: string;
  readonly path: string;
  readonly shield: Shield;
}

/** `Filename Type Size Used Priority`, with the shield of each. */
function swaps(observations: Observations): Shielded[] | Unknown {
  const table = fact(observations, SWAPS);
  if (table.state === 'unknown') return table;
  const mounts = mountsOf(observations);
  if (table.state === 'absent') return [];
  if (!Array.isArray(mounts)) return mounts;
  return table.text
    .split('\n', SWAPS_LIMIT)
    .slice(1)
    .flatMap((line) => {
      const [file = '', type] = line.split(/[ \t]+/);
      const name = unescapeOctal(file).replace(/ \(deleted\)$/, '');
      if (!name.startsWith('/')) return [];
      if (type === 'file') return [{ what: name, path: SWAPS, shield: shieldOfPath(observations, mounts, name) }];
      const device = deviceOfNode(observations, name);
      const shield = device === undefined ? notSeen(name) : shieldOf(observations, mounts, device);
      return [{ what: name, path: SWAPS, shield }];
    });
}

/** Every mounted file system that lies on a block device, once, with its first mount point. */
function disks(observations: Observations, boot: boolean): Shielded[] | Unknown {
  const mounts = mountsOf(observations);
  if (!Array.isArray(mounts)) return mounts;
  const judged = new Map<string, Shielded>();
  for (const mount of mounts) {
    if (judged.size >= DISKS_LIMIT) break;
    if (BOOT_PLACES.includes(mount.at) !== boot || !lieOnBlock(mount)) continue;
    const device = deviceOfMount(observations, mount);
    const key = device ?? mount.device;
    if (judged.has(key)) continue;
    judged.set(key, {
      what: `${mount.at} (${mount.type})`,
      path: `/sys/class/block/${device ?? `(${mount.device})`}`,
      shield: device === undefined ? notSeen(mount.source) : shieldOfDevices(observations, mounts, device),
    });
  }
  return [...judged.values()];
}

function notSeen(name: string): Shield {
  return { encryption: 'unknown', integrity: 'unknown', layers: [], because: `${name} is not in /sys/class/block` };
}

/** A machine that runs from its initramfs has no disk; a container that shows none has hidden it. */
function noDisk(observations: Observations): Verdict {
  const mounts = mountsOf(observations);
  if (!Array.isArray(mounts)) return mounts;
  const root = mountOf(mounts, '/');
  return root !== undefined && ['rootfs', 'tmpfs', 'ramfs'].includes(root.type)
    ? passed(evidence(MOUNTINFO, `/ is ${root.type}; nothing on a block device is mounted`))
    : unknown(MOUNTINFO, `/ is ${root?.type ?? 'not there'}: the disks below it are not seen from here`);
}

function lieOnBlock(mount: Mount): boolean {
  return !mount.device.startsWith('0:') || (mount.type === 'btrfs' && mount.source.startsWith('/dev/'));
}

function layers({ what, shield }: Shielded): string {
  return `${what}: ${shield.layers.length === 0 ? 'not followed' : shield.layers.join(' > ')}`;
}

/** What fails is found; what is not known is never found, and hides no pass of the others. */
function judge(
  all: readonly Shielded[] | Unknown,
  bad: (shield: Shield) => boolean,
  unsure: (shield: Shield) => boolean,
  nothing: string,
): Verdict {
  if ('state' in all) return all;
  const first = all.find(({ shield }) => unsure(shield));
  const wrong = all.filter(({ shield }) => bad(shield)).map((one) => evidence(one.path, layers(one)));
  if (wrong.length === 0 && first !== undefined) {
    return unknown(first.path, `${first.what}: ${first.shield.because ?? 'its stack was not seen'}`);
  }
  if (all.length === 0) return passed(evidence(SWAPS, nothing));
  return verdictOf(
    wrong,
    all.map((one) => evidence(one.path, layers(one))),
  );
}

const isOpen = (shield: Shield) => shield.encryption === 'no';
/** A verified read-only disk (dm-verity) holds no secrets that were written to it. */
const isExposed = (shield: Shield) => shield.encryption === 'no' && shield.integrity !== 'yes';
const isMalleable = (shield: Shield) => shield.encryption === 'yes' && shield.integrity === 'no';

export const storageChecks: readonly Check[] = [
  {
    id: 'swap-unencrypted',
    area: 'storage',
    title: 'Memory is swapped to a disk in the clear',
    severity: 'critical',
    elsewhere: 'medium',
    looksAt: [SWAPS, '/sys/class/block/*/slaves', '/sys/class/block/*/dm/uuid'],
    why: 'What the CPU keeps encrypted in memory is handed to the disk, and so to the host, as it is; keys included.',
    fix: 'swapoff -a and remove the entry from /etc/fstab; zram stays in encrypted memory.',
    reference: REFERENCES.intelStorage,
    run: (observations) => judge(swaps(observations), isOpen, (shield) => shield.encryption === 'unknown', 'no swap'),
  },
  {
    id: 'swap-without-integrity',
    area: 'storage',
    title: 'Swap is encrypted, but the disk can change or roll back what it gives back',
    severity: 'medium',
    elsewhere: 'info',
    looksAt: [SWAPS, '/sys/class/block/*/dm/uuid'],
    why: 'dm-crypt alone does not notice changed sectors, so the host can corrupt or replay private memory through swap. Even dm-integrity does not notice a roll-back; Intel recommends no swap at all.',
    fix: 'Switch swap off, or use zram.',
    reference: REFERENCES.intelStorage,
    run: (observations) => {
      const all = swaps(observations);
      return judge(
        Array.isArray(all) ? all.filter(({ shield }) => shield.encryption !== 'no') : all,
        isMalleable,
        (shield) => shield.integrity === 'unknown',
        'no encrypted swap on a disk',
      );
    },
  },
  {
    id: 'hibernation-unencrypted',
    area: 'storage',
    title: 'Hibernation would write all of memory to a disk in the clear',
    severity: 'high',
    elsewhere: 'medium',
    looksAt: ['/sys/power/state', '/sys/power/disk', '/sys/power/resume'],
    why: 'A resume device is set up, and nothing encrypts it: one hibernation gives the host the whole memory, and at resume the host chooses what memory holds.',
    fix: 'nohibernate on the command line; remove resume=.',
    reference: 'Documentation/power/swsusp.rst',
    run: hibernation,
  },
  {
    id: 'disk-unencrypted',
    area: 'storage',
    title: 'A mounted file system lies on a disk in the clear',
    severity: 'high',
    elsewhere: 'info',
    looksAt: [MOUNTINFO, '/sys/class/block/*/slaves', '/sys/class/block/*/dm/uuid'],
    why: 'The disk belongs to the host: it reads and changes every byte of the file system, programs included.',
    fix: 'dm-crypt with dm-integrity (cryptsetup luksFormat --integrity hmac-sha256) under what is written, dm-verity under what is only read.',
    reference: REFERENCES.intelStorage,
    run: (observations) => {
      const all = disks(observations, false);
      return Array.isArray(all) && all.length === 0
        ? noDisk(observations)
        : judge(all, isExposed, (shield) => shield.encryption === 'unknown', 'none');
    },
  },
  {
    id: 'disk-without-integrity',
    area: 'storage',
    title: 'A mounted disk is encrypted, but changes to it are not noticed',
    severity: 'medium',
    elsewhere: 'info',
    looksAt: [MOUNTINFO, '/sys/class/block/*/dm/uuid'],
    why: 'dm-crypt alone turns a changed sector into other data without an error. The host knows where files lie and can garble or swap them.',
    fix: 'Format anew with integrity: cryptsetup luksFormat --integrity hmac-sha256 (or aegis128-random with aead). Roll-back of the whole disk stays possible.',
    reference: 'Documentation/admin-guide/device-mapper/dm-integrity.rst',
    run: (observations) => {
      const all = disks(observations, false);
      if (!Array.isArray(all)) return all;
      const crypted = all.filter(({ shield }) => shield.encryption === 'yes');
      return crypted.length === 0
        ? notApplicable('no encrypted file system is mounted')
        : judge(crypted, isMalleable, (shield) => shield.integrity === 'unknown', 'none');
    },
  },
  {
    id: 'boot-partition-open',
    area: 'storage',
    title: 'The boot partition is neither encrypted nor verified',
    severity: 'info',
    elsewhere: null,
    looksAt: [MOUNTINFO],
    why: 'Firmware must read it, so the host can change it. That is sound only while the kernel, initramfs and command line are measured at launch and the verifier compares them.',
    fix: 'Use a unified kernel image with a signature, and have the key broker check its measurement.',
    reference: REFERENCES.threatModel,
    run: (observations) => {
      const all = disks(observations, true);
      return Array.isArray(all) && all.length === 0
        ? notApplicable('no boot partition is mounted')
        : judge(all, isExposed, (shield) => shield.encryption === 'unknown', 'none');
    },
  },
  {
    id: 'host-shared-folder',
    area: 'storage',
    title: 'A folder of the host is mounted',
    severity: 'medium',
    elsewhere: null,
    looksAt: [MOUNTINFO],
    why: 'The host reads what is written there and changes what is read, between two reads of one file if it likes.',
    fix: 'Unmount it, or use it for data that is public and checked after it was copied; mount it with noexec,nosuid,nodev.',
    reference: REFERENCES.threatModel,
    run: (observations) => {
      const mounts = mountsOf(observations);
      if (!Array.isArray(mounts)) return mounts;
      return verdictOf(
        mounts
          .filter(({ type }) => HOST_SHARES.includes(type))
          .map(({ at, type, source }) => evidence(MOUNTINFO, `${source} on ${at} type ${type}`)),
        [evidence(MOUNTINFO, `no ${HOST_SHARES.join(', ')}`)],
      );
    },
  },
];

function hibernation(observations: Observations): Verdict {
  const state = fact(observations, '/sys/power/state');
  if (state.state === 'unknown') return state;
  if (state.state === 'absent') return passed(evidence(state.path, 'absent: this kernel cannot sleep'));
  const disk = fact(observations, '/sys/power/disk');
  if (!state.text.split(' ').includes('disk') || (disk.state === 'read' && disk.text.includes('[disabled]'))) {
    return passed(evidence(state.path, state.text === '' ? '(empty)' : state.text));
  }
  const resume = fact(observations, '/sys/power/resume');
  if (resume.state !== 'read') {
    return unknown(resume.path, resume.state === 'unknown' ? resume.because : 'not there');
  }
  if (resume.text === '0:0') return passed(evidence(resume.path, '0:0 (no resume device)'));
  const mounts = mountsOf(observations);
  const device = deviceOfNumber(observations, resume.text);
  if (!Array.isArray(mounts) || device === undefined) return unknown(resume.path, `${resume.text}: device not found`);
  const shield = shieldOf(observations, mounts, device);
  if (shield.encryption === 'unknown') return unknown(resume.path, shield.because ?? 'its stack was not seen');
  const seen: Evidence = evidence(resume.path, `${resume.text}: ${shield.layers.join(' > ')}`);
  return shield.encryption === 'no' ? found(seen) : passed(seen);
}
