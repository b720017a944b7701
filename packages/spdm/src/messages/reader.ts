/** What all messages have in common: four bytes in front, and an end that transports may have padded. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type SpdmVersion, VERSION_BYTE } from '../algorithms.ts';
import { FieldReader } from '../little-endian.ts';
import { nameOfCode } from './codes.ts';

/** What the sizes and the presence of fields depend on. */
export interface MessageContext {
  readonly version: SpdmVersion;
  /** Bytes of a digest of the negotiated hash; 0 while there is none. */
  readonly hashSize: number;
  /** Bytes of the responder's signature; 0 while no algorithm is negotiated. */
  readonly signatureSize: number;
  /** Bytes of the requester's signature, for mutual authentication. */
  readonly requesterSignatureSize: number;
  /** Bytes of ExchangeData in KEY_EXCHANGE and in its answer. */
  readonly exchangeSize: { readonly request: number; readonly response: number };
  /** Does the responder have several keys in this connection (MULTI_KEY_CONN_RSP)? */
  readonly multiKey: boolean;
  /** At most so many zero bytes follow a message, because the transport counts in larger units. */
  readonly padding: number;
}

/** The context before anything is negotiated. */
export function initialContext(version: SpdmVersion, padding: number): MessageContext {
  return {
    version,
    hashSize: 0,
    signatureSize: 0,
    requesterSignatureSize: 0,
    exchangeSize: { request: 0, response: 0 },
    multiKey: false,
    padding,
  };
}

/** A message and where it ended: what follows is padding of the transport and belongs to no transcript. */
export interface Decoded<T> {
  readonly message: T;
  readonly length: number;
}

export class MessageReader extends FieldReader {
  private readonly size: number;
  private readonly name: string;
  readonly parameter1: number;
  readonly parameter2: number;

  /** Reads the header; the bytes' code has been looked at by whoever chose the decoder, and is checked again. */
  constructor(bytes: Uint8Array, version: SpdmVersion | null, code: number) {
    const name = nameOfCode(code);
    super(bytes, 'message-malformed', name);
    this.size = bytes.length;
    this.name = name;
    const stated = this.u8('SPDMVersion');
    const found = this.u8('RequestResponseCode');
    this.parameter1 = this.u8('Param1');
    this.parameter2 = this.u8('Param2');
    const expected = version === null ? 0x10 : VERSION_BYTE[version];
    if (this.problem === null && stated !== expected)
      this.refuse(`SPDMVersion 0x${stated.toString(16)}, expected 0x${expected.toString(16)}`);
    if (this.problem === null && found !== code) this.refuse(`the message is ${nameOfCode(found)}`);
  }

  /** Bytes that were read. */
  get position(): number {
    return this.size - this.left;
  }

  /** Reserved bytes: the standard has receivers ignore them. */
  skip(count: number): void {
    this.take(count, 'reserved bytes');
  }

  u24(field: string): number {
    const low = this.u16(field);
    return low | (this.u8(field) << 16);
  }

  /** The end: at most `padding` bytes may follow, all of them zero. Codes: `message-malformed`. */
  end<T>(message: T, padding: number): Result<Decoded<T>> {
    const length = this.position;
    if (this.problem === null && this.left > padding) this.refuse(`${this.left} bytes follow its end`);
    if (this.problem === null && this.rest().some((byte) => byte !== 0)) this.refuse('bytes follow its end');
    return this.problem === null ? ok({ message, length }) : { ok: false, error: this.problem };
  }

  /** As `end`, for a caller that found something wrong with what the fields say together. */
  invalid(message: string): Result<never> {
    return this.problem === null
      ? fail('message-malformed', `${this.name}: ${message}`)
      : { ok: false, error: this.problem };
  }
}

/** The four bytes in front. */
export function header(version: SpdmVersion | null, code: number, parameter1 = 0, parameter2 = 0): Uint8Array {
  return Uint8Array.of(version === null ? 0x10 : VERSION_BYTE[version], code, parameter1, parameter2);
}
