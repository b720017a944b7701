/**
 * Which comings of which devices have proven who they are, in /run/airlock/proofs.json, for the agent after this one: what
 * they do is not interrupted for as long as asking them anew takes. It is no proof: nothing is bound on its word, and it
 * counts for seconds, for this boot, and for what is still bound.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Claim } from '@airlock/core/claim.ts';
import type { Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import type { Proof } from './proofs.ts';
import { DEVICE_ID, isRecord } from './shape.ts';
import { STATE } from './state.ts';

const BYTES = 1024 * 1024;
export const PROOFS_LIMIT = 1024;
const NAMES_LIMIT = 4096;
const NAME_LIMIT = 256;

export function writeProofs(proofs: readonly Proof[], boot: string | null): string {
  const list = proofs.slice(0, PROOFS_LIMIT).map(({ device, incarnation, claim }) => {
    const { roots, measurements, spdm } = claim;
    return { device, incarnation, roots, measurements, spdm };
  });
  return `${JSON.stringify({ version: 1, boot, proofs: list })}\n`;
}

/** All or none; none where the boot cannot be told, or is another. */
export function readProofs(text: string, boot: string | null): readonly Proof[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return [];
  }
  if (!isRecord(value, ['version', 'boot', 'proofs']) || value['version'] !== 1) return [];
  const list = value['proofs'];
  if (boot === null || value['boot'] !== boot || !Array.isArray(list) || list.length > PROOFS_LIMIT) return [];
  const proofs = (list as readonly unknown[]).map(readProof);
  return proofs.every((one) => one !== undefined) ? proofs : [];
}

function readProof(value: unknown): Proof | undefined {
  if (!isRecord(value, ['device', 'incarnation', 'roots', 'measurements', 'spdm'])) return undefined;
  const { device, incarnation, roots, measurements, spdm } = value;
  if (typeof device !== 'string' || !DEVICE_ID.test(device)) return undefined;
  if (typeof incarnation !== 'string' || !/^\d{1,20}$/.test(incarnation)) return undefined;
  if (!areNames(roots) || !areNames(measurements)) return undefined;
  if (spdm !== undefined && (typeof spdm !== 'string' || !/^\d\.\d$/.test(spdm))) return undefined;
  const claim: Claim = {
    device,
    tier: 'attested',
    because: 'it proved this to the agent before this one, and is being asked anew',
    ...(roots === undefined ? {} : { roots }),
    ...(measurements === undefined ? {} : { measurements }),
    ...(spdm === undefined ? {} : { spdm }),
  };
  return { device, incarnation, claim };
}

function areNames(value: unknown): value is readonly string[] | undefined {
  if (value === undefined) return true;
  if (!Array.isArray(value) || value.length > NAMES_LIMIT) return false;
  return value.every((name) => typeof name === 'string' && name.length <= NAME_LIMIT);
}

export async function loadProofs(files: Files, boot: string | null): Promise<readonly Proof[]> {
  const bytes = await files.read(STATE.proofs, BYTES);
  return bytes.ok ? readProofs(asciiText(bytes.value), boot) : [];
}

export function saveProofs(files: Files, proofs: readonly Proof[], boot: string | null): Promise<Result<void>> {
  return files.save(STATE.proofs, writeProofs(proofs, boot), 0o600);
}
