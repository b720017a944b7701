/** What a verifier compares evidence of any kind with: its own nonce, its own launch digests. */
import { hex } from '@airlock/core/bytes.ts';
import { isZero, sameBytes } from './bytes.ts';
import type { Checklist, Place } from './check.ts';
import type { Crypto } from './crypto.ts';

/** `stated` must be the nonce, filled up with zeros to its length. */
export function checkNonce(list: Checklist, nonce: Uint8Array | undefined, stated: Uint8Array, where: Place): void {
  if (nonce === undefined) {
    list.unchecked('freshness.nonce', { expected: 'a nonce of the verifier’s', found: 'none was given', where });
    return;
  }
  const whole = new Uint8Array(stated.length);
  if (nonce.length <= whole.length) whole.set(nonce);
  const same = nonce.length <= whole.length && sameBytes(whole, stated);
  list.check('freshness.nonce', same, {
    expected: nonce.length < stated.length ? `${hex(nonce)}, filled up with zeros` : hex(nonce),
    found: same ? 'the same' : hex(stated),
    hint: 'the evidence was made for another request: ask for it anew',
    where,
  });
}

/** `measurement` must be one of those wanted. */
export function checkMeasurement(
  list: Checklist,
  wanted: readonly Uint8Array[] | undefined,
  measurement: Uint8Array,
  where: Place,
): void {
  if (wanted === undefined || wanted.length === 0) {
    list.unchecked('launch.measurement', { expected: 'a digest of the verifier’s', found: hex(measurement), where });
    return;
  }
  const same = wanted.some((one) => sameBytes(one, measurement));
  list.check('launch.measurement', same, {
    expected: wanted.map(hex).join(' or '),
    found: same ? 'the same' : hex(measurement),
    hint: 'something else was launched, or it was launched otherwise (number of processors, firmware, command line)',
    where,
  });
}

/** REPORT_DATA must be the SHA-256 of Azure's runtime data, filled up with zeros. */
export function checkRuntimeData(
  list: Checklist,
  crypto: Crypto,
  runtimeData: Uint8Array,
  reportData: Uint8Array,
  where: Place,
): void {
  const digest = crypto.hash('sha256', runtimeData);
  const same = sameBytes(digest, reportData.subarray(0, 32)) && isZero(reportData.subarray(32));
  list.check('azure.runtime-data', same, {
    expected: `${hex(digest)}, the runtime data’s SHA-256, filled up with zeros`,
    found: same ? 'the same' : hex(reportData),
    where,
  });
}
