/**
 * Asks a device about a TDISP interface in a session of its own, over the link that it was asked over who it is. A lock
 * lives in its session and is taken back before that ends: nothing is left locked that nobody could stop.
 */
import { ok, type Result } from '@airlock/core/result.ts';
import type { PciAsk } from '../doe/pci-protocol.ts';
import { pciSessionAsk } from '../doe/pci-session.ts';
import type { Connection } from '../requester/connection.ts';
import { drive, type Link } from '../requester/procedure.ts';
import { endSession, establishSession } from '../requester/session.ts';
import type { TdiState } from '../tdisp/interface.ts';
import { LOCK_FLAG } from '../tdisp/messages.ts';
import type { FunctionFacts, InterfaceLock, InterfaceRecord } from '../tdisp/record.ts';
import { openTdispInterface, type TdispInterface } from '../tdisp/requester.ts';

/** `look`: change nothing. `lock`: lock, report, stop. `start`: start between report and stop, too. */
export const INTERFACE_STEPS = ['look', 'lock', 'start'] as const;
export type InterfaceStep = (typeof INTERFACE_STEPS)[number];

export interface AskInterface {
  /** Of `gatherEvidence`: the chain of `slot` has been read. */
  readonly connection: Connection;
  readonly link: Link;
  readonly slot: number;
  /** SHA-384 of that chain. */
  readonly chainDigest: Uint8Array;
  readonly functionId: number;
  readonly step: InterfaceStep;
  /** What the machine shows of the function, read when it is called; null where there is nothing to read. */
  readonly readFacts: (() => Promise<Result<FunctionFacts>>) | null;
  /** Without it only `link` limits the time. */
  readonly end?: AskingEnd;
}

/**
 * When the asking is to end early. It is looked at between messages: a record that was protected and never sent would put
 * the session’s two ends out of step, and a lock could not be taken back any more.
 */
export interface AskingEnd {
  /** Why nothing more is asked; fine while there is time. */
  reached(): Result<void>;
  /** With a small time of its own: over it a lock is taken back, and the session ended. */
  closing(): Link;
}

const BUSY_WAIT = 50;
const MESSAGE_LIMIT = 512;

interface Learnt {
  found: TdiState | null;
  reached: TdiState | null;
  left: TdiState | null;
  lock: InterfaceLock | null;
  report: Uint8Array | null;
  facts: FunctionFacts | null;
  problem: InterfaceRecord['problem'];
}

/** Never fails: what went wrong is in `problem`, with what was learnt before it. */
export async function gatherInterface(asked: AskInterface): Promise<InterfaceRecord> {
  const { connection, link, slot, functionId, chainDigest } = asked;
  const learnt: Learnt = {
    ...{ found: null, reached: null, left: null, lock: null, report: null, facts: null, problem: null },
  };
  const session = await drive(establishSession(connection, { slot }), link);
  if (!session.ok) note(learnt, session);
  else {
    let closing: Link | null = null;
    const ask: PciAsk = async (message) => {
      const end = closing === null ? (asked.end?.reached() ?? ok(undefined)) : ok(undefined);
      return end.ok ? pciSessionAsk(connection, session.value.session, closing ?? link, 'tdisp')(message) : end;
    };
    const wait = () => (closing ?? link).wait(BUSY_WAIT);
    const tdi = await openTdispInterface({ ask, interfaceId: functionId, wait });
    if (!tdi.ok) note(learnt, tdi);
    else {
      const locks = await learn(tdi.value, asked, learnt);
      closing = asked.end?.closing() ?? link;
      if (locks) await takeBack(tdi.value, learnt);
    }
    await drive(endSession(connection, session.value.session), closing ?? asked.end?.closing() ?? link);
  }
  return { by: 'requester', tsm: null, functionId, chainDigest, ...learnt };
}

/** The first thing that went wrong is what is told. */
function note(learnt: Learnt, result: Result<unknown>): boolean {
  if (result.ok) return true;
  const { code, message } = result.error;
  learnt.problem ??= { code, message: message.slice(0, MESSAGE_LIMIT) };
  return false;
}

/** True where a lock was tried, and must be taken back. */
async function learn(tdi: TdispInterface, { step, readFacts }: AskInterface, learnt: Learnt): Promise<boolean> {
  learnt.found = tdi.expected;
  learnt.left = tdi.expected;
  learnt.reached = tdi.expected;
  const before = readFacts === null ? null : await readFacts();
  if (before !== null && !note(learnt, before)) return false;
  const facts = before?.ok === true ? before.value : null;
  learnt.facts = facts;
  const read: Reading = async () => {
    const report = await tdi.report();
    if (!note(learnt, report) || !report.ok) return false;
    learnt.report = report.value.bytes;
    // Now, while the lock holds it.
    const now = readFacts === null ? null : await readFacts();
    if (now === null || facts === null) return true;
    if (!note(learnt, now) || !now.ok) return false;
    learnt.facts = { ...now.value, before: facts.before };
    return true;
  };
  if (step === 'look') {
    if (tdi.expected === 'CONFIG_LOCKED' || tdi.expected === 'RUN') await read();
    return false;
  }
  if (tdi.expected !== 'CONFIG_UNLOCKED') {
    // It is somebody else's, or stands in ERROR for a reason: whoever locked it has to stop it.
    const message = `the interface is in ${tdi.expected} before it was locked from here, and is left alone`;
    learnt.problem ??= { code: 'tdisp-state', message };
    return false;
  }
  await lockAndReport(tdi, step, learnt, read);
  return true;
}

async function takeBack(tdi: TdispInterface, learnt: Learnt): Promise<void> {
  const stopped = await tdi.stop();
  note(learnt, stopped);
  learnt.left = stopped.ok ? tdi.expected : null;
}

/** Reads the report, and the facts beside it; false when something went wrong, which was noted. */
type Reading = () => Promise<boolean>;

async function lockAndReport(tdi: TdispInterface, step: InterfaceStep, learnt: Learnt, read: Reading): Promise<void> {
  const wanted = LOCK_FLAG.noFirmwareUpdate | LOCK_FLAG.lockMsix;
  const flags = wanted & tdi.capabilities.lockFlags;
  const parameters = { flags, defaultStream: 0, mmioReportingOffset: 0n, p2pAddressMask: 0n };
  const nonces: Uint8Array[] = [];
  // Twice: a device whose nonces repeat lets an old start pass for a new one.
  for (const last of [false, true]) {
    const locked = await tdi.lock(parameters);
    if (tdi.lockNonce !== null) nonces.push(tdi.lockNonce);
    learnt.lock = { flags, offset: 0n, nonces: [...nonces] };
    learnt.reached = tdi.expected;
    if (!note(learnt, locked)) return;
    if (!last && !note(learnt, await tdi.stop())) return;
  }
  if (!(await read()) || step !== 'start') return;
  note(learnt, await tdi.start());
  learnt.reached = tdi.expected;
}
