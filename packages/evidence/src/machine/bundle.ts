/** The evidence of one machine in one JSON document: what `airlock evidence collect` writes and `airlock verify` reads. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromBase64, fromHex, toBase64 } from '../bytes.ts';
import { isObject, type JsonObject, readJson } from '../json.ts';
import { type BoundInterface, DEVICE_LIMIT, INTERFACE_STATES, NAME_LIMIT, NONCE_LEAST, NONCE_MOST } from './binding.ts';

export const BUNDLE_FORMAT = 'airlock-machine-evidence';

export const BUNDLE_DEVICE_KINDS = ['nvidia', 'spdm'] as const;
export type BundleDeviceKind = (typeof BUNDLE_DEVICE_KINDS)[number];

/** A piece of the VM's own evidence, in whatever form `recognise` knows: report, quote, log, certificates. */
export interface BundlePart {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export interface BundleDevice {
  readonly name: string;
  readonly kind: BundleDeviceKind;
  readonly evidence: Uint8Array;
  /** Certificates in PEM or DER; empty where the evidence holds them. */
  readonly certificates: Uint8Array;
  readonly interface: BoundInterface | null;
}

export interface MachineBundle {
  /** The verifier's; null where evidence was collected without one, and is bound to nothing fresh. */
  readonly nonce: Uint8Array | null;
  readonly vm: readonly BundlePart[];
  readonly devices: readonly BundleDevice[];
}

const PART_LIMIT = 64;
const NAME = /^[\x21-\x7e]{1,64}$/;

export function writeBundle({ nonce, vm, devices }: MachineBundle): string {
  return `${JSON.stringify(
    {
      format: BUNDLE_FORMAT,
      version: 1,
      nonce: nonce === null ? null : [...nonce].map((byte) => byte.toString(16).padStart(2, '0')).join(''),
      vm: vm.map(({ name, bytes }) => ({ name, data: toBase64(bytes) })),
      devices: devices.map((device) => ({
        name: device.name,
        kind: device.kind,
        evidence: toBase64(device.evidence),
        certificates: toBase64(device.certificates),
        interface:
          device.interface === null
            ? null
            : {
                state: device.interface.state,
                'lock-nonce': device.interface.lockNonce === null ? null : toBase64(device.interface.lockNonce),
                report: toBase64(device.interface.report),
              },
      })),
    },
    null,
    2,
  )}\n`;
}

/**
 * A document that says it is one, wherever and however it says so: taken for something else, its parts would be judged
 * without what binds them. Whether it is whole is `readBundle`'s to say.
 */
export function isBundle(text: string): boolean {
  if (text.includes(BUNDLE_FORMAT)) return true;
  const json = text.includes('\\u') ? readJson(text) : null;
  return json?.ok === true && saysBundle(json.value.value);
}

/**
 * As `isBundle`, of JSON that was read; also what has the parts or the devices of one and does not say so: somebody took
 * its name away.
 */
export function saysBundle(value: unknown): boolean {
  if (!isObject(value)) return false;
  const whole = (list: unknown, members: readonly string[]) =>
    Array.isArray(list) &&
    list.length > 0 &&
    list.every((one) => isObject(one) && members.every((name) => typeof one[name] === 'string'));
  return (
    value['format'] === BUNDLE_FORMAT ||
    whole(value['vm'], ['name', 'data']) ||
    whole(value['devices'], ['name', 'kind', 'evidence'])
  );
}

/** Strict: unknown members, names that stand twice and wrong sizes are refused. Codes: `bundle-invalid`, `json-invalid`. */
export function readBundle(text: string): Result<MachineBundle> {
  const wrong = (what: string) => fail('bundle-invalid', what);
  const json = readJson(text);
  if (!json.ok) return json;
  const { value } = json.value;
  if (!isObject(value) || value['format'] !== BUNDLE_FORMAT || value['version'] !== 1)
    return wrong(`not ${BUNDLE_FORMAT}, version 1`);
  const stray = strayOf(value, ['format', 'version', 'nonce', 'vm', 'devices']);
  if (stray !== undefined) return wrong(`unknown member ${stray}`);
  const nonce =
    value['nonce'] === null ? null : typeof value['nonce'] === 'string' ? fromHex(value['nonce']) : undefined;
  if (nonce === undefined || (nonce !== null && (nonce.length < NONCE_LEAST || nonce.length > NONCE_MOST)))
    return wrong(`nonce is null or ${NONCE_LEAST} to ${NONCE_MOST} bytes in hex`);
  const [vmList, deviceList] = [value['vm'], value['devices']];
  if (!Array.isArray(vmList) || vmList.length > PART_LIMIT) return wrong(`vm is a list of at most ${PART_LIMIT}`);
  if (!Array.isArray(deviceList) || deviceList.length > DEVICE_LIMIT)
    return wrong(`devices is a list of at most ${DEVICE_LIMIT}`);
  const vm: BundlePart[] = [];
  for (const [i, one] of (vmList as readonly unknown[]).entries()) {
    const bytes = isObject(one) ? base64Of(one['data']) : undefined;
    if (!isObject(one) || strayOf(one, ['name', 'data']) !== undefined || !isName(one['name']) || bytes === undefined)
      return wrong(`vm[${i}] is not a name and data`);
    vm.push({ name: one['name'], bytes });
  }
  const devices: BundleDevice[] = [];
  for (const [i, one] of (deviceList as readonly unknown[]).entries()) {
    const device = readDevice(one);
    if (typeof device === 'string') return wrong(`devices[${i}]: ${device}`);
    if (devices.some(({ name }) => name === device.name)) return wrong(`devices[${i}]: ${device.name} stands twice`);
    devices.push(device);
  }
  return ok({ nonce, vm, devices });
}

/** Or what is wrong with it. */
function readDevice(one: unknown): BundleDevice | string {
  if (!isObject(one)) return 'no object';
  const stray = strayOf(one, ['name', 'kind', 'evidence', 'certificates', 'interface']);
  if (stray !== undefined) return `unknown member ${stray}`;
  const kind = BUNDLE_DEVICE_KINDS.find((known) => known === one['kind']);
  const evidence = base64Of(one['evidence']);
  const certificates = base64Of(one['certificates']);
  if (!isName(one['name'])) return `name is printable ASCII without blanks, at most ${NAME_LIMIT}`;
  if (kind === undefined) return `kind is one of ${BUNDLE_DEVICE_KINDS.join(', ')}`;
  if (evidence === undefined || certificates === undefined) return 'evidence or certificates is not base64';
  const stated = one['interface'];
  if (stated === null) return { name: one['name'], kind, evidence, certificates, interface: null };
  if (!isObject(stated) || strayOf(stated, ['state', 'lock-nonce', 'report']) !== undefined) return 'interface';
  const state = INTERFACE_STATES.find((known) => known === stated['state']);
  const lockNonce = stated['lock-nonce'] === null ? null : base64Of(stated['lock-nonce']);
  const report = base64Of(stated['report']);
  const nonceFits = lockNonce === null || lockNonce?.length === 32;
  if (state === undefined || lockNonce === undefined || !nonceFits || report === undefined || report.length > 0xffff)
    return 'interface: state, a lock nonce of 32 bytes or null, and a report';
  return { name: one['name'], kind, evidence, certificates, interface: { state, lockNonce, report } };
}

function strayOf(value: JsonObject, known: readonly string[]): string | undefined {
  const stray = Object.keys(value).find((name) => !known.includes(name));
  return stray?.replace(/[^\x21-\x7e]/g, '?').slice(0, 40);
}

function isName(name: unknown): name is string {
  return typeof name === 'string' && NAME.test(name);
}

function base64Of(value: unknown): Uint8Array | undefined {
  return typeof value === 'string' ? fromBase64(value) : undefined;
}
