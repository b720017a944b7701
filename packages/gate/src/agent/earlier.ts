/** What the gate, or an agent before this one, left in /run/airlock: what the first look is compared with. */
import { asciiText } from '@airlock/core/bytes.ts';
import { type Decision, REASON_CODES } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, TRUST_LEVELS } from '@airlock/core/level.ts';
import type { Files } from '@airlock/linux/files.ts';
import { type Change, describe } from './changes.ts';
import { DEVICE_ID } from './shape.ts';
import { STATE } from './state.ts';

export interface Earlier {
  /** By device; without what only people read (inputs, changes). */
  readonly decisions: ReadonlyMap<string, Decision>;
  /** Devices that came or went between then and now; nothing when it is not known what was there then. */
  changes(now: Inventory): Change[];
  /** The words that a violation found at the first look begins with. */
  interval(device: string): string;
}

const LIMIT = 4 * 1024 * 1024;

export async function readEarlier(files: Files): Promise<Earlier> {
  const decisions = await readDecisions(files);
  return {
    decisions,
    changes(now) {
      if (decisions.size === 0) return [];
      const present = new Set(now.devices.map(({ id }) => id));
      const changes: Change[] = [];
      for (const device of decisions.keys()) {
        if (!present.has(device)) {
          changes.push({ kind: 'device-removed', device, what: 'went away before the agent started' });
        }
      }
      for (const device of now.devices) {
        if (decisions.has(device.id)) continue;
        changes.push({
          kind: 'device-added',
          device: device.id,
          what: `${describe(device)}; came before the agent started and after anybody decided on it`,
        });
      }
      return changes;
    },
    interval: (device) =>
      decisions.size === 0
        ? 'found at the start: '
        : decisions.has(device)
          ? 'between the last enforcement and the agent: '
          : 'came before the agent started: ',
  };
}

/** The decisions in enforcement.json. An entry without the form of one is left out. */
async function readDecisions(files: Files): Promise<Map<string, Decision>> {
  const decisions = new Map<string, Decision>();
  const bytes = await files.read(STATE.enforcement, LIMIT);
  if (!bytes.ok) return decisions;
  let value: unknown;
  try {
    value = JSON.parse(asciiText(bytes.value));
  } catch {
    return decisions;
  }
  const list: readonly unknown[] = Array.isArray(value) ? value : [];
  for (const one of list) {
    const decision = isObject(one) ? toDecision(one['decision']) : undefined;
    if (decision !== undefined) decisions.set(decision.device, decision);
  }
  return decisions;
}

function toDecision(value: unknown): Decision | undefined {
  if (!isObject(value)) return undefined;
  const { device, detail, rule } = value;
  const level = TRUST_LEVELS.find((known) => known === value['level']);
  const reason = REASON_CODES.find((known) => known === value['reason']);
  const tier = IDENTITY_TIERS.find((known) => known === value['tier']);
  const grantable = TRUST_LEVELS.find((known) => known === value['grantable']) ?? 'disconnected';
  if (typeof device !== 'string' || !DEVICE_ID.test(device) || typeof detail !== 'string') return undefined;
  if (level === undefined || reason === undefined || tier === undefined) return undefined;
  const features = value['features'];
  const drivers = value['drivers'];
  return {
    device,
    level,
    reason,
    detail,
    tier,
    grantable,
    rule: isObject(rule) ? { id: String(rule['id']), file: String(rule['file']), line: Number(rule['line']) } : null,
    inputs: [],
    changes: [],
    pending: texts(value['pending']),
    ...(drivers === undefined ? {} : { drivers: texts(drivers) }),
    ...(isObject(features)
      ? { features: { require: texts(features['require']), forbid: texts(features['forbid']) } }
      : {}),
  };
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
