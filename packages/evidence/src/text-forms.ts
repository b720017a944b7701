/** The texts that bytes travel in: with and without separators, as dumps, and the encodings that text itself comes in. */
import { fromBase64, fromHex, latin1 } from './bytes.ts';

const DUMP_LINE = /^([0-9a-f]{6,16})(?::| {1,2}|$)(.*)$/i;
const TOKEN = /^[\w-]+\.([\w-]+)\.[\w-]*$/;
const DATA_URI = /^data:[\w/.+;=-]{0,128};base64,/i;
/** A dump's line of stars stands for lines like the one before. */
const REPEATED = '*';
const LEAST_REPEATED = 8;
const DUMP_LIMIT = 8 * 1024 * 1024;

/** Text as one character a byte; null where it is none. UTF-16 and UTF-8 with their marks, as Windows writes them; what is not ASCII is `?` there. */
export function textOf(bytes: Uint8Array): string | null {
  const [a, b, c] = bytes;
  if (a === 0xef && b === 0xbb && c === 0xbf) return textOf(bytes.subarray(3));
  const little = a === 0xff && b === 0xfe;
  if ((little || (a === 0xfe && b === 0xff)) && bytes.length % 2 === 0) {
    const narrow = new Uint8Array(bytes.length / 2 - 1);
    for (let i = 0; i < narrow.length; i++) {
      const [low, high] = little ? [bytes[2 + i * 2], bytes[3 + i * 2]] : [bytes[3 + i * 2], bytes[2 + i * 2]];
      narrow[i] = high === 0 && (low ?? 0) < 0x80 ? (low ?? 0) : 0x3f;
    }
    return isText(narrow) ? latin1(narrow) : null;
  }
  // UTF-8 may stand in JSON; what matters of it is ASCII.
  return isText(bytes) ? latin1(bytes) : null;
}

function isText(bytes: Uint8Array): boolean {
  return !bytes.subarray(0, 4096).some((byte) => byte < 0x09 || (byte > 0x0d && byte < 0x20));
}

/**
 * Hex (also `12:34`, `0x12, 0x34`, `\x12\x34`, as an array of C), base64, base64url, a data URI, and
 * the middle of a JWT; `undefined` for anything else.
 */
export function bytesOfText(text: string): Uint8Array | undefined {
  const token = TOKEN.exec(text)?.[1];
  if (token !== undefined) return fromBase64(token);
  const bare = text.replace(DATA_URI, '').replace(/[\r\n\t ]+/g, '');
  return fromHex(bare) ?? fromBase64(bare) ?? separated(text);
}

function separated(text: string): Uint8Array | undefined {
  // Only where every pair stands alone: digits that are cut elsewhere are something else.
  if (!/^[\s{[(]*(?:0x|\\x)?[0-9a-f]{2}[\s:,;\\-]/i.test(text)) return undefined;
  return fromHex(text.replace(/0x|\\x/gi, '').replace(/[\s:,;{}()[\]\\-]+/g, ''));
}

/**
 * What xxd and `hexdump -C` print; `undefined` for anything else. A dump can say in few letters that a line is repeated for
 * megabytes: who reads many texts of one file does not ask for dumps.
 */
export function bytesOfDump(text: string): Uint8Array | undefined {
  const lines = text.split(/\r?\n/);
  if (DUMP_LINE.exec(lines[0] ?? '') === null) return undefined;
  const parts: Uint8Array[] = [];
  let length = 0;
  let repeating = false;
  for (const line of lines) {
    if (line.trim() === REPEATED) {
      repeating = true;
      continue;
    }
    if (line.trim() === '') continue;
    const match = DUMP_LINE.exec(line);
    const offset = Number.parseInt(match?.[1] ?? '', 16);
    if (match === null || offset > DUMP_LIMIT) return undefined;
    const last = parts[parts.length - 1];
    while (repeating && last !== undefined && last.length >= LEAST_REPEATED && length + last.length <= offset) {
      parts.push(last);
      length += last.length;
    }
    repeating = false;
    // Every line says where it stands: one that is missing is seen.
    if (offset !== length) return undefined;
    const bytes = dumpLine(match[2] ?? '');
    if (bytes === undefined) return undefined;
    parts.push(bytes);
    length += bytes.length;
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const HEXDUMP = /^ ?((?:[0-9a-f]{2} {1,2}){1,32}) *\|.*\|$/i;
const XXD = /^ ?((?:[0-9a-f]{2}){1,8}(?: (?:[0-9a-f]{2}){1,8}){0,63})(?: {2}|$)/i;

/** `7076 6174 …  pvat…` of xxd, `70 76 61 74  00 …  |pvat…|` of hexdump. */
function dumpLine(rest: string): Uint8Array | undefined {
  if (rest.trim() === '') return new Uint8Array();
  const digits = HEXDUMP.exec(rest.trimEnd())?.[1] ?? XXD.exec(rest)?.[1];
  return digits === undefined ? undefined : fromHex(digits.replace(/ +/g, ''));
}

/** Each line a document of its own; null where it is not so. */
export function jsonLines(text: string): readonly string[] | null {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  return lines.length > 1 && lines.every((line) => /^\s*\{.*\}\s*$/.test(line)) ? lines : null;
}

/** `{"0":1,"1":2,…}`: what JavaScript makes of bytes that are written as JSON. */
export function numberedBytes(value: Readonly<Record<string, unknown>>, least: number): Uint8Array | undefined {
  if (!Object.hasOwn(value, '0') || !Object.hasOwn(value, String(least - 1))) return undefined;
  const names = Object.keys(value);
  const bytes = new Uint8Array(names.length);
  for (let i = 0; i < names.length; i++) {
    const byte = value[String(i)];
    if (typeof byte !== 'number' || !Number.isInteger(byte) || byte < 0 || byte > 255) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
