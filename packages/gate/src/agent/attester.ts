/**
 * Who the devices are for which the policy wants it proven. One is asked at a time, apart from the turns, each within a
 * limit: until it has answered a device has no claim, so it stands where the rule's `otherwise` puts it, and one that
 * never answers holds up nothing else than those behind it, for as long as the limit. Claims are of one coming of a
 * device: what stands there after it left has to prove itself anew.
 */
import type { Claim, Claims } from '@airlock/core/claim.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { type IdentityTier, tierRank } from '@airlock/core/level.ts';
import type { CompiledPolicy } from '@airlock/policy/compile.ts';
import { NO } from '@airlock/policy/facts.ts';
import type { Rule } from '@airlock/policy/policy.ts';

/** Asks a device and judges what it says. A tier below `attested` says in `because` what was wrong. May throw. */
export type Attest = (device: Device, signal: AbortSignal) => Promise<Claim>;

export interface Attestation {
  readonly attest: Attest;
  /** Does what the policy says of this device depend on its proof? */
  readonly wants: (device: Device) => boolean;
  /** Milliseconds from the end of one round to the next; not given: once for each coming of a device. */
  readonly every?: number;
  /** Milliseconds that one device may take. */
  readonly limit?: number;
}

export interface Attester {
  /** What is proven as of the last `take`. */
  readonly claims: Claims;
  /** Makes what was found out since into claims; the devices that it is about. At the begin of a turn. */
  take(): readonly string[];
  /** Claims of devices that are not the same any more end here; those that owe a proof are asked. */
  follow(inventory: Inventory): Promise<void>;
  /** Resolves when nobody is being asked or waits to be. */
  idle(): Promise<void>;
  close(): void;
}

const LIMIT = 10_000;
/** setTimeout's own limit; beyond it a timer is over at once. */
const LONGEST_TIMER = 2 ** 31 - 1;
/** More than this wait for nothing: the next look sees them again. */
const QUEUE_LIMIT = 1024;

interface Known {
  readonly incarnation: string;
  /** null: it was asked and proved nothing. */
  readonly claim: Claim | null;
}

export function startAttester(
  given: Attestation,
  parts: {
    readonly incarnation: (device: Device) => Promise<string | undefined>;
    readonly note: (event: EventBody) => void;
    /** Something was found out: a turn should `take` it. */
    readonly again: (because: string) => void;
  },
): Attester {
  const limit = given.limit ?? LIMIT;
  const known = new Map<string, Known>();
  const found = new Map<string, Known>();
  const queue = new Map<string, Device>();
  /** Asked beyond the limit, and still not answered: not asked twice at once. */
  const stuck = new Set<string>();
  let present = new Map<string, Device>();
  let working: Promise<void> | undefined;
  let current: { readonly device: string; readonly abort: AbortController } | undefined;
  let round: NodeJS.Timeout | undefined;
  let closed = false;

  async function ask(device: Device): Promise<void> {
    const began = performance.now();
    const before = await parts.incarnation(device);
    if (before === undefined || closed) return;
    const claim = await askWithin(device);
    const after = await parts.incarnation(device);
    // What answered has left meanwhile: it proves nothing of what stands there now, which the next look asks.
    if (closed || after !== before) return;
    const proven = claim.device === device.id && tierRank(claim.tier) >= tierRank('attested');
    found.set(device.id, { incarnation: before, claim: proven ? claim : null });
    parts.note({
      kind: 'attested',
      device: device.id,
      tier: claim.tier,
      because: claim.because,
      milliseconds: Math.round(performance.now() - began),
    });
    parts.again(`attested ${device.id}`);
  }

  async function askWithin(device: Device): Promise<Claim> {
    const abort = new AbortController();
    current = { device: device.id, abort };
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<Claim>((resolve) => {
      timer = setTimeout(() => resolve(unproven(device, `no whole answer within ${limit / 1000} s`)), limit);
      abort.signal.addEventListener('abort', () => resolve(unproven(device, 'the agent is ending')));
    });
    stuck.add(device.id);
    const answer = Promise.resolve()
      .then(() => given.attest(device, abort.signal))
      .catch((error: unknown) => unproven(device, error instanceof Error ? error.message : 'unexpected'))
      .finally(() => stuck.delete(device.id));
    const claim = await Promise.race([answer, late]);
    clearTimeout(timer);
    abort.abort();
    current = undefined;
    return claim;
  }

  async function work(): Promise<void> {
    for (;;) {
      const [next] = queue.values();
      if (next === undefined || closed) break;
      queue.delete(next.id);
      await ask(next).catch((error: unknown) => {
        const message = error instanceof Error ? error.message : 'unexpected';
        parts.note({ kind: 'policy-problem', problem: { code: 'agent-failed', message } });
      });
    }
    working = undefined;
    if (closed || given.every === undefined) return;
    clearTimeout(round);
    round = setTimeout(
      () => {
        for (const device of present.values()) enqueue(device);
      },
      Math.min(given.every, LONGEST_TIMER),
    );
  }

  function enqueue(device: Device): void {
    if (closed || stuck.has(device.id) || queue.has(device.id) || queue.size >= QUEUE_LIMIT) return;
    if (current?.device === device.id) return;
    queue.set(device.id, device);
    working ??= work();
  }

  return {
    get claims() {
      const claims: Record<string, Claim> = Object.create(null) as Record<string, Claim>;
      for (const [id, { claim }] of known) if (claim !== null) claims[id] = claim;
      return claims;
    },
    take() {
      const devices = [...found.keys()];
      for (const [id, one] of found) known.set(id, one);
      found.clear();
      return devices;
    },
    async follow(inventory) {
      const wanted = inventory.devices.filter((device) => given.wants(device));
      present = new Map(wanted.map((device) => [device.id, device]));
      for (const map of [known, found]) for (const id of map.keys()) if (!present.has(id)) map.delete(id);
      for (const device of wanted) {
        const now = await parts.incarnation(device);
        for (const map of [known, found]) if (map.get(device.id)?.incarnation !== now) map.delete(device.id);
        if (now !== undefined && !known.has(device.id) && !found.has(device.id)) enqueue(device);
      }
    },
    async idle() {
      while (working !== undefined) await working;
    },
    close() {
      closed = true;
      clearTimeout(round);
      queue.clear();
      current?.abort.abort();
    },
  };
}

function unproven(device: Device, because: string): Claim {
  return { device: device.id, tier: 'claimed', because };
}

/** Could a rule for this device turn on a proof? One more is asked rather than one less. */
export function wantsProof(policy: CompiledPolicy, device: Device): boolean {
  return policy.rulesFor(device).some((rule) => turnsOnProof(rule.rule) && rule.match(device, 'attested') !== NO);
}

function turnsOnProof({ require, match }: Rule): boolean {
  const high = (tier: IdentityTier): boolean => tierRank(tier) >= tierRank('attested');
  if (require?.identity !== undefined && high(require.identity)) return true;
  if (require?.roots !== undefined || require?.measurements !== undefined) return true;
  return match.identity?.some(({ tier, orAbove }) => orAbove || high(tier)) === true;
}
