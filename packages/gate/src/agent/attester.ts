/**
 * Who the devices are for which the policy wants it proven. They are asked apart from the turns, a few at a time, each
 * within a limit: until it has answered a device has no claim, so it stands where the rule's `otherwise` puts it. Claims
 * are of one coming of a device: what stands there after it left has to prove itself anew, and so has one whose identity
 * changed or that was reset.
 */
import type { Claim, Claims } from '@airlock/core/claim.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { type Asked, type Breach, type Known, learn, type Proof } from './proofs.ts';

/** Asks a device and judges what it says; ends soon after the signal. May throw. */
export type Attest = (device: Device, signal: AbortSignal) => Promise<Asked>;

export interface Attestation {
  readonly attest: Attest;
  /** Does what the policy says of this device depend on its proof? */
  readonly wants: (device: Device) => boolean;
  /** Does the policy give it less for the second claim than for the first? */
  readonly givesLess: (device: Device, before: Claim, after: Claim) => boolean;
  /** Milliseconds after which a device is asked again; not given: once for each coming of a device. */
  readonly every?: number;
  /** Milliseconds that one device may take. */
  readonly limit?: number;
  /** Milliseconds until one that did not answer is asked once more. */
  readonly retry?: number;
}

/** What a device that had proven who it is does not prove any more. */
export interface Fall extends Breach {
  readonly device: string;
}

export interface Attester {
  /** What is proven as of the last `take`. */
  readonly claims: Claims;
  /** Those that were shown to this very agent, for the next one. */
  readonly proofs: readonly Proof[];
  /** What an agent before this one was shown; counts for what is in use, until it was asked. Before the first `follow`. */
  inherit(proofs: readonly Proof[]): void;
  /** Makes what was found out since into claims; the devices that prove something else now, or nothing. Once a turn. */
  take(): readonly string[];
  /**
   * Claims of devices that are not the same any more end here; those that owe a proof are asked, but for those that are
   * kept out whatever they prove. Gives what devices that still stand there fell short of, once.
   */
  follow(inventory: Inventory, keptOut: (device: string) => boolean): Promise<readonly Fall[]>;
  /** The device is another than it was, or begins anew: what it proved is over. */
  forget(device: string): void;
  /** Resolves when nobody is being asked, waits to be, or is to be asked once more. */
  idle(): Promise<void>;
  /** Asks nobody any more; resolves when those that were being asked have been left alone. */
  close(): Promise<void>;
}

const LIMIT = 10_000;
const RETRY = 4000;
/** Until an exchange that was told to end has ended: a mailbox is aborted within a second. */
const GRACE = 3000;
/** Devices that are asked at a time. One place is kept for those that are asked again. */
const WIDTH = 4;
/** More than this wait for nothing: the next look sees them again. */
const QUEUE_LIMIT = 1024;
/** For how long a proof that an agent before this one was shown counts. */
const INHERITANCE = 60_000;
/** setTimeout's own limit; beyond it a timer is over at once. */
const LONGEST_TIMER = 2 ** 31 - 1;
const BECAUSE_LIMIT = 1000;

export function startAttester(
  given: Attestation,
  parts: {
    readonly incarnation: (device: Device) => Promise<string | undefined>;
    readonly note: (event: EventBody) => void;
    /** Something was found out: a turn should `take` it. */
    readonly again: (because: string) => void;
  },
): Attester {
  const { limit = LIMIT, retry = RETRY, every = Number.POSITIVE_INFINITY } = given;
  const grace = Math.min(GRACE, limit);
  const now = () => performance.now();
  const known = new Map<string, Known>();
  /** Since the last `take`. */
  const found = new Map<string, { readonly known: Known; readonly breach?: Breach }>();
  const falls = new Map<string, { readonly incarnation: string; readonly breach: Breach }>();
  const inherited = new Map<string, Proof>();
  /** Those that have a proof to lose go before those that have none yet, however many a host plugs in. */
  const queues = { again: new Map<string, Device>(), first: new Map<string, Device>() };
  const asking = new Map<string, { readonly abort: AbortController; again: boolean; worthless: boolean }>();
  /** Told to end, and did not: not asked twice at once. */
  const stuck = new Set<string>();
  let present = new Map<string, Device>();
  let timer: NodeJS.Timeout | undefined;
  let rings = 0;
  let closed = false;
  let waiters: (() => void)[] = [];

  const latest = (id: string): Known | undefined => found.get(id)?.known ?? known.get(id);
  const dueOf = (one: Known): number => one.askedAt + (one.missed > 0 ? retry : every);
  /** Twice the time between two askings, and what asking may take: then nobody vouches for it any more. */
  const expiry = (): number => now() + 2 * every + 2 * (limit + grace) + retry;

  async function ask(device: Device, again: boolean): Promise<void> {
    const began = now();
    const one = { abort: new AbortController(), again, worthless: false };
    asking.set(device.id, one);
    try {
      const before = await parts.incarnation(device);
      if (before === undefined || closed) return;
      const asked = await askWithin(device, one.abort);
      const after = await parts.incarnation(device);
      if (closed) return;
      // What answered has left meanwhile: it proves nothing of what stands there now, which the next look asks.
      if (after !== before || one.worthless) return;
      hear(device, asked, before, now() - began);
    } finally {
      asking.delete(device.id);
      if (!closed) parts.again(`asked ${device.id}`);
    }
  }

  function hear(device: Device, asked: Asked, incarnation: string, milliseconds: number): void {
    const { claim, way } = asked;
    // Whoever answers for another device answers nothing.
    const mine: Asked =
      claim.device === device.id ? asked : { way, claim: unproven(device, 'a claim of another device') };
    const earlier = latest(device.id);
    const before = earlier?.incarnation === incarnation ? earlier : undefined;
    const givesLess = (then: Claim, is: Claim): boolean => given.givesLess(device, then, is);
    const learnt = learn(before, mine, { incarnation, now: now(), expires: expiry(), givesLess });
    // A breach of before that no turn has taken yet is not forgotten for a good answer now.
    const breach = learnt.breach ?? found.get(device.id)?.breach;
    found.set(device.id, { known: learnt.known, ...(breach === undefined ? {} : { breach }) });
    const more = learnt.known.missed > 0 ? '; it is asked once more before that counts' : '';
    tell(device.id, mine.claim.tier, way, `${mine.claim.because}${more}`, milliseconds);
  }

  function tell(device: string, tier: Claim['tier'], way: Asked['way'], because: string, milliseconds: number): void {
    const words = because.slice(0, BECAUSE_LIMIT);
    parts.note({ kind: 'attested', device, tier, way, because: words, milliseconds: Math.round(milliseconds) });
  }

  /** Gives up at the limit, and waits then until the exchange has ended, so that none runs on behind the next. */
  async function askWithin(device: Device, abort: AbortController): Promise<Asked> {
    const late: Asked = { way: 'silent', claim: unproven(device, `no whole answer within ${limit / 1000} s`) };
    let over = false;
    const ends = new Promise<void>((resolve) => abort.signal.addEventListener('abort', () => resolve()));
    const limited = setTimeout(() => {
      over = true;
      abort.abort();
    }, limit);
    stuck.add(device.id);
    const answer = Promise.resolve()
      .then(() => given.attest(device, abort.signal))
      .catch((error: unknown): Asked => {
        return { way: 'unasked', claim: unproven(device, error instanceof Error ? error.message : 'unexpected') };
      })
      .finally(() => {
        stuck.delete(device.id);
        arm();
      });
    const asked = await Promise.race([answer, ends]);
    clearTimeout(limited);
    if (asked !== undefined && !over) return asked;
    let last: NodeJS.Timeout | undefined;
    await Promise.race([answer, new Promise((resolve) => (last = setTimeout(resolve, grace)))]);
    clearTimeout(last);
    return late;
  }

  function work(): void {
    for (;;) {
      const taken = [...asking.values()].filter(({ again }) => !again).length;
      const next =
        asking.size < WIDTH
          ? (first(queues.again) ?? (taken < WIDTH - 1 ? first(queues.first) : undefined))
          : undefined;
      if (next === undefined || closed) break;
      const again = queues.again.delete(next.id);
      queues.first.delete(next.id);
      void ask(next, again)
        .catch((error: unknown) => {
          const message = error instanceof Error ? error.message : 'unexpected';
          parts.note({ kind: 'policy-problem', problem: { code: 'agent-failed', message } });
        })
        .then(work);
    }
    arm();
    if (!isQuiet()) return;
    for (const done of waiters) done();
    waiters = [];
  }

  function isQuiet(): boolean {
    if (closed) return true;
    const owes = [...present.keys()].some((id) => (latest(id)?.missed ?? 0) > 0 && !stuck.has(id));
    return asking.size === 0 && queues.again.size === 0 && queues.first.size === 0 && !owes;
  }

  /** One timer, for what is due first: to be asked again, or to end. */
  function arm(): void {
    if (closed) return;
    let next = Number.POSITIVE_INFINITY;
    for (const id of present.keys()) {
      const one = latest(id);
      if (one === undefined) continue;
      const waits = asking.has(id) || stuck.has(id) || queues.again.has(id) || queues.first.has(id);
      // One for which there is no place stays due until there is.
      const full = one.claim === null && queues.first.size >= QUEUE_LIMIT;
      if (!waits && !full) next = Math.min(next, dueOf(one));
      if (one.claim !== null) next = Math.min(next, one.expires);
    }
    // One that rings too early does no harm; one that is always put off would never ring.
    if (next === Number.POSITIVE_INFINITY || (timer !== undefined && rings <= next)) return;
    clearTimeout(timer);
    rings = next;
    timer = setTimeout(tick, Math.min(Math.max(next - now(), 1), LONGEST_TIMER));
  }

  function tick(): void {
    timer = undefined;
    const time = now();
    for (const [id, device] of present) {
      const one = latest(id);
      if (one === undefined) continue;
      if (one.claim !== null && one.expires <= time) {
        const breach = found.get(id)?.breach;
        found.set(id, {
          known: { ...one, claim: null, missed: 0, inherited: false },
          ...(breach === undefined ? {} : { breach }),
        });
        tell(id, 'claimed', 'unasked', 'its proof is too old: nobody could ask it again in time', 0);
        parts.again(`attested ${id}`);
      }
      if (dueOf(one) <= time) enqueue(device);
    }
    work();
  }

  function enqueue(device: Device): void {
    const { id } = device;
    if (closed || stuck.has(id) || asking.has(id)) return;
    if ((latest(id)?.claim ?? null) !== null) queues.again.set(id, device);
    else if (queues.first.size < QUEUE_LIMIT) queues.first.set(id, device);
  }

  function drop(id: string): void {
    for (const map of [known, found, falls, queues.again, queues.first]) map.delete(id);
    const one = asking.get(id);
    if (one !== undefined) one.worthless = true;
  }

  return {
    get claims() {
      const claims: Record<string, Claim> = Object.create(null) as Record<string, Claim>;
      for (const [id, { claim }] of known) if (claim !== null) claims[id] = claim;
      return claims;
    },
    get proofs() {
      return [...known].flatMap(([device, { incarnation, claim, inherited: old }]) =>
        claim === null || old ? [] : [{ device, incarnation, claim }],
      );
    },
    inherit(proofs) {
      for (const proof of proofs) inherited.set(proof.device, proof);
    },
    take() {
      const devices: string[] = [];
      for (const [id, { known: one, breach }] of found) {
        // Who proves the same again is judged as before.
        if (substanceOf(known.get(id)) !== substanceOf(one)) devices.push(id);
        known.set(id, one);
        if (breach !== undefined) falls.set(id, { incarnation: one.incarnation, breach });
      }
      found.clear();
      return devices;
    },
    async follow(inventory, keptOut) {
      const wanted = inventory.devices.filter((device) => given.wants(device));
      const incarnations = new Map<string, string | undefined>();
      for (const device of wanted) incarnations.set(device.id, await parts.incarnation(device));
      if (closed) return [];
      present = new Map(wanted.filter(({ id }) => !keptOut(id)).map((device) => [device.id, device]));
      for (const id of [...known.keys(), ...found.keys(), ...queues.again.keys(), ...queues.first.keys()])
        if (!incarnations.has(id)) drop(id);
      for (const device of wanted) {
        const { id } = device;
        const is = incarnations.get(id);
        if (known.has(id) && known.get(id)?.incarnation !== is) drop(id);
        if (found.has(id) && found.get(id)?.known.incarnation !== is) drop(id);
        const proof = inherited.get(id);
        if (is !== undefined && proof?.incarnation === is && isBound(device) && latest(id) === undefined) {
          const expires = now() + INHERITANCE;
          known.set(id, { incarnation: is, claim: proof.claim, askedAt: now(), expires, missed: 0, inherited: true });
          enqueue(device);
        }
        // It keeps what is in use in use, and lets nothing in.
        if (known.get(id)?.inherited === true && !isBound(device)) drop(id);
        if (is !== undefined && latest(id) === undefined && present.has(id)) enqueue(device);
      }
      inherited.clear();
      const fallen = [...falls].flatMap(([device, { incarnation, breach }]) =>
        incarnations.get(device) === incarnation ? [{ device, ...breach }] : [],
      );
      falls.clear();
      work();
      return fallen;
    },
    forget: drop,
    idle() {
      return isQuiet() ? Promise.resolve() : new Promise((resolve) => waiters.push(resolve));
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      for (const { abort } of asking.values()) abort.abort();
      queues.again.clear();
      queues.first.clear();
      for (const done of waiters) done();
      waiters = [];
      const end = now() + grace;
      while (stuck.size > 0 && now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
    },
  };
}

function first(queue: ReadonlyMap<string, Device>): Device | undefined {
  return queue.values().next().value;
}

function substanceOf(known: Known | undefined): string | null {
  if (known === undefined || known.claim === null) return null;
  const { tier, roots, measurements, spdm } = known.claim;
  return JSON.stringify([known.incarnation, tier, roots, measurements, spdm]);
}

function unproven(device: Device, because: string): Claim {
  return { device: device.id, tier: 'claimed', because };
}
