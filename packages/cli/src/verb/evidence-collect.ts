/** `airlock evidence collect`: what this machine can prove, in one document that `airlock verify` takes. */
import { existsSync, statSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes, concat, fromHex, latin1 } from '@airlock/evidence/bytes.ts';
import { deviceNonce, NAME_LIMIT, NONCE_LEAST, NONCE_MOST } from '@airlock/evidence/machine/binding.ts';
import { type BundleDevice, writeBundle } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { isSwitch } from '@airlock/evidence/nvidia/report.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { collectEvidence, type Looked } from '@airlock/linux/attest/collect.ts';
import { nodeEvidenceHands } from '@airlock/linux/attest/node-hands.ts';
import { TSM_REPORTS } from '@airlock/linux/attest/tsm-report.ts';
import { printable } from '@airlock/linux/attribute.ts';
import type { Files } from '@airlock/linux/files.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { decodeEvidence, EVIDENCE_FORMAT, encodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { shownInterface } from '@airlock/spdm/tdisp/record.ts';
import { askFunction } from '../ask-function.ts';
import { lookThroughTsm } from '../attest-by-tsm.ts';
import { readBytes, texts } from '../evidence-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'evidence collect',
  summary: 'what this machine can prove: SEV-SNP, TDX, CCA, TPM and its devices, in one document',
  usage: '[--nonce HEX] [--device-evidence FILE]... [--no-devices] [--out FILE] [--json]',
  help: `
Asks the devices first: every PCI function that speaks SPDM, through its DOE mailbox. Then the VM's own hardware through
configfs-tsm, and the TPM through /dev/tpmrm0, with data that covers the nonce and what the devices answered; takes event
logs along. NVIDIA's GPUs and switches answer NVIDIA's own tool alone: ask them with the nonce of --device-nonce and give the
tool's file. Needs root. The document goes to standard output, what was looked for and found to
standard error. airlock verify FILE --nonce HEX reads it; docs/evidence.md, Machines, describes it.

  --nonce HEX         the verifier's nonce, 8 to 64 bytes; without one nothing is fresh
  --device-evidence FILE  evidence of one or more devices, asked for with the device nonce: what NVIDIA's tool wrote (JSON), or
                      airlock device attest --save; may stand more than once
  --device NAME=FILE  the same of one device, with the name that it gets
  --no-devices        ask no device
  --device-nonce      only print the nonce that devices are to be asked with
  --tpm-key HANDLE    a TPM key that is there already (0x81000003), instead of one below the owner's seed
  --out FILE          write the document there
  --root DIR          a tree that stands for the machine's /
  --json              what was looked for, as NDJSON on standard error

Exit codes: 0 something was collected, 2 usage, 3 this machine has nothing that attests it.

  airlock evidence collect --nonce 6f1d... > machine.json
  airlock evidence collect --nonce 6f1d... --device-evidence gpus.json --out machine.json
`,
  options: {
    nonce: { type: 'string' },
    device: { type: 'string', multiple: true },
    'device-evidence': { type: 'string', multiple: true },
    'no-devices': { type: 'boolean' },
    'device-nonce': { type: 'boolean' },
    'tpm-key': { type: 'string' },
    out: { type: 'string' },
    root: { type: 'string' },
    json: { type: 'boolean' },
  },
  run,
};

/** A quoting service may take its time. */
const TIMEOUT = 60_000;
/** All devices together: mute ones must not keep the VM's own evidence back for long. */
const DEVICES_TIMEOUT = 120_000;

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`${positionals[0]}: takes no argument`);
  const nonce = nonceOf(values['nonce']);
  const crypto = nodeCrypto();
  if (values['device-nonce'] === true) {
    if (nonce === null) throw new UsageError('--device-nonce: is made from --nonce');
    context.stdout(`${Buffer.from(deviceNonce(crypto, nonce)).toString('hex')}\n`);
    return EXIT.fine;
  }
  const root = typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
  if (!existsSync(root) || !statSync(root).isDirectory())
    throw new UsageError(`--root: no such folder: ${printable(root)}`);
  const handle = values['tpm-key'];
  const devices: BundleDevice[] = [];
  for (const text of texts(values, 'device')) devices.push(await readDevice(context, text, devices));
  for (const path of texts(values, 'device-evidence'))
    for (const device of await readDeviceFile(context, path, devices)) devices.push(device);
  const { bundle, looked } = await collectEvidence({
    ...{ files: evidenceFiles(root), hands: nodeEvidenceHands(root), crypto, nonce, devices },
    entry: `airlock-${process.pid}`,
    ...(typeof handle === 'string' ? { tpmKey: handleOf(handle) } : {}),
    ...(values['no-devices'] === true ? {} : { askSpdm: spdmAsker(root) }),
  });
  context.stderr(
    values['json'] === true ? looked.map((one) => `${JSON.stringify(one)}\n`).join('') : lookedText(looked),
  );
  if (bundle.vm.length === 0) {
    context.stderr('airlock evidence collect: nothing here attests this machine: see above what was looked for\n');
    return EXIT.environment;
  }
  if (nonce === null) {
    context.stderr('airlock evidence collect: no --nonce: nobody can tell that this evidence is fresh\n');
  }
  const document = writeBundle(bundle);
  if (typeof values['out'] !== 'string') {
    context.stdout(document);
    return EXIT.fine;
  }
  const path = resolve(context.cwd, values['out']);
  try {
    await writeFile(`${path}.new`, document, { mode: 0o644 });
    await rename(`${path}.new`, path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    context.stderr(`airlock evidence collect: --out ${printable(values['out'])}: ${code}\n`);
    return EXIT.environment;
  }
  return EXIT.fine;
}

/** Nothing is written but entries of configfs-tsm. */
function evidenceFiles(root: string): Files {
  const files = nodeFiles({ root, timeout: TIMEOUT, writes: 'everything' });
  const forbidden = async (path: string) => fail('write-forbidden', `${path}: not written`);
  return {
    ...files,
    write: (path, data, offset) =>
      path.startsWith(`${TSM_REPORTS}/airlock-`) && path.endsWith('/inblob') && !path.includes('/../')
        ? files.write(path, data, offset)
        : forbidden(path),
    save: forbidden,
    append: forbidden,
  };
}

function nonceOf(value: Values[string]): Uint8Array | null {
  if (value === undefined) return null;
  const nonce = typeof value === 'string' ? fromHex(value) : undefined;
  if (nonce === undefined || nonce.length < NONCE_LEAST || nonce.length > NONCE_MOST)
    throw new UsageError(`--nonce: ${NONCE_LEAST} to ${NONCE_MOST} bytes in hex`);
  return nonce;
}

function handleOf(text: string): number {
  const value = /^0x[0-9a-f]{8}$/i.test(text) ? Number(text) : Number.NaN;
  // Persistent objects: TPM 2.0 Part 2 §7.2.
  if (value >>> 24 !== 0x81)
    throw new UsageError(`--tpm-key ${printable(text)}: a handle from 0x81000000 to 0x81ffffff`);
  return value;
}

/** Asks by a function's name; the inventory is read when the first one is asked. */
function spdmAsker(root: string): (name: string, nonce: Uint8Array) => Promise<Result<Uint8Array>> {
  const signal = AbortSignal.timeout(DEVICES_TIMEOUT);
  let inventory: ReturnType<typeof readInventory> | undefined;
  return async (name, nonce) => {
    inventory ??= readInventory(nodeFiles({ root, writes: 'nothing' }));
    const read = await inventory;
    if (!read.ok) return read;
    const device = read.value.devices.find(({ id }) => id === `pci:${name}`);
    if (device === undefined) return fail('doe-absent', 'no PCI function of its own');
    const holder = device.tsm?.locked;
    // What a TSM holds, it alone can be asked about: the session with the device is its own.
    if (typeof holder === 'string') {
      const told = await lookThroughTsm(root, device, holder, nonce);
      return told.ok ? ok(asciiBytes(encodeEvidence(told.value))) : told;
    }
    const asked = await askFunction(root, device, nonce, signal);
    return asked.ok ? ok(asciiBytes(encodeEvidence(asked.value.evidence))) : asked;
  };
}

/** One device, with a name of the user's. */
async function readDevice(context: Context, text: string, before: readonly BundleDevice[]): Promise<BundleDevice> {
  const at = text.indexOf('=');
  const [name, path] = [text.slice(0, at), text.slice(at + 1)];
  if (at < 1 || path === '' || name.length > NAME_LIMIT || !/^[\x21-\x7e]+$/.test(name))
    throw new UsageError(`--device ${printable(text)}: NAME=FILE`);
  if (before.some((one) => one.name === name)) throw new UsageError(`--device ${name}: stands twice`);
  const [device, ...more] = await readDevices(context, '--device', path);
  if (device === undefined || more.length > 0)
    throw new UsageError(`--device ${printable(path)}: ${more.length + 1} devices; --device-evidence takes them all`);
  return { ...device, name };
}

/** Named as the evidence names them: `gpu0`, `switch0`, or as whoever asked called the device. */
async function readDeviceFile(
  context: Context,
  path: string,
  before: readonly BundleDevice[],
): Promise<readonly BundleDevice[]> {
  const taken = before.map(({ name }) => name);
  return (await readDevices(context, '--device-evidence', path)).map((device) => {
    let name = device.name;
    for (let i = 0; taken.includes(name); i++) name = `${device.name.replace(/\d+$/, '')}${i}`;
    taken.push(name);
    return { ...device, name };
  });
}

/** At least one. */
async function readDevices(context: Context, option: string, path: string): Promise<readonly BundleDevice[]> {
  const shown = `${option} ${printable(path)}`;
  const bytes = await readBytes(context, path);
  if (typeof bytes === 'string') throw new UsageError(`${shown}: ${bytes}`);
  const document = latin1(bytes);
  if (document.slice(0, 256).includes(EVIDENCE_FORMAT)) {
    const spdm = decodeEvidence(document);
    if (!spdm.ok) throw new UsageError(`${shown}: ${spdm.error.message}`);
    const name = spdm.value.device.replace(/^pci:/, '');
    const locked = shownInterface(spdm.value.interface);
    const given = { kind: 'spdm' as const, evidence: bytes, certificates: new Uint8Array(), interface: locked };
    return [{ ...given, name: /^[\x21-\x7e]{1,64}$/.test(name) ? name : 'device0' }];
  }
  const { found, problems } = recognise(printable(path), bytes);
  const [problem] = problems;
  if (problem !== undefined) throw new UsageError(`${shown}: ${formatProblem(problem)}`);
  const certificates = found.flatMap(({ item, source }) =>
    item.kind === 'certificate' ? [{ der: item.certificate.der, of: parentOf(source) }] : [],
  );
  const devices = found.flatMap(({ item, source }): BundleDevice[] => {
    if (item.kind !== 'nvidia-report') return [];
    // In a list each report stands beside its own chain.
    const own = certificates.filter(({ of }) => of === parentOf(source));
    const chain = concat(...(own.length > 0 ? own : certificates).map(({ der }) => der));
    const name = isSwitch(item.report) ? 'switch0' : 'gpu0';
    return [{ name, kind: 'nvidia', evidence: item.report.bytes, certificates: chain, interface: null }];
  });
  if (devices.length === 0)
    throw new UsageError(`${shown}: a report of NVIDIA's tool, or what airlock device attest --save wrote, is needed`);
  return devices;
}

/** `gpus.json[0]: evidence` stands in `gpus.json[0]`. */
function parentOf(source: string): string {
  return source.replace(/[.:] ?[^.:[\]]*$/, '');
}

function lookedText(looked: readonly Looked[]): string {
  const marks = { taken: '✓', absent: '-', failed: '✗' } as const;
  const width = Math.max(...looked.map(({ what }) => what.length));
  return looked
    .map(
      ({ what, path, status, detail }) =>
        `${marks[status]} ${what.padEnd(width)}  ${printable(path)}: ${printable(detail)}\n`,
    )
    .join('');
}
