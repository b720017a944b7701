/**
 * Sees what devices do against what was decided on them, and files it with the responder: at the first look of a turn,
 * between turns (what changes without an event), and when another device stands where one stood.
 */
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { Enforcement, Outcome } from '@airlock/core/plan.ts';
import type { Files } from '@airlock/linux/files.ts';
import { fingerprintOf, matchFingerprint } from '@airlock/policy/grant.ts';
import type { Violation } from '@airlock/policy/policy.ts';
import { GATED_BUSES } from '../plan.ts';
import type { Fall } from './attester.ts';
import type { Conduct } from './conduct.ts';
import { contradictions } from './contradictions.ts';
import type { Earlier } from './earlier.ts';
import type { Judgement } from './judge.ts';
import { heldReads, identityChanges, isCertain, needsReset, offencesOf, statusTrouble } from './offence.ts';
import type { Responder } from './responder.ts';
import { APART_MS, startSilence } from './silence.ts';
import type { Found } from './status.ts';
import { readVitals } from './vitals.ts';

/** How the machine stood at the end of the last turn. */
export interface LastTurn {
  readonly inventory: Inventory | undefined;
  readonly enforcements: readonly Enforcement[];
  readonly machine: readonly Outcome[];
  /** Milliseconds since boot, read last; null when no clock could be read. */
  readonly uptime: number | null;
}

export interface WitnessParts {
  readonly files: Files;
  readonly conduct: Conduct;
  readonly note: (event: EventBody) => void;
  readonly incarnation: (device: Device) => Promise<string | undefined>;
  readonly earlier: Earlier;
  readonly seizedFrom?: (device: string) => string | undefined;
  readonly responder: Responder;
  readonly last: () => LastTurn;
  /** Decisions on devices that were bound, looked at and refused; what is seen of that is added. */
  readonly refused: Map<string, Decision>;
  /** A device is another than it was, and the kernel does not know. */
  readonly changed: (device: string) => void;
}

/** What went on between two looks. */
export interface Passage {
  /** Devices that went away, or in whose place another stands. */
  readonly gone: Set<string>;
  /** Other devices than they were, of which the kernel says that nothing left and nothing came. */
  readonly changed: readonly Device[];
  /** Of the devices that are there now, where it can be told. */
  readonly incarnations: ReadonlyMap<string, string>;
}

export interface Witness {
  /** What the first look found otherwise than the gate had left it. */
  readonly found: readonly Found[];
  /** Is there a device that held our reads, and whose second look is still due? */
  readonly undecided: boolean;
  /** Compares a look with the last turn, and ends the holds that a departure ends. `removed`: paths below /sys. */
  follow(now: Inventory, removed: ReadonlySet<string>): Promise<Passage>;
  /** Files what devices that never left changed of their identity. */
  accuseChanged(changed: readonly Device[]): void;
  /** Devices that are not as decided, told once for each way; and buses that bind by themselves again. */
  accuse(now: Inventory, judgement: Judgement): void;
  /** Devices that are as decided now: what they did is over. */
  acquit(inventory: Inventory, enforcements: readonly Enforcement[]): void;
  /** Reads what changes without an event, of the connected devices of `inventory`. */
  poll(inventory: Inventory): Promise<void>;
  /** A driver was bound to a device that is denied, and was taken off before any look. */
  blame(device: string, driver: string): void;
  /** One that had proven who it is does not any more. */
  accuseFallen(fall: Fall): void;
  /** Marks what of it has been put right since. */
  closeFound(): void;
  /** The device went away, or is to be judged anew. */
  forget(device: string): void;
}

/** Reasons that lie outside the device, and may be gone with the next look. */
const PASSING: ReadonlySet<Decision['reason']> = new Set([
  'platform-requirement-failed',
  'operator-blocked',
  'withheld',
  'external-narrowed',
  'external-failed',
]);

export function startWitness(parts: WitnessParts): Witness {
  const { conduct, earlier, last, note, refused, responder } = parts;
  const incarnations = new Map<string, string>();
  const headers = new Map<string, string>();
  const silence = startSilence();
  let found: readonly Found[] = [];

  function ruleOf(device: string): string {
    return last().enforcements.find(({ decision }) => decision.device === device)?.decision.rule?.id ?? '';
  }

  /** For what happens and does not last: it is told and answered each time. */
  function fileOnce(device: string, violation: Violation, detail: string): void {
    responder.file({ device, violation, detail, rule: ruleOf(device) });
    responder.clear(device, [violation]);
  }

  function hearSilence(device: string, source: string, held: readonly string[]): void {
    const { uptime } = last();
    // Where not even the clock answers it is the machine, and no device is to blame.
    if (uptime === null) return;
    const confirmed = silence.hear(device, source, held.length > 0, uptime);
    if (!silence.isSilent(device)) responder.clear(device, ['device-timeout']);
    if (!confirmed) return;
    const detail = `no answer to reads of ${held.slice(0, 4).join(', ')}, twice, at least ${APART_MS / 1000} s apart`;
    responder.file({ device, violation: 'device-timeout', detail, rule: ruleOf(device) });
  }

  function isCorrected(device: string): boolean {
    const { inventory, enforcements, machine } = last();
    const bus = device.startsWith('bus:') ? ` on ${device.slice(4)}` : undefined;
    if (bus !== undefined)
      return machine.every(({ property, status }) => !property.endsWith(bus) || status === 'enforced');
    const one = enforcements.find(({ decision }) => decision.device === device);
    const there = inventory?.devices.find(({ id }) => id === device);
    return one === undefined || there === undefined || contradictions(there, one.decision).length === 0;
  }

  return {
    get found() {
      return found;
    },
    get undecided() {
      return silence.undecided;
    },
    async follow(now, removed) {
      const gone = new Set<string>();
      const present = new Map(now.devices.map((device) => [device.id, device]));
      for (const device of last().inventory?.devices ?? []) {
        const there = present.get(device.id);
        const same = there !== undefined && matchFingerprint(fingerprintOf(device), there).matches !== false;
        if (!same || removed.has(device.path)) gone.add(device.id);
      }
      const before = new Map(incarnations);
      incarnations.clear();
      const changed: Device[] = [];
      for (const device of now.devices) {
        const was = before.get(device.id);
        const is = await parts.incarnation(device);
        if (is !== undefined) incarnations.set(device.id, is);
        if (was === undefined || is === undefined) continue;
        if (was !== is) gone.add(device.id);
        else if (gone.has(device.id)) changed.push(device);
      }
      for (const { device: id, incarnation } of responder.holds) {
        const there = present.get(id);
        const is = incarnations.get(id);
        const told = there === undefined || removed.has(there.path);
        // An event may be of the one before it.
        if (incarnation === undefined || is === undefined ? told : incarnation !== is) await responder.depart(id);
      }
      return { gone, changed, incarnations };
    },
    accuseChanged(changed) {
      // The kernel says that nothing left and nothing came: the device itself is another than it was.
      for (const device of changed) {
        const was = last().inventory?.devices.find(({ id }) => id === device.id);
        const what = was === undefined ? [] : identityChanges(was, device);
        if (what.length === 0) continue;
        fileOnce(device.id, 'identity-change', `${what.join(', ')}, and it was never removed`);
        parts.changed(device.id);
      }
    },
    accuse(now, judgement) {
      const { inventory, enforcements, machine } = last();
      const first = inventory === undefined;
      for (const [bus, on] of Object.entries(now.kernel.autoprobe)) {
        const kept = machine.some(({ property, status }) => status === 'enforced' && property.endsWith(` on ${bus}`));
        if (!on || !conduct.enforcing) continue;
        if (kept)
          note({ kind: 'violation', device: `bus:${bus}`, rule: '', detail: 'drivers_autoprobe was turned on' });
        else if (first && earlier.decisions.size > 0 && GATED_BUSES.some((gated) => gated === bus)) {
          found = [...found, { device: `bus:${bus}`, what: 'it bound by itself', corrected: false }];
        }
      }
      const before = first
        ? earlier.decisions
        : new Map(enforcements.map(({ decision }) => [decision.device, decision]));
      for (const [i, device] of now.devices.entries()) {
        const decision = refused.get(device.id) ?? judgement.seen[i];
        if (decision === undefined) continue;
        const was = before.get(device.id);
        const rule = decision.rule?.id ?? '';
        const seized = isConnected(decision.level) ? undefined : parts.seizedFrom?.(device.id);
        const offences = offencesOf(device, decision, was);
        if (seized !== undefined) {
          const words = [`the kernel bound it to ${seized} before anybody decided on it`];
          const again = offences.filter(({ violation }) => violation === 'driver-violation');
          const detail = [...words, ...again.map((one) => one.detail)].join('; ');
          offences.splice(0, offences.length, ...offences.filter((one) => !again.includes(one)));
          offences.push({ device: device.id, violation: 'driver-violation', detail, rule });
        }
        const trouble = needsReset(device);
        // Nobody had decided on anything before an agent without a gate: what it finds is nobody's doing.
        const answered = isCertain(device) && !(first && earlier.decisions.size === 0);
        for (const offence of offences) {
          responder.file(offence, { when: first ? earlier.interval(device.id) : '', answered });
          if (first && earlier.decisions.size > 0) {
            found = [...found, { device: device.id, what: offence.detail, corrected: false }];
          }
        }
        if (trouble !== undefined) {
          responder.file({ device: device.id, violation: 'needs-reset', detail: trouble, rule });
        }
        if (offences.length === 0) responder.clear(device.id, ['driver-violation', 'feature-violation']);
        hearSilence(device.id, 'attributes', heldReads(device));
        // What a bound device has shown of itself is not forgotten when it is unbound: it would be bound to look again.
        if (conduct.enforcing && isBound(device) && !isConnected(decision.level) && !PASSING.has(decision.reason)) {
          refused.set(device.id, decision);
        }
      }
    },
    acquit(inventory, enforcements) {
      const devices = new Map(inventory.devices.map((device) => [device.id, device]));
      for (const { decision } of enforcements) {
        // What was put right is told again if it comes again; what cannot be put right is told once.
        const device = devices.get(decision.device);
        if (device === undefined || contradictions(device, decision).length === 0) {
          responder.clear(decision.device, ['driver-violation', 'feature-violation']);
        }
      }
    },
    async poll(inventory) {
      const connected = new Set(
        last().enforcements.flatMap(({ decision }) => (isConnected(decision.level) ? [decision.device] : [])),
      );
      for (const { device, status, held, header } of await readVitals(parts.files, inventory, connected)) {
        const trouble = status === undefined ? undefined : statusTrouble(status);
        if (trouble !== undefined) {
          responder.file({ device, violation: 'needs-reset', detail: trouble, rule: ruleOf(device) });
        } else if (status !== undefined) responder.clear(device, ['needs-reset']);
        const before = headers.get(device);
        if (header !== undefined) headers.set(device, header);
        if (header !== undefined && before !== undefined && before !== header) {
          fileOnce(device, 'identity-change', `was ${before}, is ${header}, and it was never removed`);
          parts.changed(device);
        }
        hearSilence(device, 'vitals', held ? ['its status'] : []);
      }
    },
    blame(device, driver) {
      const was = last().enforcements.find(({ decision }) => decision.device === device)?.decision;
      // It was let in when it was bound.
      if (was !== undefined && isConnected(was.level)) return;
      fileOnce(device, 'driver-violation', `bound to ${driver}, but it is denied`);
    },
    accuseFallen({ device, violation, detail }) {
      fileOnce(device, violation, detail);
    },
    closeFound() {
      found = found.map((one) => ({ ...one, corrected: isCorrected(one.device) }));
    },
    forget(device) {
      headers.delete(device);
      silence.forget(device);
    },
  };
}
