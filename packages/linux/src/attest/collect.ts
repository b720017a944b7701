/** The evidence of this machine, all that there is, bound to one nonce; and what was looked for where there is none. */
import { hex } from '@airlock/core/bytes.ts';
import type { Result } from '@airlock/core/result.ts';
import { concat, latin1, toBase64 } from '@airlock/evidence/bytes.ts';
import type { Crypto } from '@airlock/evidence/crypto.ts';
import { bindingDigests, DEVICE_LIMIT, deviceNonce } from '@airlock/evidence/machine/binding.ts';
import type { BundleDevice, BundlePart, MachineBundle } from '@airlock/evidence/machine/bundle.ts';
import { readQuote } from '@airlock/evidence/tdx/quote.ts';
import { decodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { shownInterface } from '@airlock/spdm/tdisp/record.ts';
import type { Files } from '../files.ts';
import { findAttestableFunctions, PCI_DEVICES } from './devices.ts';
import type { EvidenceHands } from './hands.ts';
import { AZURE_KEY_HANDLE, AZURE_REPORT_INDEX, quoteTpm, readNvIndex, TPM_DEVICE } from './tpm-quote.ts';
import { readTsmReport, TSM_REPORTS } from './tsm-report.ts';

export interface CollectInput {
  readonly files: Files;
  readonly hands: EvidenceHands;
  readonly crypto: Crypto;
  /** Null: nothing will be fresh. */
  readonly nonce: Uint8Array | null;
  /** Collected before; these are not asked again. */
  readonly devices: readonly BundleDevice[];
  /**
   * Asks the PCI function of this name (`0000:01:00.0`) over SPDM with this nonce of 32 bytes; the document of
   * `encodeEvidence`. Without it nobody is asked. Codes: those of mailboxes and procedures.
   */
  readonly askSpdm?: (name: string, nonce: Uint8Array) => Promise<Result<Uint8Array>>;
  /** Of the entry below configfs-tsm: nobody else's. */
  readonly entry: string;
  /** A TPM key that is there already, instead of one made for this. */
  readonly tpmKey?: number;
}

export interface Looked {
  /** `SEV-SNP or TDX report` */
  readonly what: string;
  readonly path: string;
  readonly status: 'taken' | 'absent' | 'failed';
  readonly detail: string;
}

export interface Collected {
  readonly bundle: MachineBundle;
  readonly looked: readonly Looked[];
}

const CCEL = '/sys/firmware/acpi/tables/data/CCEL';
const TPM_LOG = '/sys/kernel/security/tpm0/binary_bios_measurements';
const RTMRS = '/sys/devices/virtual/misc/tdx_guest/measurements';
const LOG_LIMIT = 4 * 1024 * 1024;

export async function collectEvidence(input: CollectInput): Promise<Collected> {
  const { nonce, crypto } = input;
  const vm: BundlePart[] = [];
  const looked: Looked[] = [];
  const devices = await collectDevices(input, looked);
  const digests = bindingDigests(crypto, nonce ?? new Uint8Array(), devices);
  await collectReport(input, digests.reportData, vm, looked);
  await collectTpm(input, digests.qualifyingData, vm, looked);
  return { bundle: { nonce, vm, devices }, looked };
}

/** What is not there is absent; anything else that went wrong is told as it is. */
function missed(what: string, path: string, read: Result<unknown>): Looked {
  const error = read.ok ? { code: '', message: '' } : read.error;
  const absent = error.code === 'file-missing';
  return { what, path, status: absent ? 'absent' : 'failed', detail: absent ? 'not there' : error.message };
}

async function collectReport(
  { files, hands, entry }: CollectInput,
  reportData: Uint8Array,
  vm: BundlePart[],
  looked: Looked[],
): Promise<void> {
  const what = 'report of SEV-SNP, TDX or CCA';
  const report = await readTsmReport(files, hands.folders, entry, reportData);
  if (!report.ok) {
    looked.push(missed(what, TSM_REPORTS, report));
    return;
  }
  const { provider, outblob, auxblob } = report.value;
  // The certificate table stands behind an SNP report, as in an extended one.
  const bytes = provider === 'sev_guest' && auxblob.length > 0 ? concat(outblob, auxblob) : outblob;
  vm.push({ name: provider, bytes });
  const table = auxblob.length > 0 ? `, certificates of ${auxblob.length} bytes` : '';
  looked.push({ what, path: TSM_REPORTS, status: 'taken', detail: `${provider}, ${outblob.length} bytes${table}` });
  if (provider === 'tdx_guest') await collectTdx(files, outblob, vm, looked);
}

/** The quote holds the RTMRs; the kernel's own view of them tells whether something was extended in between. */
async function collectTdx(files: Files, outblob: Uint8Array, vm: BundlePart[], looked: Looked[]): Promise<void> {
  const quote = readQuote(outblob);
  const differing: number[] = [];
  let seen = 0;
  for (let i = 0; i < 4 && quote.ok; i++) {
    const read = await files.read(`${RTMRS}/rtmr${i}:sha384`, 64);
    if (!read.ok) continue;
    seen++;
    const stated = quote.value.td.rtmrs[i] ?? new Uint8Array();
    if (read.value.length !== stated.length || read.value.some((byte, at) => byte !== stated[at])) differing.push(i);
  }
  looked.push({
    what: 'RTMRs',
    path: RTMRS,
    status: seen === 0 ? 'absent' : differing.length === 0 ? 'taken' : 'failed',
    detail:
      seen === 0
        ? 'not there (Linux 6.16 and later show them); the quote has them'
        : differing.length === 0
          ? `${seen}, as in the quote`
          : `RTMR ${differing.join(', ')} changed after the quote was made: collect anew`,
  });
  await collectLog(files, 'event log of the TD', CCEL, 'ccel', vm, looked);
}

async function collectLog(
  files: Files,
  what: string,
  path: string,
  name: string,
  vm: BundlePart[],
  looked: Looked[],
): Promise<void> {
  const log = await files.read(path, LOG_LIMIT);
  if (!log.ok) {
    looked.push(missed(what, path, log));
    return;
  }
  vm.push({ name, bytes: log.value });
  looked.push({ what, path, status: 'taken', detail: `${log.value.length} bytes` });
}

async function collectTpm(
  { files, hands, tpmKey }: CollectInput,
  qualifyingData: Uint8Array,
  vm: BundlePart[],
  looked: Looked[],
): Promise<void> {
  const what = 'TPM quote';
  const opened = await hands.openExchange(TPM_DEVICE);
  if (!opened.ok) {
    looked.push(missed(what, TPM_DEVICE, opened));
    return;
  }
  const tpm = opened.value;
  try {
    const azure = await readNvIndex(tpm, AZURE_REPORT_INDEX);
    const paravisor = azure.ok ? azure.value : null;
    if (paravisor !== null) {
      vm.push({ name: 'azure-report', bytes: paravisor });
      looked.push({
        what: 'report of Azure’s paravisor',
        path: `${TPM_DEVICE}, NV index 0x${AZURE_REPORT_INDEX.toString(16)}`,
        status: 'taken',
        detail: `${paravisor.length} bytes`,
      });
    }
    const quote = await quoteTpm(tpm, qualifyingData, tpmKey ?? (paravisor === null ? undefined : AZURE_KEY_HANDLE));
    if (!quote.ok) {
      looked.push({ what, path: TPM_DEVICE, status: 'failed', detail: quote.error.message });
      return;
    }
    const { message, signature, pcrs, key } = quote.value;
    const wrapper = { message: toBase64(message), signature: toBase64(signature), pcrs: pcrs.map(toBase64) };
    vm.push({ name: 'tpm-quote', bytes: textBytes(JSON.stringify(wrapper)) });
    vm.push({ name: 'tpm-key', bytes: textBytes(publicPem(key.spki)) });
    looked.push({ what, path: TPM_DEVICE, status: 'taken', detail: `${pcrs.length} PCRs of bank sha256` });
  } finally {
    await tpm.close();
  }
  await collectLog(files, 'event log of the TPM', TPM_LOG, 'tpm-event-log', vm, looked);
}

/** The file in which the verifier keeps the key: `verify --key` takes it. */
export function publicPem(spki: Uint8Array): string {
  const lines = toBase64(spki).match(/.{1,64}/g) ?? [];
  return `-----BEGIN PUBLIC KEY-----\n${lines.join('\n')}\n-----END PUBLIC KEY-----\n`;
}

function textBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/**
 * Devices come first: what the VM's own evidence covers is what they answered. A device that does not answer is told and
 * left out; the document then vouches for the others.
 */
async function collectDevices(
  { files, crypto, nonce, devices: given, askSpdm }: CollectInput,
  looked: Looked[],
): Promise<BundleDevice[]> {
  const devices = [...given];
  const names = new Set(given.map(({ name }) => name));
  const seen = await findAttestableFunctions(files);
  const wanted = deviceNonce(crypto, nonce ?? new Uint8Array());
  for (const { name, kind } of given)
    looked.push({ what: 'device', path: name, status: 'taken', detail: `given: evidence of kind ${kind}` });
  const held = new Set(seen.held);
  for (const name of new Set([...seen.spdm, ...seen.held])) {
    if (names.has(name)) continue;
    const what = 'device';
    const path = `${PCI_DEVICES}/${name}`;
    if (askSpdm === undefined) {
      looked.push({ what, path, status: 'absent', detail: 'speaks SPDM and was not asked' });
      continue;
    }
    if (devices.length >= DEVICE_LIMIT) {
      looked.push({ what, path, status: 'failed', detail: `not asked: ${DEVICE_LIMIT} devices are the most` });
      continue;
    }
    const evidence = await askSpdm(name, wanted);
    if (evidence.ok) {
      const read = decodeEvidence(latin1(evidence.value));
      const locked = read.ok ? shownInterface(read.value.interface) : null;
      devices.push({ name, kind: 'spdm', evidence: evidence.value, certificates: new Uint8Array(), interface: locked });
      looked.push({
        what,
        path,
        status: 'taken',
        detail: `asked through ${held.has(name) ? `the kernel’s TSM, ${locked?.state ?? 'not held any more'}` : 'its DOE mailbox'}, ${evidence.value.length} bytes`,
      });
    } else {
      const { code, message } = evidence.error;
      const mute = code === 'doe-absent' || code === 'doe-unsupported';
      looked.push({ what, path, status: mute ? 'absent' : 'failed', detail: message });
    }
  }
  const unseen = seen.unseen === 0 ? '' : `; of ${seen.unseen} it cannot be seen (root, or Linux 6.18, shows it)`;
  if (seen.spdm.length === 0)
    looked.push({
      what: 'devices that speak SPDM',
      path: `${PCI_DEVICES}/*/doe_features, config`,
      status: 'absent',
      detail: `none of ${seen.functions} PCI functions has a DOE mailbox${unseen}`,
    });
  const graphics = seen.nvidia.filter((one) => !names.has(one));
  const shown = given.some(({ kind }) => kind === 'nvidia');
  if (graphics.length > 0 && !shown)
    looked.push({
      what: 'NVIDIA GPUs and switches',
      path: PCI_DEVICES,
      status: 'absent',
      detail: `${graphics.join(', ')}: they answer NVIDIA's own tool alone; ask them there with nonce ${hex(wanted)} and give its file with --device-evidence`,
    });
  else if (graphics.length === 0 && !shown)
    looked.push({
      what: 'NVIDIA GPUs and switches',
      path: PCI_DEVICES,
      status: 'absent',
      detail: 'none (vendor 10de)',
    });
  return devices;
}
