/** `airlock device attest --tsm`: the running kernel, its TSM and one of its functions. */
import type { Device } from '@airlock/core/device.ts';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { findDevice } from '@airlock/linux/find-device.ts';
import { pciIdentity } from '@airlock/linux/function-layout.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import type { AppraiseDevice } from '@airlock/spdm/attest/appraise.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import type { InterfaceStep } from '@airlock/spdm/attest/gather-interface.ts';
import { openGenericNetlink } from '@airlock/transport/generic-netlink.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { askTsm } from './ask-tsm.ts';
import { type DeviceVerdict, judge } from './device-appraisal.ts';
import { tsmsText } from './proof-view.ts';
import { UsageError } from './verb.ts';

export interface TsmQuestion {
  /** What the user calls the device. */
  readonly word: string;
  readonly tsm: string;
  readonly step: InterfaceStep;
  readonly slot: number;
  readonly input: AppraiseDevice & { readonly nonce: Uint8Array };
}

export interface TsmAnswer {
  readonly device: Device;
  readonly evidence: DeviceEvidence;
  /** With the function that was asked about. */
  readonly judged: AppraiseDevice;
  readonly verdict: DeviceVerdict;
}

/** Codes: those of `askTsm`, of reading the inventory, `system-call-*`. Throws UsageError for an unknown device. */
export async function attestByTsm({ word, tsm, step, slot, input }: TsmQuestion): Promise<Result<TsmAnswer>> {
  const inventory = await readInventory(nodeFiles({ writes: 'nothing' }));
  if (!inventory.ok) return inventory;
  const found = findDevice(inventory.value.devices, word);
  if (!found.ok) throw new UsageError(formatProblem(found.error));
  const device = found.value;
  const tsms = inventory.value.tsms ?? [];
  if (!tsms.some(({ name }) => name === tsm)) return fail('tsm-absent', `there is no ${tsm}`, { hint: tsmsText(tsms) });
  const driver = device.nodes.find((node) => node.driver !== null)?.driver;
  if (step !== 'look' && driver !== undefined)
    return fail('tdisp-in-use', `${device.id} has a driver, and the kernel locks none that is in use`);
  const config = await nodeFiles({ writes: 'nothing' }).readAt(`${device.path}/config`, 0, 4096);
  if (!config.ok) return config;
  // Without it nothing could be compared with the name in its certificate, and any genuine device would be let in.
  const shown = pciIdentity(config.value);
  if (shown === undefined) return fail('doe-gone', `${device.id}: its configuration space reads all ones`);
  const calls = await loadSystemCalls();
  const netlink = calls.ok ? openGenericNetlink(calls.value) : calls;
  if (!netlink.ok) return netlink;
  const judged: AppraiseDevice = { ...input, function: shown };
  const judgeIt = (evidence: DeviceEvidence) => judge(evidence, device.id, judged, device.location);
  const evidence = await askTsm({
    ...{ files: tsmFiles(device.path), netlink: netlink.value, device, slot, tsm, step, nonce: input.nonce },
    judge: (said) => {
      const verdict = judgeIt(said);
      return verdict.ok && verdict.value.appraisal.tier === 'attested';
    },
  });
  netlink.value.close();
  if (!evidence.ok) return evidence;
  const verdict = judgeIt(evidence.value);
  return verdict.ok ? ok({ device, evidence: evidence.value, judged, verdict: verdict.value }) : verdict;
}

/** What `tsm` holds already, without a write. Codes: those of `askTsm`, `system-call-*`. */
export async function lookThroughTsm(
  root: string,
  device: Device,
  tsm: string,
  nonce: Uint8Array,
): Promise<Result<DeviceEvidence>> {
  if (root !== '/') return fail('tsm-absent', 'the kernel that runs is asked, and not a copy of a machine');
  const calls = await loadSystemCalls();
  const netlink = calls.ok ? openGenericNetlink(calls.value) : calls;
  if (!netlink.ok) return netlink;
  const files = nodeFiles({ writes: 'nothing' });
  const judge = () => false;
  const told = await askTsm({ files, netlink: netlink.value, device, slot: 0, tsm, step: 'look', nonce, judge });
  netlink.value.close();
  return told;
}

/** Nothing is written but what asks the TSM about this one function. */
function tsmFiles(folder: string): Files {
  const files = nodeFiles({ writes: 'everything' });
  const allowed = ['lock', 'unlock', 'accept'].map((name) => `${folder}/tsm/${name}`);
  const forbidden = async (path: string) => fail('write-forbidden', `${path}: not written`);
  return {
    ...files,
    write: (path, data, offset) => (allowed.includes(path) ? files.write(path, data, offset) : forbidden(path)),
    save: forbidden,
    append: forbidden,
  };
}
