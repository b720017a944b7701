/** What `airlock verify` is asked for on its command line. */
import { fromHex } from '@airlock/evidence/bytes.ts';
import type { MachineOptions } from '@airlock/evidence/machine/appraise.ts';
import { IDENTITY_TIERS, type IdentityTier } from '@airlock/evidence/machine/join.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { TCB_PARTS, type Tcb, type TcbPart } from '@airlock/evidence/snp/tcb.ts';
import { readTime } from '@airlock/evidence/time.ts';
import { texts } from './evidence-input.ts';
import { UsageError, type Values } from './verb.ts';
import { waivableCheck } from './waivable-check.ts';

/** Throws UsageError for what the user got wrong. */
export function optionsOf(values: Values): MachineOptions {
  const nonce = typeof values['nonce'] === 'string' ? hexOf('nonce', values['nonce']) : undefined;
  if (nonce !== undefined && nonce.length > 64) throw new UsageError('--nonce: at most 64 bytes');
  const asOfText = values['as-of'];
  const asOf = typeof asOfText === 'string' ? readTime(asOfText) : Date.now();
  if (asOf === undefined)
    throw new UsageError(`--as-of ${String(asOfText)}: a date such as 2026-11-20 or 2026-11-20T12:00:00Z`);
  const measurements = texts(values, 'measurement').map((text) => hexOf('measurement', text));
  if (measurements.some(({ length }) => ![32, 48, 64].includes(length)))
    throw new UsageError('--measurement: 48 bytes in hex (for CCA 32, 48 or 64)');
  const minimum = values['minimum-tcb'];
  return {
    crypto: nodeCrypto(),
    asOf,
    certificatesAlone: values['certificates'] === true,
    allowed: new Set(texts(values, 'allow').map(waivableCheck)),
    ...(nonce === undefined ? {} : { nonce }),
    ...(typeof values['tier'] === 'string' ? { tier: tierOf(values['tier']) } : {}),
    ...(measurements.length === 0 ? {} : { measurements }),
    ...(typeof minimum === 'string' ? { minimumTcb: tcbOf(minimum) } : {}),
  };
}

function hexOf(name: string, text: string): Uint8Array {
  const bytes = fromHex(text);
  if (bytes === undefined || bytes.length === 0) throw new UsageError(`--${name}: pairs of hex digits are needed`);
  return bytes;
}

function tcbOf(text: string): Tcb {
  const tcb: Partial<Record<TcbPart, number>> = {};
  for (const pair of text.split(',')) {
    const match = /^([a-z]+)=(\d{1,3})$/.exec(pair.trim());
    const part = TCB_PARTS.find((one) => one === match?.[1]);
    const value = Number(match?.[2]);
    if (part === undefined || value > 255)
      throw new UsageError(`--minimum-tcb ${pair}: NAME=0..255, NAME one of ${TCB_PARTS.join(', ')}`);
    tcb[part] = value;
  }
  return tcb;
}

function tierOf(text: string): IdentityTier {
  const tier = IDENTITY_TIERS.find((one) => one === text);
  if (tier === undefined) throw new UsageError(`--tier ${text}: one of ${IDENTITY_TIERS.join(', ')}`);
  return tier;
}
