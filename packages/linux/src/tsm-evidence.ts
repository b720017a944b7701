/**
 * Evidence of a device out of the kernel's TSM: generic netlink family `pci-tsm`, version 1, as the series "PCI/TSM: TEE
 * I/O infrastructure" of March 2026 has it. No released kernel does; where the family is not there, that is said.
 */
import { readLe } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { le32 } from '@airlock/spdm/little-endian.ts';
import {
  encodeNetlinkRequest,
  endOf,
  findFamily,
  type GenericNetlink,
  NETLINK,
  netlinkText,
  readAttributes,
} from './netlink.ts';

const FAMILY = 'pci-tsm';
const VERSION = 1;
const EVIDENCE_READ = 1;
const ATTRIBUTE = { type: 1, typeMask: 2, flags: 3, device: 4, nonce: 5, value: 6 } as const;
/** Types of objects; certificates of slot 0 to 7 are 0 to 7. */
const OBJECT = { vca: 8, measurements: 9, report: 10 } as const;
const ERRNO = { again: 11, noEvidence: 6, unsupported: 95 } as const;
/** The kernel allows 16 MiB each; certificate chains and reports of devices have 64 KiB at most. */
const OBJECT_LIMIT = 1024 * 1024;
const RACES = 3;

export interface TsmEvidence {
  /** As SPDM carries it. */
  readonly chain: Uint8Array;
  /** GET_VERSION to ALGORITHMS, one message after the other. */
  readonly vca: Uint8Array;
  /** GET_MEASUREMENTS and its answer. */
  readonly measurements: Uint8Array;
  readonly report: Uint8Array;
  /** Did the kernel take the nonce? */
  readonly fresh: boolean;
}

/**
 * All of it, of one generation: the kernel says when it changed while it was read, and then it is read again. `device` is
 * an address. Codes: `tsm-absent`, `tsm-no-evidence`, `tsm-raced`, `netlink-invalid`, those of `netlink`.
 */
export async function readTsmEvidence(
  netlink: GenericNetlink,
  device: string,
  slot: number,
  nonce: Uint8Array,
): Promise<Result<TsmEvidence>> {
  const family = await findFamily(netlink, FAMILY);
  if (!family.ok) return family;
  const id = family.value;
  if (id === undefined)
    return fail('tsm-absent', `this kernel does not give a TSM's evidence to programs (no netlink family ${FAMILY})`);
  const types = [slot, OBJECT.vca, OBJECT.measurements, OBJECT.report];
  let given: Uint8Array | null = nonce;
  for (let attempt = 0, sequence = 2; attempt < RACES; sequence++) {
    const read = await readObjects(netlink, { family: id, sequence, device, types, nonce: given });
    if (read.ok) {
      const of = (type: number) => read.value.get(type) ?? new Uint8Array();
      const [chain, vca, measurements, report] = types.map(of) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
      return ok({ chain, vca, measurements, report, fresh: given !== null });
    }
    const { code } = read.error;
    if (code === 'tsm-nonce-refused' && given !== null) given = null;
    else if (code === 'tsm-raced') attempt++;
    else return read;
  }
  return fail('tsm-raced', `the evidence of ${device} changed each time it was read`);
}

interface Asked {
  readonly family: number;
  /** Another one for each question: a late answer to an earlier one is told from it. */
  readonly sequence: number;
  readonly device: string;
  readonly types: readonly number[];
  readonly nonce: Uint8Array | null;
}

async function readObjects(
  netlink: GenericNetlink,
  { family, sequence, device, types, nonce }: Asked,
): Promise<Result<ReadonlyMap<number, Uint8Array>>> {
  const mask = types.reduce((all, type) => all | (1 << type), 0);
  const answer = await netlink.ask(
    encodeNetlinkRequest({
      ...{ type: family, flags: NETLINK.dump, sequence, command: EVIDENCE_READ, version: VERSION },
      attributes: [
        [ATTRIBUTE.typeMask, le32(mask)],
        [ATTRIBUTE.device, netlinkText(device)],
        ...(nonce === null ? [] : ([[ATTRIBUTE.nonce, nonce]] as const)),
      ],
    }),
  );
  if (!answer.ok) return answer;
  const parts = new Map<number, Uint8Array[]>();
  let total = 0;
  for (const message of answer.value) {
    const end = endOf(message);
    if (end === ERRNO.again) return fail('tsm-raced', 'the evidence was updated while it was read');
    if (end === ERRNO.unsupported && nonce !== null) return fail('tsm-nonce-refused', 'the kernel takes no nonce');
    if (end === ERRNO.noEvidence) return fail('tsm-no-evidence', `the kernel's TSM has no evidence of ${device}`);
    if (end !== undefined && end !== 0) return fail('tsm-no-evidence', `the kernel refused: errno ${end}`);
    if (end === 0) return ok(new Map([...parts].map(([type, values]) => [type, concat(...values)])));
    if (message.type !== family) return fail('netlink-invalid', `a message of family ${message.type}, not ${family}`);
    const attributes = readAttributes(message.body);
    if (!attributes.ok) return attributes;
    const typeBytes = attributes.value.find(([one]) => one === ATTRIBUTE.type)?.[1];
    const type = typeBytes === undefined ? undefined : readLe(typeBytes, 0, 4);
    const values = attributes.value.filter(([one]) => one === ATTRIBUTE.value).map(([, value]) => value);
    if (type === undefined || !types.includes(type)) return fail('netlink-invalid', 'an object that nobody asked for');
    total += values.reduce((sum, { length }) => sum + length, 0);
    if (total > OBJECT_LIMIT) return fail('netlink-invalid', `more than ${OBJECT_LIMIT} bytes of evidence`);
    parts.set(type, [...(parts.get(type) ?? []), ...values]);
  }
  return fail('netlink-invalid', 'the answer has no end');
}
