/** A device of ours as somebody asks for it: `block,transport=vfio-user,file=disk.img`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { nearest } from '@airlock/core/nearest.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import { TRANSPORTS } from '@airlock/device/serve-transport.ts';
import type { ServedType } from '@airlock/device/serve-type.ts';
import { SERVED_TYPES } from '@airlock/device/serve-types.ts';
import type { KernelSeries } from './cache.ts';
import { DEVICE_CASES } from './device-cases.ts';

export interface DeviceOrder {
  readonly type: VirtioTypeName;
  readonly transport: string;
  /** Options of the type, as its `prepare` takes them. */
  readonly values: Readonly<Record<string, string | boolean | readonly string[]>>;
  /** vfio-user: the VMM emulates MSI-X. */
  readonly plain: boolean;
}

/** What is taken when nothing is said: with it every type is a whole PCI function of its own. */
const DEFAULT_TRANSPORT = 'vfio-user';
/** What the kernel lets through. */
const VDUSE_TYPES: readonly string[] = ['block', 'net'];

/** `a,b=c,,d` → `a`, `b=c,d`: a comma in a value is doubled, as QEMU has it. */
function words(text: string): string[] {
  return text
    .replaceAll(',,', '\0')
    .split(',')
    .map((word) => word.replaceAll('\0', ','));
}

/**
 * `text` as an order for a guest of that kernel. Everything that can be known to be wrong before a guest boots is refused
 * here. Code: `device-option-invalid`, with the nearest word and the list.
 */
export async function readDeviceOrder(text: string, series: KernelSeries): Promise<Result<DeviceOrder>> {
  const [name = '', ...rest] = words(text);
  const load = Object.hasOwn(SERVED_TYPES, name) ? SERVED_TYPES[name] : undefined;
  if (load === undefined || !isType(name)) return unknown('', 'type', name, Object.keys(SERVED_TYPES));
  const { served } = await load();
  let transport = DEFAULT_TRANSPORT;
  let plain = false;
  const values: Record<string, string | boolean | readonly string[]> = {};
  for (const word of rest) {
    const at = word.indexOf('=');
    const key = at === -1 ? word : word.slice(0, at);
    const value = at === -1 ? null : word.slice(at + 1);
    const own = key === 'transport' || key === 'plain';
    const option = own ? null : Object.hasOwn(served.options, key) ? served.options[key] : undefined;
    if (option === undefined)
      return unknown(`${name}: `, 'option', key, ['transport', 'plain', ...Object.keys(served.options)]);
    const flag = key === 'plain' || option?.type === 'boolean';
    if (flag && value !== null) return invalid(`${name}: ${key} takes no value`);
    if (!flag && (value === null || value === '')) return invalid(`${name}: ${key}= needs a value`);
    const before = values[key];
    if (before !== undefined && option?.multiple !== true) return invalid(`${name}: ${key} stands twice`);
    if (key === 'plain') plain = true;
    else if (key === 'transport') transport = value ?? '';
    else if (option?.multiple === true) values[key] = [...(Array.isArray(before) ? before : []), value ?? ''];
    else values[key] = value ?? true;
  }
  const order = { type: name, transport, values, plain };
  const fits = checkTransport(order, served, series);
  if (!fits.ok) return fits;
  // What it gets to play with is made for a moment only, to see whether all of it goes together.
  const folder = mkdtempSync(join(tmpdir(), 'airlock-order-'));
  try {
    const whole = await servedValues(order, folder);
    const prepared = whole.ok ? served.prepare(whole.value) : whole;
    return prepared.ok ? ok(order) : invalid(plainWords(name, prepared.error));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * The values to serve with: those of the order, and where the type does not go with them alone, also something to play
 * with, made in `folder`. Code: `device-option-invalid`.
 */
export async function servedValues(order: DeviceOrder, folder: string): Promise<Result<DeviceOrder['values']>> {
  const load = SERVED_TYPES[order.type];
  if (load === undefined) return unknown('', 'type', order.type, Object.keys(SERVED_TYPES));
  const { served } = await load();
  if (served.prepare(order.values).ok) return ok(order.values);
  const options = Object.fromEntries(
    Object.entries(served.options).map(([name, { type, multiple }]) => [
      name,
      multiple ? { type, multiple } : { type },
    ]),
  );
  const args = [...(DEVICE_CASES.find(({ type }) => type === order.type)?.options(folder) ?? [])];
  const toPlayWith = parseArgs({ args, options }).values as DeviceOrder['values'];
  return ok({ ...toPlayWith, ...order.values });
}

function checkTransport(
  { type, transport, plain }: DeviceOrder,
  served: ServedType,
  series: KernelSeries,
): Result<void> {
  if (!Object.hasOwn(TRANSPORTS, transport))
    return unknown(`${type}: `, 'transport', transport, Object.keys(TRANSPORTS));
  if (plain && transport !== 'vfio-user') return invalid(`${type}: plain means nothing to ${transport}`);
  if (transport === 'vduse') {
    if (series === '6.1') return invalid(`${type}: Debian's Linux 6.1 has no VDUSE; --kernel 6.12 and 7.2 have`);
    if (!VDUSE_TYPES.includes(type))
      return invalid(
        `${type}: the kernel takes only ${VDUSE_TYPES.join(' and ')} over VDUSE; transport=vfio-user takes every type`,
      );
  }
  const why = served.not?.[transport];
  return why === undefined ? ok(undefined) : invalid(`${type} over ${transport}: ${why}; transport=vfio-user takes it`);
}

function isType(name: string): name is VirtioTypeName {
  return Object.hasOwn(VIRTIO_TYPES, name);
}

function unknown(whose: string, what: string, word: string, known: readonly string[]): Result<never> {
  const near = nearest(word, known);
  const list = `one of ${known.join(', ')}`;
  return invalid(
    `${whose}${word === '' ? `which ${what}?` : `${word} is no ${what}${near === undefined ? ';' : `, did you mean ${near}?`}`} ${list}`,
  );
}

function invalid(message: string): Result<never> {
  return fail('device-option-invalid', message);
}

/** What a type says of its options is said of `--OPTION VALUE`; here it is `OPTION=VALUE`. */
function plainWords(type: string, { message, hint }: Problem): string {
  return `${type}: ${message}${hint === undefined ? '' : `; ${hint}`}`.replace(/--([a-z][a-z0-9-]*) (?=\S)/g, '$1=');
}
