/**
 * A function is asked about through the kernel's TSM: what the TSM's own requester heard of it, and the interface that the
 * TSM holds for this VM. The only way to evidence with which a device can be bound.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { readFunctionFacts } from '@airlock/linux/function-layout.ts';
import type { GenericNetlink } from '@airlock/linux/netlink.ts';
import { readTsmEvidence } from '@airlock/linux/tsm-evidence.ts';
import { acceptByTsm, lockByTsm, readTsmHold, unlockByTsm } from '@airlock/linux/tsm-lock.ts';
import { assembleEvidence } from '@airlock/spdm/attest/assemble.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import type { InterfaceStep } from '@airlock/spdm/attest/gather-interface.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import type { TdiState } from '@airlock/spdm/tdisp/interface.ts';
import type { FunctionFacts, InterfaceRecord } from '@airlock/spdm/tdisp/record.ts';

export interface AskTsm {
  /** Writes below `folder`/tsm for the steps `lock` and `start` only. */
  readonly files: Files;
  readonly netlink: GenericNetlink;
  readonly device: { readonly id: string; readonly location: string; readonly path: string };
  readonly slot: number;
  readonly nonce: Uint8Array;
  /** `look`: what the TSM holds already. `lock`: lock, read, unlock. `start`: lock, read, judge, and accept or unlock. */
  readonly step: InterfaceStep;
  /** The TSM that is to lock it. */
  readonly tsm: string;
  /** Is this good enough to let the device into private memory? */
  readonly judge: (evidence: DeviceEvidence) => boolean;
}

/**
 * Codes: `tsm-*`, `netlink-*`, `device-evidence-invalid`, those of reading the function and its agreement. A lock that was
 * made here is taken back when anything fails.
 */
export async function askTsm(asked: AskTsm): Promise<Result<DeviceEvidence>> {
  const { files, device, step, tsm } = asked;
  const before = await readTsmHold(files, device.path);
  if (!before.ok) return before;
  const facts = await readFunctionFacts(files, device.path, device.location);
  if (!facts.ok) return facts;
  const seen = { found: before.value.state, header: facts.value };
  if (step === 'look') {
    if (before.value.tsm === null)
      return fail('tsm-no-evidence', `no TSM holds ${device.id}`, { hint: `--lock asks ${tsm} to lock it` });
    return read(asked, before.value.tsm, before.value.state, seen);
  }
  const locked = await lockByTsm(files, device.path, tsm);
  // What it does not lock it cannot unlock; what it may have locked, it does.
  if (!locked.ok) return locked.error.code === 'tsm-refused' ? undone(asked, locked) : locked;
  const evidence = await read(asked, tsm, 'CONFIG_LOCKED', seen);
  if (!evidence.ok) return undone(asked, evidence);
  if (step === 'lock' || !asked.judge(evidence.value)) {
    const unlocked = await unlockByTsm(files, device.path, tsm);
    return unlocked.ok ? ok(withLeft(evidence.value, 'CONFIG_UNLOCKED')) : unlocked;
  }
  const accepted = await acceptByTsm(files, device.path, tsm);
  if (!accepted.ok) return undone(asked, accepted);
  return ok(withLeft(evidence.value, 'RUN', 'RUN'));
}

async function undone({ files, device, tsm }: AskTsm, because: Result<never>): Promise<Result<never>> {
  const unlocked = await unlockByTsm(files, device.path, tsm);
  if (unlocked.ok || because.ok) return because;
  const { code, message } = because.error;
  return fail(code, `${message}; and ${device.id} is still locked: ${unlocked.error.message}`);
}

function withLeft(evidence: DeviceEvidence, left: TdiState, reached?: TdiState): DeviceEvidence {
  const record = evidence.interface;
  if (record === undefined) return evidence;
  return { ...evidence, interface: { ...record, left, ...(reached === undefined ? {} : { reached }) } };
}

async function read(
  { files, netlink, device, slot, nonce }: AskTsm,
  tsm: string,
  state: TdiState,
  before: { readonly found: TdiState; readonly header: FunctionFacts },
): Promise<Result<DeviceEvidence>> {
  const kept = await readTsmEvidence(netlink, device.location, slot, nonce);
  if (!kept.ok) return kept;
  const evidence = assembleEvidence({ device: device.id, slot, ...kept.value });
  if (!evidence.ok) return evidence;
  const facts = await readFunctionFacts(files, device.path, device.location);
  if (!facts.ok) return facts;
  const after = await readTsmHold(files, device.path);
  if (!after.ok) return after;
  if (after.value.tsm !== tsm || after.value.state !== state)
    return fail('tsm-raced', `${device.id} was in ${state}, held by ${tsm}, and is in ${after.value.state}`);
  const record: InterfaceRecord = {
    ...{ by: 'tsm', tsm, functionId: null, lock: null, problem: null },
    chainDigest: nodeSpdmCrypto().hash('sha384', kept.value.chain),
    ...{ found: before.found, reached: state, left: state, report: kept.value.report },
    facts: { ...facts.value, before: before.header.before },
  };
  return ok({ ...evidence.value, interface: record });
}
