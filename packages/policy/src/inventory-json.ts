/** Recorded inventories and claims, read back from JSON that somebody may have edited. */
import type { Claim, Claims } from '@airlock/core/claim.ts';
import { BUSES, type Device, type Inventory, type KernelFacts, TRANSPORTS } from '@airlock/core/device.ts';
import { IDENTITY_TIERS } from '@airlock/core/level.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const DEVICE_LIMIT = 65_536;

type Kind = 'text' | 'number' | 'list' | 'texts' | 'object';

/** What a decision reads of a device. Keys that this version does not know are kept: newer inventories have more. */
const DEVICE_FIELDS: Readonly<
  Record<string, { readonly kind: Kind; readonly needed?: true; readonly nullable?: true }>
> = {
  id: { kind: 'text', needed: true },
  bus: { kind: 'text', needed: true },
  transport: { kind: 'text', needed: true, nullable: true },
  location: { kind: 'text', needed: true },
  path: { kind: 'text' },
  nodes: { kind: 'list' },
  type: { kind: 'text', needed: true, nullable: true },
  virtioId: { kind: 'number' },
  vendor: { kind: 'number' },
  device: { kind: 'number' },
  subsystem: { kind: 'object', nullable: true },
  class: { kind: 'number', nullable: true },
  revision: { kind: 'number', nullable: true },
  serial: { kind: 'text', nullable: true },
  origin: { kind: 'text' },
  sriov: { kind: 'object', nullable: true },
  features: { kind: 'object' },
  iommu: { kind: 'object', nullable: true },
  interfaces: { kind: 'texts' },
  faults: { kind: 'list' },
};

const KERNEL_DEFAULTS: KernelFacts = {
  release: '',
  arch: '',
  confidential: null,
  autoprobe: {},
  modulesDisabled: false,
  lockdown: null,
  swiotlb: 'off',
  cmdline: '',
};

const KERNEL_FIELDS: Readonly<Record<keyof KernelFacts, (value: unknown) => boolean>> = {
  release: isText,
  arch: isText,
  confidential: (value) =>
    value === null || ['sev', 'sev-es', 'sev-snp', 'tdx', 'cca', 'secure-execution'].includes(String(value)),
  autoprobe: isObject,
  modulesDisabled: (value) => typeof value === 'boolean',
  lockdown: (value) => value === null || ['none', 'integrity', 'confidentiality'].includes(String(value)),
  swiotlb: (value) => ['off', 'auto', 'force'].includes(String(value)),
  cmdline: isText,
};

/** An inventory as `airlock list --json` prints it. Code: `inventory-malformed`, whose message names the field. */
export function decodeInventory(value: unknown): Result<Inventory> {
  if (!isObject(value)) return malformed('not an object');
  if (value['version'] !== 1) return malformed('version is not 1');
  if (!Array.isArray(value['devices'])) return malformed('devices is not a list');
  if (value['devices'].length > DEVICE_LIMIT) return malformed(`more than ${DEVICE_LIMIT} devices`);
  const kernel = value['kernel'];
  if (!isObject(kernel)) return malformed('kernel is not an object');
  for (const [name, accepts] of Object.entries(KERNEL_FIELDS)) {
    if (kernel[name] !== undefined && !accepts(kernel[name])) return malformed(`kernel.${name} is none that is known`);
  }
  const devices: Device[] = [];
  const ids = new Set<string>();
  for (const [index, one] of value['devices'].entries()) {
    const device = decodeDevice(one, `devices[${index}]`);
    if (!device.ok) return device;
    if (ids.has(device.value.id)) return malformed(`two devices are ${JSON.stringify(device.value.id.slice(0, 80))}`);
    ids.add(device.value.id);
    devices.push(device.value);
  }
  return ok({ version: 1, kernel: { ...KERNEL_DEFAULTS, ...(kernel as Partial<KernelFacts>) }, devices });
}

/** One device; `where` begins the message of what is wrong. Lists that are missing are taken as empty. */
export function decodeDevice(value: unknown, where: string): Result<Device> {
  if (!isObject(value)) return malformed(`${where} is not an object`);
  for (const [name, field] of Object.entries(DEVICE_FIELDS)) {
    const one = value[name];
    if (one === undefined) {
      if (field.needed) return malformed(`${where}.${name} is missing`);
    } else if (one === null ? !field.nullable : !isKind(one, field.kind)) {
      return malformed(`${where}.${name} is not ${field.kind === 'texts' ? 'a list of text' : field.kind}`);
    }
  }
  const oneOf = (name: string, words: readonly unknown[]) =>
    words.includes(value[name]) ? undefined : malformed(`${where}.${name} is none that is known`);
  const wrong =
    oneOf('bus', BUSES) ??
    oneOf('transport', [null, ...TRANSPORTS]) ??
    oneOf('origin', [undefined, 'boot', 'hotplug']) ??
    wrongParts(value, where);
  if (wrong !== undefined) return wrong;
  const device: Record<string, unknown> = { path: '', nodes: [], interfaces: [], faults: [], ...value };
  return ok(device as unknown as Device);
}

function wrongParts(value: Readonly<Record<string, unknown>>, where: string): Result<never> | undefined {
  const { subsystem, sriov, features, iommu } = value;
  if (isObject(subsystem) && !(isId(subsystem['vendor']) && isId(subsystem['device']))) {
    return malformed(`${where}.subsystem needs the numbers vendor and device`);
  }
  if (isObject(sriov) && sriov['role'] !== 'physical' && sriov['role'] !== 'virtual') {
    return malformed(`${where}.sriov.role is neither physical nor virtual`);
  }
  if (isObject(sriov)) {
    const { physical, autoprobe } = sriov;
    if (physical !== undefined && !isText(physical)) return malformed(`${where}.sriov.physical is not text`);
    if (autoprobe !== undefined && typeof autoprobe !== 'boolean') {
      return malformed(`${where}.sriov.autoprobe is neither true nor false`);
    }
    for (const name of ['index', 'enabled', 'total'] as const) {
      const count = sriov[name];
      if (count !== undefined && !isKind(count, 'number')) return malformed(`${where}.sriov.${name} is not number`);
    }
  }
  if (isObject(iommu) && iommu['type'] !== null && !isText(iommu['type'])) {
    return malformed(`${where}.iommu.type is neither text nor null`);
  }
  const nodes = Array.isArray(value['nodes']) ? (value['nodes'] as unknown[]) : [];
  for (const [index, node] of nodes.entries()) {
    const good =
      isObject(node) &&
      isText(node['bus']) &&
      isText(node['name']) &&
      (node['driver'] === null || isText(node['driver']));
    if (!good) return malformed(`${where}.nodes[${index}] needs the texts bus, name and driver (or null)`);
  }
  for (const name of ['offered', 'negotiated'] as const) {
    const list = isObject(features) ? features[name] : undefined;
    if (list !== undefined && !isKind(list, 'texts'))
      return malformed(`${where}.features.${name} is not a list of text`);
  }
  return undefined;
}

/** Claims by device id. Code: `claims-malformed`. */
export function decodeClaims(value: unknown): Result<Claims> {
  if (!isObject(value)) return badClaims('not an object by device id');
  const claims: Record<string, Claim> = Object.create(null) as Record<string, Claim>;
  for (const [id, claim] of Object.entries(value)) {
    const where = JSON.stringify(id.slice(0, 80));
    if (!isObject(claim)) return badClaims(`${where} is not an object`);
    const { device, tier, because, roots, measurements, spdm } = claim;
    if (device !== undefined && device !== id) return badClaims(`${where} is about another device`);
    const known = IDENTITY_TIERS.find((one) => one === tier);
    if (known === undefined) return badClaims(`${where}.tier is none of ${IDENTITY_TIERS.join(', ')}`);
    if (roots !== undefined && !isKind(roots, 'texts')) return badClaims(`${where}.roots is not a list of text`);
    if (measurements !== undefined && !isKind(measurements, 'texts')) {
      return badClaims(`${where}.measurements is not a list of text`);
    }
    if (spdm !== undefined && !isText(spdm)) return badClaims(`${where}.spdm is not text`);
    claims[id] = {
      device: id,
      tier: known,
      because: typeof because === 'string' ? because : '',
      ...(roots === undefined ? {} : { roots: roots as string[] }),
      ...(measurements === undefined ? {} : { measurements: measurements as string[] }),
      ...(spdm === undefined ? {} : { spdm }),
    };
  }
  return ok(claims);
}

function malformed(what: string): Result<never> {
  return fail('inventory-malformed', `inventory: ${what}`, { hint: 'airlock list --json makes one' });
}

function badClaims(what: string): Result<never> {
  return fail('claims-malformed', `claims: ${what}`);
}

function isKind(value: unknown, kind: Kind): boolean {
  switch (kind) {
    case 'text':
      return isText(value);
    case 'number':
      return typeof value === 'number' && Number.isInteger(value) && value >= 0;
    case 'list':
      return Array.isArray(value);
    case 'texts':
      return Array.isArray(value) && value.every(isText);
    case 'object':
      return isObject(value);
  }
}

function isId(value: unknown): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
