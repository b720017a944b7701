/**
 * What a boot measured, event by event: why a PCR has its value. An event's name comes from the log, which nobody signed;
 * its digest counts only as far as all digests of its PCR together give the quoted value. Names explain and prove nothing.
 */
import { asciiText, hex } from '@airlock/core/bytes.ts';
import { concat, sameBytes, u32le } from '../bytes.ts';
import type { Crypto, Hash } from '../crypto.ts';
import type { EventLog, LogEvent } from './event-log.ts';
import { replay } from './event-log.ts';

/** PCRs that say what was booted: boot loader or kernel, its command line, its initramfs. The others are the platform's. */
export const LAUNCH_PCRS: readonly number[] = [4, 8, 9, 11, 12];
/** Where Linux's EFI stub measures its command line and initramfs: since 6.1 to the TPM's PCR 9. */
export const LINUX_PCR = 9;
/** Events of one PCR that are told; a boot has a few. */
const EVENT_LIMIT = 64;
const NAME_LIMIT = 48;

const EVENT_TAG = 0x06;
/** TCG PC Client PFP §10.4.1. */
const TYPES: Readonly<Record<number, string>> = {
  4: 'separator',
  5: 'action',
  6: 'tag',
  13: 'IPL',
  2147483651: 'EFI application',
  2147483652: 'EFI boot driver',
  2147483653: 'EFI runtime driver',
  2147483655: 'EFI action',
};

export interface BootEvent {
  readonly name: string;
  /** Hex. */
  readonly digest: string;
}

/** Only of PCRs whose events replay to `values`: of others the log explains nothing. */
export function bootEvents(
  crypto: Crypto,
  logs: readonly EventLog[],
  bank: Hash,
  values: ReadonlyMap<number, Uint8Array>,
): Map<number, readonly BootEvent[]> {
  const events = new Map<number, readonly BootEvent[]>();
  for (const log of logs) {
    const registers = replay(crypto, log, bank);
    for (const pcr of LAUNCH_PCRS) {
      const [replayed, value] = [registers.get(pcr), values.get(pcr)];
      if (events.has(pcr) || replayed === undefined || value === undefined || !sameBytes(replayed, value)) continue;
      const own = log.events.filter((event) => event.register === pcr && event.digests[bank] !== undefined);
      if (own.length > EVENT_LIMIT) continue;
      events.set(
        pcr,
        own.map((event) => ({ name: eventName(event), digest: hex(event.digests[bank] ?? new Uint8Array()) })),
      );
    }
  }
  return events;
}

/** `Linux initrd`, `EFI application`, `EFI action: Exit Boot Services Invocation`. */
export function eventName({ type, data }: LogEvent): string {
  // An id of the tag's and its length, then text: TCG PC Client PFP §10.4.5.
  if (type === EVENT_TAG && data.length >= 8 && u32le(data, 4) <= data.length - 8) {
    const text = plain(data.subarray(8, 8 + u32le(data, 4)));
    return text === 'LOADED_IMAGE::LoadOptions' ? 'Linux command line' : text || 'tag';
  }
  const kind = TYPES[type] ?? `type 0x${type.toString(16)}`;
  const text = type === 5 || type === 13 || type === 0x80000007 ? plain(data) : '';
  return text === '' ? kind : `${kind}: ${text}`;
}

function plain(data: Uint8Array): string {
  const text = data.subarray(0, NAME_LIMIT).filter((byte) => byte !== 0);
  return asciiText(text).replace(/[^\x20-\x7e]/g, '?');
}

export interface LinuxBoot {
  /** Without what the firmware adds: `initrd=initrd` where QEMU hands the kernel over. */
  readonly cmdline: string;
  /** SHA-256 of the whole initramfs. */
  readonly initrd: Uint8Array;
}

/**
 * What Linux's EFI stub measures of a boot with this command line and initramfs, and the value of PCR 9 (SHA-256) when
 * nothing else is measured into it: QEMU with `-kernel` and OVMF. The command line is measured as the firmware has it: UTF-16,
 * with its zero.
 */
export function linuxBoot(
  crypto: Crypto,
  { cmdline, initrd }: LinuxBoot,
): { readonly value: Uint8Array; readonly events: readonly BootEvent[] } {
  const options = new Uint8Array((cmdline.length + 1) * 2);
  for (let i = 0; i < cmdline.length; i++) {
    options[i * 2] = cmdline.charCodeAt(i) & 0xff;
    options[i * 2 + 1] = cmdline.charCodeAt(i) >> 8;
  }
  const measured = [
    { name: 'Linux command line', digest: crypto.hash('sha256', options) },
    { name: 'Linux initrd', digest: initrd },
  ];
  let value: Uint8Array = new Uint8Array(32);
  for (const { digest } of measured) value = crypto.hash('sha256', concat(value, digest));
  return { value, events: measured.map(({ name, digest }) => ({ name, digest: hex(digest) })) };
}

/** `Linux initrd is ab12…, not cd34…`, each event that is not as expected; empty where all are. */
export function eventsThatDiffer(expected: readonly BootEvent[], found: readonly BootEvent[]): string[] {
  const wrong: string[] = [];
  for (let i = 0; i < Math.max(expected.length, found.length); i++) {
    const [wanted, one] = [expected[i], found[i]];
    if (wanted !== undefined && one !== undefined) {
      if (wanted.digest !== one.digest) {
        const renamed = wanted.name === one.name ? '' : ` (the log says: ${one.name})`;
        wrong.push(`${wanted.name}${renamed} is ${short(one.digest)}, not ${short(wanted.digest)}`);
      }
    } else if (wanted !== undefined) wrong.push(`${wanted.name} was not measured`);
    else if (one !== undefined) wrong.push(`${one.name} ${short(one.digest)} was measured besides`);
  }
  return wrong;
}

function short(digest: string): string {
  return digest.length > 16 ? `${digest.slice(0, 16)}…` : digest;
}
