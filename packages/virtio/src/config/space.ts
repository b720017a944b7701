/** Device configuration space as values: decode, encode, and read with the generation check. VIRTIO 1.4 §2.5. */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { featureBit } from '@airlock/core/virtio.ts';
import { type Features, hasFeature } from '../features.ts';
import type { ConfigField, DeviceType, QueueGroup } from './field.ts';

/** A number; bytes or elements of an array; two words, lowest first; text with everything unprintable escaped. */
export type ConfigValue = number | readonly number[] | string;
export type ConfigValues = Readonly<Record<string, ConfigValue>>;

/** The largest configuration space that a type can have: 9p's longest tag. */
export const CONFIG_SIZE_LIMIT = 4096;

/** Is the field there with these features? */
export function hasField(field: ConfigField, features: Features): boolean {
  if (field.unless !== undefined && negotiated(features, field.unless)) return false;
  return field.features === undefined || field.features.some((name) => negotiated(features, name));
}

function negotiated(features: Features, name: string): boolean {
  const bit = featureBit(name);
  return bit !== undefined && hasFeature(features, bit);
}

/** The fields that are there, in their order. */
export function presentFields(type: DeviceType, features: Features): ConfigField[] {
  return type.config.filter((field) => hasField(field, features));
}

/** Bytes that the fields of this type take, whatever features are negotiated; the longest form of a counted field. */
export function configSize(type: DeviceType): number {
  return type.config.reduce((most, field) => {
    const { count = 1 } = field;
    const longest = typeof count === 'number' ? count : (type.config.find((f) => f.name === count)?.max ?? 0);
    return Math.max(most, field.offset + field.width * longest);
  }, 0);
}

/**
 * Every field that the features promise, checked against its type's rules.
 * Codes: `config-too-short`, `config-value-invalid`.
 */
export function decodeConfig(type: DeviceType, features: Features, bytes: Uint8Array): Result<ConfigValues> {
  const values: Record<string, ConfigValue> = {};
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const field of presentFields(type, features)) {
    const count = countOf(field, values);
    if (field.offset + field.width * count > bytes.length) {
      return fail('config-too-short', `${type.name}: ${bytes.length} bytes end before ${field.name}`);
    }
    const value = decodeField(field, view, count);
    const wrong = checkValue(field, value);
    if (wrong !== null) return fail('config-value-invalid', `${type.name}: ${field.name} ${wrong}`);
    values[field.name] = value;
  }
  return ok(values);
}

function countOf(field: ConfigField, values: ConfigValues): number {
  const { count = 1 } = field;
  if (typeof count === 'number') return count;
  const named = values[count];
  return typeof named === 'number' ? named : 0;
}

function decodeField(field: ConfigField, view: DataView, count: number): ConfigValue {
  const { offset, width } = field;
  if (field.text) {
    const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, count);
    const end = bytes.indexOf(0);
    return asciiText(end < 0 ? bytes : bytes.subarray(0, end));
  }
  if (field.count !== undefined)
    return Array.from({ length: count }, (_, i) => readNumber(view, offset + i * width, width));
  if (field.words) return [view.getUint32(offset, true), view.getUint32(offset + 4, true)];
  return readNumber(view, offset, width);
}

function readNumber(view: DataView, at: number, width: 1 | 2 | 4 | 8): number {
  if (width === 1) return view.getUint8(at);
  if (width === 2) return view.getUint16(at, true);
  const low = view.getUint32(at, true);
  return width === 4 ? low : view.getUint32(at + 4, true) * 2 ** 32 + low;
}

/** What is wrong with a value, in words; null when nothing is. */
function checkValue(field: ConfigField, value: ConfigValue): string | null {
  if (typeof value === 'string') return value.includes('\n') ? 'has a line feed' : null;
  if (typeof value !== 'number') return null;
  if (!Number.isSafeInteger(value)) return `is ${value}, above 2^53`;
  if (field.min !== undefined && value < field.min) return `is ${value}, below ${field.min}`;
  if (field.max !== undefined && value > field.max) return `is ${value}, above ${field.max}`;
  if (field.powerOfTwo && !isPowerOfTwo(value)) return `is ${value}, not a power of two`;
  return null;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

/**
 * Device side: the bytes of a configuration space; a field without a value is zero. The space is as long as its last
 * field that is there. Codes: `config-field-unknown`, `config-value-invalid`.
 */
export function encodeConfig(type: DeviceType, features: Features, values: ConfigValues): Result<Uint8Array> {
  const unknown = Object.keys(values).find((name) => !type.config.some((field) => field.name === name));
  if (unknown !== undefined) return fail('config-field-unknown', `${type.name} has no field ${unknown}`);
  const present = presentFields(type, features);
  const end = present.reduce((most, field) => Math.max(most, field.offset + field.width * countOf(field, values)), 0);
  if (end > CONFIG_SIZE_LIMIT) return fail('config-value-invalid', `${type.name}: ${end} bytes`);
  const bytes = new Uint8Array(end);
  const view = new DataView(bytes.buffer);
  for (const field of present) {
    const value = values[field.name];
    if (value === undefined) continue;
    const count = countOf(field, values);
    const wrong = checkValue(field, value) ?? encodeField(field, view, count, value);
    if (wrong !== null) return fail('config-value-invalid', `${type.name}: ${field.name} ${wrong}`);
  }
  return ok(bytes);
}

function encodeField(field: ConfigField, view: DataView, count: number, value: ConfigValue): string | null {
  const { offset, width } = field;
  if (field.text) {
    if (typeof value !== 'string' || value.length > count) return `is no text of at most ${count} bytes`;
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code < 0x20 || code > 0x7e) return 'is not plain ASCII';
      view.setUint8(offset + i, code);
    }
    return null;
  }
  if (field.count !== undefined || field.words) {
    const length = field.words ? 2 : count;
    const step = field.words ? 4 : width;
    if (typeof value !== 'object' || value.length !== length) return `is no list of ${length}`;
    return value.every((one, i) => writeNumber(view, offset + i * step, step, one))
      ? null
      : 'has an element that does not fit';
  }
  return typeof value === 'number' && writeNumber(view, offset, width, value) ? null : `does not fit ${width} bytes`;
}

function writeNumber(view: DataView, at: number, width: 1 | 2 | 4 | 8, value: number): boolean {
  if (!Number.isSafeInteger(value) || value < 0 || value >= 2 ** (8 * width)) return false;
  if (width === 1) view.setUint8(at, value);
  else if (width === 2) view.setUint16(at, value, true);
  else {
    view.setUint32(at, value >>> 0, true);
    if (width === 8) view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  }
  return true;
}

/** A change that a driver asks for, as bytes at an offset. Codes: `config-field-unknown`, `config-field-absent`, `config-read-only`, `config-value-invalid`. */
export function encodeChange(
  type: DeviceType,
  features: Features,
  name: string,
  value: number,
): Result<{ readonly offset: number; readonly bytes: Uint8Array }> {
  const field = type.config.find((one) => one.name === name);
  if (field === undefined) return fail('config-field-unknown', `${type.name} has no field ${name}`);
  if (!hasField(field, features)) return fail('config-field-absent', `${type.name}: ${name}`);
  if (field.access === 'read') return fail('config-read-only', `${type.name}: ${name}`);
  const bytes = new Uint8Array(field.width);
  const wrong = checkValue(field, value);
  if (wrong !== null || !writeNumber(new DataView(bytes.buffer), 0, field.width, value)) {
    return fail('config-value-invalid', `${type.name}: ${name} ${wrong ?? 'does not fit'}`);
  }
  return ok({ offset: field.offset, bytes });
}

/**
 * Device side: does a write of `bytes` at `offset` touch only what the driver may write? Codes: `config-read-only`,
 * `config-too-short`.
 */
export function checkChange(type: DeviceType, features: Features, offset: number, length: number): Result<void> {
  const within = Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length > 0;
  if (!within || offset + length > configSize(type)) return fail('config-too-short', `${length} bytes at ${offset}`);
  const open = presentFields(type, features).some(
    (field) =>
      field.access !== 'read' &&
      field.count === undefined &&
      offset >= field.offset &&
      offset + length <= field.offset + field.width,
  );
  return open ? ok(undefined) : fail('config-read-only', `${type.name}: ${length} bytes at ${offset}`);
}

/**
 * The stretches of `length` bytes at `offset` that are the driver's to write, lowest first, those that touch as one: for
 * front-ends that hand on the whole structure when the driver wrote a byte of it.
 */
export function writableSpans(
  type: DeviceType,
  features: Features,
  offset: number,
  length: number,
): readonly { readonly offset: number; readonly length: number }[] {
  const spans: { offset: number; length: number }[] = [];
  const open = presentFields(type, features)
    .filter((field) => field.access !== 'read' && field.count === undefined)
    .filter((field) => field.offset >= offset && field.offset + field.width <= offset + length)
    .sort((a, b) => a.offset - b.offset);
  for (const field of open) {
    const before = spans.at(-1);
    if (before !== undefined && before.offset + before.length === field.offset) before.length += field.width;
    else spans.push({ offset: field.offset, length: field.width });
  }
  return spans;
}

/** How a transport reaches the configuration space of a device that it does not trust. */
export interface ConfigAccess {
  /** The configuration generation, where the transport has one; a constant otherwise. */
  generation(): number;
  read(offset: number, width: 1 | 2 | 4): number;
}

/** Tries before a device that keeps changing its configuration is given up. */
export const GENERATION_TRIES = 16;

/**
 * Driver side: reads every field once into private bytes, between two equal generations (§2.5.1), then decodes those.
 * Codes: `config-unstable`, and those of `decodeConfig`.
 */
export function readConfig(type: DeviceType, features: Features, access: ConfigAccess): Result<ConfigValues> {
  for (let tries = 0; tries < GENERATION_TRIES; tries++) {
    const before = access.generation();
    const bytes = readFields(type, features, access);
    if (access.generation() === before) return decodeConfig(type, features, bytes);
  }
  return fail('config-unstable', `${type.name}: the generation changed ${GENERATION_TRIES} times`);
}

function readFields(type: DeviceType, features: Features, access: ConfigAccess): Uint8Array {
  const bytes = new Uint8Array(Math.min(configSize(type), CONFIG_SIZE_LIMIT));
  const view = new DataView(bytes.buffer);
  const counts: Record<string, number> = {};
  for (const field of presentFields(type, features)) {
    // A count above its limit is refused when it is decoded; here it only must not lead outside.
    const most = Math.floor((bytes.length - field.offset) / field.width);
    const count = Math.min(countOf(field, counts), most);
    const width = field.width === 8 ? 4 : field.width;
    const units = (count * field.width) / width;
    for (let i = 0; i < units; i++) {
      const at = field.offset + i * width;
      const value = access.read(at, width);
      if (!writeNumber(view, at, width, value)) writeNumber(view, at, width, 2 ** (8 * width) - 1);
    }
    if (field.count === undefined) counts[field.name] = readNumber(view, field.offset, field.width);
  }
  return bytes;
}

/** No transport numbers more queues than this. */
const QUEUES_LIMIT = 65536;

/**
 * Names of the virtqueues in the order of their numbers, as every implementation has them: a queue whose feature was
 * not negotiated takes no number. Code: `config-value-invalid`.
 */
export function queueNames(type: DeviceType, features: Features, values: ConfigValues): Result<string[]> {
  const names: string[] = [];
  for (const group of type.queues) {
    if (group.feature !== undefined && !negotiated(features, group.feature)) continue;
    const times = timesOf(group, features, values);
    if (!Number.isInteger(times) || times < 0 || names.length + times * group.names.length > QUEUES_LIMIT) {
      return fail('config-value-invalid', `${type.name}: ${group.count ?? ''} asks for ${times} groups of queues`);
    }
    for (let i = 0; i < times; i++) {
      for (const name of group.names) names.push(name.replace('{n}', String((group.from ?? 1) + i)));
    }
  }
  return ok(names);
}

function timesOf(group: QueueGroup, features: Features, values: ConfigValues): number {
  if (group.count === undefined) return 1;
  if (group.countFeatures !== undefined && !group.countFeatures.some((name) => negotiated(features, name))) return 1;
  const count = values[group.count];
  return typeof count === 'number' ? count - (group.less ?? 0) : Number.NaN;
}
