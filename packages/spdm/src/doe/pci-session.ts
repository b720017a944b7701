/** Protocols of the PCI-SIG within a session of the requester: vendor-defined requests, one for each message. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { REQUEST, RESPONSE } from '../messages/codes.ts';
import { decodeVendorDefined, encodeVendorDefined } from '../messages/vendor-defined.ts';
import type { Connection, Session } from '../requester/connection.ts';
import { drive, type Link, type Procedure } from '../requester/procedure.ts';
import { PCI_SIG_STANDARD, PCI_SIG_VENDOR, type PciAsk, type PciProtocol, pciAsk } from './pci-protocol.ts';

/** One payload and its answer. Codes: `message-*`, `peer-*`, `pci-protocol-invalid` and those of records. */
export function* exchangePciPayload(
  connection: Connection,
  session: Session,
  payload: Uint8Array,
): Procedure<Uint8Array> {
  const { context } = connection;
  const vendor = { standard: PCI_SIG_STANDARD, vendor: PCI_SIG_VENDOR };
  const request = encodeVendorDefined(context, REQUEST.VENDOR_DEFINED_REQUEST, { ...vendor, payload });
  const bytes = yield* connection.exchange(request, RESPONSE.VENDOR_DEFINED_RESPONSE, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeVendorDefined(bytes.value, context, RESPONSE.VENDOR_DEFINED_RESPONSE);
  if (!decoded.ok) return decoded;
  const { standard, vendor: found, payload: answer } = decoded.value.message;
  return standard === PCI_SIG_STANDARD && sameBytes(found, PCI_SIG_VENDOR)
    ? ok(answer)
    : fail('pci-protocol-invalid', `an answer of standard ${standard} to one of the PCI-SIG`);
}

/** Asks in one protocol over a link, in a session that protects what is said. */
export function pciSessionAsk(connection: Connection, session: Session, link: Link, protocol: PciProtocol): PciAsk {
  const exchange = (payload: Uint8Array): Promise<Result<Uint8Array>> =>
    drive(exchangePciPayload(connection, session, payload), link);
  return pciAsk(protocol, exchange);
}
