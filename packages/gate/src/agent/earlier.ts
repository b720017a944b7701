/** What the gate, or an agent before this one, left in /run/airlock: what the first look is compared with. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Inventory } from '@airlock/core/device.ts';
import type { Files } from '@airlock/linux/files.ts';
import { type Change, describe } from './changes.ts';
import { DEVICE_ID } from './shape.ts';
import { STATE } from './state.ts';

export interface Earlier {
  /** Decisions by device, as `[level, rule, reason, detail]` in JSON. */
  readonly decisions: ReadonlyMap<string, string>;
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

async function readDecisions(files: Files): Promise<Map<string, string>> {
  const decisions = new Map<string, string>();
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
    const decision: unknown = typeof one === 'object' && one !== null ? Reflect.get(one, 'decision') : undefined;
    if (typeof decision !== 'object' || decision === null || !('device' in decision)) continue;
    if (typeof decision.device !== 'string' || !DEVICE_ID.test(decision.device)) continue;
    const rule: unknown = Reflect.get(decision, 'rule');
    const id: unknown = typeof rule === 'object' && rule !== null ? Reflect.get(rule, 'id') : null;
    const key = [
      Reflect.get(decision, 'level'),
      id ?? null,
      Reflect.get(decision, 'reason'),
      Reflect.get(decision, 'detail'),
    ];
    decisions.set(decision.device, JSON.stringify(key));
  }
  return decisions;
}
