/**
 * Protocols of the PCI-SIG within an SPDM session, PCIe 6.1 §6.31.3: vendor-defined messages whose payload begins with
 * the protocol’s id.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { PCI_SIG } from './object.ts';

/** StandardID of DSP0274’s table of registries. */
export const PCI_SIG_STANDARD = 3;
/** VendorID, as it stands in a vendor-defined message. */
export const PCI_SIG_VENDOR: Uint8Array = Uint8Array.of(PCI_SIG, 0);

export const PCI_PROTOCOLS = ['ide-km', 'tdisp'] as const;
export type PciProtocol = (typeof PCI_PROTOCOLS)[number];

export interface PciMessage {
  readonly protocol: PciProtocol;
  readonly message: Uint8Array;
}

/** The payload of a vendor-defined message. */
export function encodePciMessage({ protocol, message }: PciMessage): Uint8Array {
  return concat(Uint8Array.of(PCI_PROTOCOLS.indexOf(protocol)), message);
}

/** Codes: `pci-protocol-invalid`. */
export function decodePciMessage(payload: Uint8Array): Result<PciMessage> {
  const protocol = PCI_PROTOCOLS[payload[0] ?? -1];
  if (protocol === undefined)
    return fail('pci-protocol-invalid', payload.length === 0 ? 'an empty payload' : `protocol id ${payload[0]}`);
  return ok({ protocol, message: payload.slice(1) });
}

/** Asks the device within a session: a message of the protocol in, the answer’s message of the same protocol out. */
export type PciAsk = (message: Uint8Array) => Promise<Result<Uint8Array>>;

/** `ask` of one protocol over vendor-defined payloads. Codes: those of `exchange`, `pci-protocol-invalid`. */
export function pciAsk(protocol: PciProtocol, exchange: (payload: Uint8Array) => Promise<Result<Uint8Array>>): PciAsk {
  return async (message) => {
    const payload = await exchange(encodePciMessage({ protocol, message }));
    if (!payload.ok) return payload;
    const answer = decodePciMessage(payload.value);
    if (!answer.ok) return answer;
    return answer.value.protocol === protocol
      ? ok(answer.value.message)
      : fail('pci-protocol-invalid', `an answer of ${answer.value.protocol} to ${protocol}`);
  };
}
