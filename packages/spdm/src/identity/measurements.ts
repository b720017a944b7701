/** Measurements against reference values: every compared value is named, and so is what was not compared. */
import { asciiText, hex } from '@airlock/core/bytes.ts';
import { sameBytes, u32le } from '@airlock/evidence/bytes.ts';
import type { Checklist } from '@airlock/evidence/check.ts';
import { HASHES, type HashName } from '../algorithms.ts';
import type { SpdmCrypto } from '../crypto.ts';
import type { MeasurementBlock } from '../messages/measurements.ts';
import type { ReferenceRule, ReferenceSet, ReferenceValue } from './references.ts';

export interface MeasurementsInput {
  readonly crypto: SpdmCrypto;
  readonly blocks: readonly MeasurementBlock[];
  /** What digests were made with; null where the device measures raw values only. */
  readonly hash: HashName | null;
  readonly references: readonly ReferenceSet[];
}

export interface Compared {
  readonly index: number;
  readonly type: string;
  /** Names of the reference values that it has. */
  readonly matched: readonly string[];
  /** In hex, long ones cut. */
  readonly value: string;
  readonly status: 'matched' | 'different' | 'unlisted';
}

export interface MeasurementsResult {
  readonly compared: readonly Compared[];
  /** Names of reference values that no measurement was compared with. */
  readonly unused: readonly string[];
}

const SHOWN = 64;

/** `measurement 1, immutable-rom` */
export function blockName({ index, type }: MeasurementBlock): string {
  return `measurement ${index}, ${type}`;
}

function shown(bytes: Uint8Array): string {
  return bytes.length <= SHOWN ? hex(bytes) : `${hex(bytes.subarray(0, SHOWN))}… (${bytes.length} bytes)`;
}

/**
 * Adds `measurement.*` checks. Where several reference values are for one measurement, one of them is enough: they are
 * the versions that somebody vouches for.
 */
export function checkMeasurements(list: Checklist, input: MeasurementsInput): MeasurementsResult {
  const { blocks, references } = input;
  const used = new Set<ReferenceValue>();
  const compared: Compared[] = [];
  for (const block of blocks) {
    const fitting = references
      .flatMap(({ values }) => values)
      .filter(({ index, type }) => index === block.index && (type === null || type === block.type));
    for (const value of fitting) used.add(value);
    const subject = blockName(block);
    const { index, type } = block;
    const value = shown(block.value);
    if (fitting.length === 0) {
      compared.push({ index, type, matched: [], value, status: 'unlisted' });
      continue;
    }
    const matched = fitting.filter(({ rules }) => rules.every((rule) => holds(input, block, rule)));
    list.check('measurement.value', matched.length > 0, {
      subject,
      expected: fitting.map((value) => `${value.name}: ${value.rules.map(ruleText).join(' and ')}`).join(' or '),
      found: `${block.raw ? 'raw ' : `${input.hash ?? 'digest'} `}${shown(block.value)}`,
    });
    const names = matched.map(({ name }) => name);
    compared.push({ index, type, matched: names, value, status: matched.length > 0 ? 'matched' : 'different' });
  }
  checkUnlisted(list, input, compared);
  const unused = checkPresence(list, references, used, blocks);
  return { compared, unused };
}

function checkUnlisted(list: Checklist, { references }: MeasurementsInput, compared: readonly Compared[]): void {
  const unlisted = compared.filter(({ status }) => status === 'unlisted');
  const detail = {
    expected: 'a reference value for each measurement',
    found: unlisted.length === 0 ? 'each has one' : `none for ${unlisted.map(({ index }) => index).join(', ')}`,
  };
  if (references.length === 0)
    list.unchecked('measurement.value', {
      expected: 'a reference value',
      found: 'none was given',
      hint: 'genuine devices run any firmware: compare the measurements with what their maker publishes',
    });
  // One set that does not vouch for everything and says so is enough to leave the rest open.
  else if (unlisted.length > 0 && references.every(({ unlisted: what }) => what === 'note'))
    list.note('measurement.listed', detail);
  else list.check('measurement.listed', unlisted.length === 0, detail);
}

function checkPresence(
  list: Checklist,
  references: readonly ReferenceSet[],
  used: ReadonlySet<ReferenceValue>,
  blocks: readonly MeasurementBlock[],
): readonly string[] {
  const unused = references.flatMap(({ values }) => values).filter((value) => !used.has(value));
  if (references.length === 0) return [];
  const absent = unused.filter(({ index }) => !blocks.some((block) => block.index === index));
  list.check('measurement.present', absent.length === 0, {
    expected: 'a measurement for each reference value',
    found:
      absent.length === 0
        ? 'each has one'
        : `none for ${absent.map(({ name, index }) => `${name} (${index})`).join(', ')}`,
  });
  const others = unused.filter((value) => !absent.includes(value));
  const detail = {
    expected: 'every reference value is compared',
    found:
      others.length === 0
        ? 'every one that a measurement is there for'
        : `not ${others.map(({ name }) => name).join(', ')}: another type stands there`,
  };
  // Nothing that the device measured is the worse for it: told, and no reason to refuse.
  if (others.length === 0) list.check('measurement.references-used', true, detail);
  else list.note('measurement.references-used', detail);
  return unused.map(({ name }) => name);
}

function holds({ crypto, hash }: MeasurementsInput, block: MeasurementBlock, rule: ReferenceRule): boolean {
  switch (rule.kind) {
    case 'digest':
      return rule.digests.some(({ algorithm, value }) => {
        const name = algorithm ?? hash;
        // A digest in another algorithm of the same length is another thing.
        if (!block.raw) return name === hash && sameBytes(value, block.value);
        const digest = digestOf(crypto, name, block.value);
        return digest !== undefined && sameBytes(value, digest);
      });
    case 'raw':
      return block.raw && sameUnder(rule.mask, rule.value, block.value);
    case 'number': {
      const found = block.raw ? numberOf(block.value) : undefined;
      return found !== undefined && (rule.least ? found >= rule.number : found === rule.number);
    }
  }
}

function digestOf(crypto: SpdmCrypto, name: string | null, value: Uint8Array): Uint8Array | undefined {
  const algorithm = HASHES.find((one) => one === name);
  return algorithm === undefined ? undefined : crypto.hash(algorithm, value);
}

function sameUnder(mask: Uint8Array | null, expected: Uint8Array, found: Uint8Array): boolean {
  if (expected.length !== found.length) return false;
  return expected.every((byte, at) => ((byte ^ (found[at] ?? 0)) & (mask?.[at] ?? 0xff)) === 0);
}

/** A secure version number has eight bytes, least significant first; others may be shorter. */
function numberOf(value: Uint8Array): bigint | undefined {
  if (value.length === 0 || value.length > 8) return undefined;
  let number = 0n;
  for (let at = value.length - 1; at >= 0; at--) number = (number << 8n) | BigInt(value[at] ?? 0);
  return number;
}

function ruleText(rule: ReferenceRule): string {
  switch (rule.kind) {
    case 'digest': {
      const [first] = rule.digests;
      return rule.digests.length === 1 && first !== undefined
        ? shown(first.value)
        : `one of ${rule.digests.length} digests`;
    }
    case 'raw':
      return rule.mask === null ? shown(rule.value) : `${shown(rule.value)} under ${shown(rule.mask)}`;
    case 'number':
      return rule.least ? `at least ${rule.number}` : String(rule.number);
  }
}

export interface DeviceMode {
  /** Modes in which the device could be, and in which it is. */
  readonly operational: readonly string[];
  readonly debug: readonly string[];
}

const OPERATIONAL = ['manufacturing', 'validation', 'normal', 'recovery', 'return', 'decommissioned'] as const;
const DEBUG = [
  'non-invasive debug is active',
  'invasive debug is active',
  'non-invasive debug was active since the last reset',
  'invasive debug was active since the last reset',
  'invasive debug was active at least once since manufacturing',
] as const;
const MODE_SIZE = 16;

/** Capabilities and state of two kinds of modes, DSP0274 1.3 §10.11.1; `undefined` for another size. */
export function readDeviceMode(value: Uint8Array): DeviceMode | undefined {
  if (value.length !== MODE_SIZE) return undefined;
  const names = (all: readonly string[], bits: number) => {
    const known = all.filter((_, bit) => ((bits >>> bit) & 1) === 1);
    return bits >>> all.length === 0 ? known : [...known, `0x${((bits >>> all.length) << all.length).toString(16)}`];
  };
  return { operational: names(OPERATIONAL, u32le(value, 4)), debug: names(DEBUG, u32le(value, 12)) };
}

/** Adds `measurement.device-mode` for each block in which the device measures it; a digest of it tells nothing. */
export function checkDeviceMode(list: Checklist, blocks: readonly MeasurementBlock[]): void {
  for (const block of blocks.filter(({ type }) => type === 'device-mode')) {
    const subject = blockName(block);
    if (!block.raw) {
      list.unchecked('measurement.device-mode', {
        subject,
        expected: 'device mode as a value',
        found: `a digest, ${shown(block.value)}`,
        hint: 'ask for values in place of digests: airlock device attest --raw',
      });
      continue;
    }
    const mode = readDeviceMode(block.value);
    const normal = mode !== undefined && mode.operational.join() === 'normal' && mode.debug.length === 0;
    list.check('measurement.device-mode', normal, {
      subject,
      expected: 'normal operation, no debug',
      found:
        mode === undefined
          ? `${block.value.length} bytes: ${asciiText(block.value.subarray(0, 32))}`
          : [`operation: ${mode.operational.join(', ') || 'not told'}`, ...mode.debug].join('; '),
    });
  }
}
