/**
 * DOE mailboxes of a PCI function through its `config` file in sysfs: works on stock kernels, before a driver is bound.
 * Putting an object in writes configuration space, which needs CAP_SYS_ADMIN and a kernel that is not locked down; a
 * kernel that uses the mailbox itself says so in its log and taints itself, and `doe-busy` is what two users see.
 */

import { readLe } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { DoeFeature } from '@airlock/spdm/doe/discovery.ts';
import {
  type Clock,
  type ConfigSpace,
  type Mailbox,
  type MailboxLimits,
  openMailbox,
} from '@airlock/spdm/doe/mailbox.ts';
import { DOE_TYPE, PCI_SIG } from '@airlock/spdm/doe/object.ts';
import type { Files } from './files.ts';
import { readHeader, STANDARD_CONFIG, walkExtended } from './pci-config.ts';

const DOE = 0x2e;
const EXTENDED_CONFIG = 4096;
/** Up to and with the read mailbox. */
const CAPABILITY_SIZE = 24;
const NO_MAILBOX = 'this function has no DOE mailbox, so it cannot be asked who it is';
const WHERE = 'most devices have none; airlock list shows under PROVES ITSELF which ones can be asked';
const LOCKDOWN = '/sys/kernel/security/lockdown';

export interface DoeCapability {
  readonly offset: number;
  readonly version: number;
}

/** The DOE extended capabilities in configuration space; a function can have several. */
export function doeCapabilities(config: Uint8Array): readonly DoeCapability[] {
  return walkExtended(config).capabilities.flatMap(({ id, offset, version }) =>
    id === DOE && offset + CAPABILITY_SIZE <= EXTENDED_CONFIG ? [{ offset, version: version ?? 0 }] : [],
  );
}

/** `none`, `integrity` or `confidentiality`; `undefined` where the kernel has no such file or it cannot be read. */
export async function readLockdown(files: Files): Promise<string | undefined> {
  const text = await files.read(LOCKDOWN, 256);
  if (!text.ok) return undefined;
  return /\[([a-z]{1,32})\]/.exec(String.fromCharCode(...text.value))?.[1];
}

/**
 * Dwords of the configuration space whose file `path` is, opened for each access; `node-config-space.ts` is the faster
 * hand. Codes: those of `Files`, `config-too-short` (this user, or this
 * function, does not have that register).
 */
export function sysfsConfigSpace(files: Files, path: string): ConfigSpace {
  return {
    async read32(offset) {
      const bytes = await files.readAt(path, offset, 4);
      if (!bytes.ok) return bytes;
      const value = readLe(bytes.value, 0, 4);
      return value === undefined
        ? fail('config-too-short', `${path} ends before offset 0x${offset.toString(16)}`)
        : ok(value);
    },
    write32(offset, value) {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value, true);
      return files.write(path, bytes, offset);
    },
  };
}

/** The same space, whose refusals say so where they are the kernel's lockdown. */
function tellLockdown(files: Files, path: string, space: ConfigSpace): ConfigSpace {
  return {
    read32: (offset) => space.read32(offset),
    async write32(offset, value) {
      const written = await space.write32(offset, value);
      if (written.ok || written.error.code !== 'file-denied') return written;
      const lockdown = await readLockdown(files);
      // Who may not write at all gets EACCES; EPERM is what lockdown says, also where its state is not shown.
      if (lockdown === 'none' || (lockdown === undefined && !/\bEPERM\b/.test(written.error.message))) return written;
      return fail(
        'config-locked-down',
        `the kernel is locked down (${lockdown ?? 'how far, it does not show'}) and forbids writes to ${path}`,
        { hint: 'ask the kernel instead (tsm/, authenticated), or boot without lockdown' },
      );
    },
  };
}

export interface MailboxHands {
  readonly limits?: Partial<MailboxLimits>;
  /** What the registers are accessed through, in place of `files`. */
  readonly space?: ConfigSpace;
  /** As `MailboxPlace` has it. */
  readonly cancelled?: (() => boolean) | undefined;
}

export interface FunctionMailbox extends DoeCapability {
  readonly mailbox: Mailbox;
}

/**
 * Every mailbox of the function whose folder is `folder`, without a write. Codes: those of `Files`, `config-too-short`
 * (the kernel shows the extended space only to those who may see it), `doe-gone`, `doe-absent`; of the mailboxes also
 * `config-locked-down` (the kernel forbids writes to whoever asks).
 */
export async function openDoeMailboxes(
  files: Files,
  clock: Clock,
  folder: string,
  { limits, space, cancelled }: MailboxHands = {},
): Promise<Result<readonly FunctionMailbox[]>> {
  const path = `${folder}/config`;
  const config = await files.readAt(path, 0, EXTENDED_CONFIG);
  if (!config.ok) return config;
  if (readHeader(config.value) === undefined) return fail('doe-gone', `${path} reads all ones or ends in its header`);
  if (config.value.length <= 64)
    return fail('config-too-short', `${path} shows ${config.value.length} bytes`, {
      hint: 'the whole configuration space is shown to CAP_SYS_ADMIN only: run it as root',
    });
  if (config.value.length <= STANDARD_CONFIG) return fail('doe-absent', NO_MAILBOX, { hint: WHERE });
  const hand = tellLockdown(files, path, space ?? sysfsConfigSpace(files, path));
  const found = doeCapabilities(config.value).map(({ offset, version }) => ({
    offset,
    version,
    mailbox: openMailbox({
      config: hand,
      clock,
      offset,
      version,
      cancelled,
      ...(limits === undefined ? {} : { limits }),
    }),
  }));
  return found.length === 0 ? fail('doe-absent', NO_MAILBOX, { hint: WHERE }) : ok(found);
}

export interface SpdmMailbox extends FunctionMailbox {
  readonly features: readonly DoeFeature[];
  /** Secured messages have a data object type of their own. */
  readonly secured: boolean;
}

/**
 * The first mailbox that offers CMA-SPDM; asks them one after the other, which writes configuration space. Codes: those
 * of `openDoeMailboxes` and of `Mailbox`, `doe-unsupported`.
 */
export async function findSpdmMailbox(
  files: Files,
  clock: Clock,
  folder: string,
  hands: MailboxHands = {},
): Promise<Result<SpdmMailbox>> {
  const mailboxes = await openDoeMailboxes(files, clock, folder, hands);
  if (!mailboxes.ok) return mailboxes;
  let failed: Result<never> | undefined;
  for (const one of mailboxes.value) {
    const features = await one.mailbox.discover();
    if (!features.ok) {
      failed ??= features;
      continue;
    }
    const offers = (type: number) =>
      features.value.some((feature) => feature.vendor === PCI_SIG && feature.type === type);
    if (offers(DOE_TYPE.spdm)) return ok({ ...one, features: features.value, secured: offers(DOE_TYPE.securedSpdm) });
  }
  return failed ?? fail('doe-unsupported', `no mailbox of ${folder} offers CMA-SPDM`);
}
