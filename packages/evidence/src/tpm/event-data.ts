/**
 * Does an event's text or variable belong to its digest? Nobody signs the data of a log: a digest that is quoted says what was
 * measured, the data only what the log tells of it. Of some types the digest is that of the data (TCG PC Client PFP §10.4.1); of
 * the others (a kernel, an initramfs, a table) it is of something that is not in the log.
 */
import { concat, sameBytes, u32le } from '../bytes.ts';
import type { Checklist } from '../check.ts';
import type { Crypto, Hash } from '../crypto.ts';
import { ranges } from '../ranges.ts';
import { eventName } from './boot-events.ts';
import type { EventLog, LogEvent } from './event-log.ts';

/** EV_SEPARATOR, EV_ACTION, EV_S_CRTM_VERSION, EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_GPT_EVENT, EV_EFI_ACTION, EV_EFI_VARIABLE_AUTHORITY, EV_EFI_VARIABLE_BOOT2. */
const WHOLE: readonly number[] = [4, 5, 8, 0x80000001, 0x80000006, 0x80000007, 0x800000e0, 0x8000000c];
/** Its digest is of the variable's content alone, or of all, as the firmware likes. */
const VARIABLE_BOOT = 0x80000002;
const VARIABLE_HEAD = 32;
const IPL = 0x0d;
/** What GRUB measures of its own words: the text behind these, without its zero. */
const GRUB_WORDS = ['grub_cmd: ', 'kernel_cmdline: ', 'module_cmdline: '];
const TOLD = 4;

/** `undefined` where the digest is of something that is not in the log. */
export function isOfItsData(crypto: Crypto, { type, data, digests }: LogEvent, bank: Hash): boolean | undefined {
  const digest = digests[bank];
  if (digest === undefined) return undefined;
  const is = (bytes: Uint8Array) => sameBytes(crypto.hash(bank, bytes), digest);
  if (WHOLE.includes(type)) return is(data);
  if (type === VARIABLE_BOOT) return is(data) || is(variableContent(data));
  const words = type === IPL ? GRUB_WORDS.find((one) => beginsWith(data, one)) : undefined;
  if (words === undefined) return undefined;
  const end = data.indexOf(0, words.length);
  const text = data.subarray(words.length, end === -1 ? data.length : end);
  return is(text) || is(concat(text, Uint8Array.of(0)));
}

/** UEFI_VARIABLE_DATA: a GUID, the length of the name in characters and of the content in bytes, each of eight bytes. */
function variableContent(data: Uint8Array): Uint8Array {
  const [characters, size] = [u32le(data, 16), u32le(data, 24)];
  const start = VARIABLE_HEAD + characters * 2;
  return start + size <= data.length ? data.subarray(start, start + size) : new Uint8Array();
}

function beginsWith(data: Uint8Array, text: string): boolean {
  return data.length >= text.length && [...text].every((letter, i) => data[i] === letter.charCodeAt(0));
}

/** Rejects nothing: what is quoted are the digests, and firmware differs in what it measures. Says which names are not to be relied on. */
export function checkEventData(list: Checklist, crypto: Crypto, log: EventLog, bank: Hash): void {
  const judged = log.events.map((event) => ({ event, holds: isOfItsData(crypto, event, bank) }));
  const wrong = judged.filter(({ holds }) => holds === false).map(({ event }) => event);
  const good = judged.filter(({ holds }) => holds === true).length;
  if (good + wrong.length === 0) return;
  const expected = `${good + wrong.length} events whose data their ${bank} digest is of`;
  if (wrong.length === 0) {
    list.check('tpm.event-data', true, { expected, found: 'they are' });
    return;
  }
  const registers = [...new Set(wrong.map(({ register }) => register))].sort((a, b) => a - b);
  const told = wrong.slice(0, TOLD).map(eventName);
  list.note('tpm.event-data', {
    expected,
    found: `${wrong.length} are not, in register ${ranges(registers)}: ${told.join(', ')}${wrong.length > TOLD ? ', …' : ''}; what the log tells of them was not measured`,
  });
}
