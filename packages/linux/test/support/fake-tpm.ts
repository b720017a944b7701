/** A TPM that knows the commands of a quote: a P-256 key, 24 PCRs of which it reads eight at a time, NV indices. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { ok } from '@airlock/core/result.ts';
import type { EvidenceHands, Exchange } from '../../src/attest/hands.ts';

const u16 = (value: number) => Buffer.from([value >> 8, value & 0xff]);
const u32 = (value: number) => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)]);
const sized = (bytes: Uint8Array) => Buffer.concat([u16(bytes.length), bytes]);

export interface FakeTpm {
  readonly exchange: Exchange;
  readonly spki: Uint8Array;
  /** Commands in order, by their code. */
  readonly codes: number[];
  closed: boolean;
}

export interface FakeTpmOptions {
  readonly nv?: Readonly<Record<number, Uint8Array>>;
  /** Persistent key handles. */
  readonly handles?: readonly number[];
  /** Changes an answer on its way. */
  readonly twist?: (code: number, answer: Buffer) => Uint8Array;
  /** PCRs that its bank has. */
  readonly bank?: readonly number[];
}

export function fakeTpm(options: FakeTpmOptions = {}): FakeTpm {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  const bank = options.bank ?? Array.from({ length: 24 }, (_, i) => i);
  const pcrs = Array.from({ length: 24 }, (_, i) => Buffer.alloc(32, i));
  const area = Buffer.concat([
    ...[u16(0x23), u16(0x0b), u32(0x50472), u16(0), u16(0x10), u16(0x18), u16(0x0b), u16(3), u16(0x10)],
    ...[sized(spki.subarray(-64, -32)), sized(spki.subarray(-32))],
  ]);
  const plain = (body: Uint8Array) => Buffer.concat([u16(0x8001), u32(10 + body.length), u32(0), body]);
  const authorized = (handle: Uint8Array, body: Uint8Array) => {
    const session = Buffer.from([0, 0, 0, 0, 0]);
    const content = Buffer.concat([handle, u32(body.length), body, session]);
    return Buffer.concat([u16(0x8002), u32(10 + content.length), u32(0), content]);
  };
  const refused = (code: number) => Buffer.concat([u16(0x8001), u32(10), u32(code)]);
  const chosen = (bitmap: Uint8Array) =>
    Array.from({ length: 24 }, (_, i) => i).filter((i) => ((bitmap[i >> 3] ?? 0) & (1 << (i & 7))) !== 0);
  const bits = (list: readonly number[]) => {
    const bitmap = Buffer.alloc(3);
    for (const i of list) bitmap[i >> 3] = (bitmap[i >> 3] ?? 0) | (1 << (i & 7));
    return bitmap;
  };

  const answer = (command: Buffer): Buffer => {
    const code = command.readUInt32BE(6);
    codes.push(code);
    const handle = command.readUInt32BE(10);
    switch (code) {
      case 0x131:
        return authorized(u32(0x80000000), Buffer.concat([sized(area), Buffer.alloc(20)]));
      case 0x173:
        return (options.handles ?? []).includes(handle)
          ? plain(Buffer.concat([sized(area), sized(Buffer.alloc(4))]))
          : refused(0x18b);
      case 0x158: {
        const at = 10 + 4 + 4 + command.readUInt32BE(14);
        const size = command.readUInt16BE(at);
        const data = command.subarray(at + 2, at + 2 + size);
        const selection = command.subarray(at + 2 + size + 2);
        const list = chosen(selection.subarray(7, 10));
        const digest = createHash('sha256')
          .update(Buffer.concat(list.map((i) => pcrs[i] ?? Buffer.alloc(0))))
          .digest();
        const message = Buffer.concat([
          ...[u32(0xff544347), u16(0x8018), sized(Buffer.alloc(34)), sized(data), Buffer.alloc(8), u32(1), u32(0)],
          ...[Buffer.from([1]), Buffer.alloc(8), u32(1), u16(0x0b), Buffer.from([3]), bits(list), sized(digest)],
        ]);
        return authorized(Buffer.alloc(0), Buffer.concat([sized(message), signature(message, privateKey)]));
      }
      case 0x17e: {
        const wanted = chosen(command.subarray(17, 20))
          .filter((i) => bank.includes(i))
          .slice(0, 8);
        const values = wanted.map((i) => sized(pcrs[i] ?? Buffer.alloc(0)));
        return plain(
          Buffer.concat([u32(1), u32(1), u16(0x0b), Buffer.from([3]), bits(wanted), u32(wanted.length), ...values]),
        );
      }
      case 0x169: {
        const data = options.nv?.[handle];
        if (data === undefined) return refused(0x18b);
        const nv = Buffer.concat([u32(handle), u16(0x0b), u32(0), sized(Buffer.alloc(0)), u16(data.length)]);
        return plain(Buffer.concat([sized(nv), sized(Buffer.alloc(34))]));
      }
      case 0x14e: {
        const [size, offset] = [command.readUInt16BE(command.length - 4), command.readUInt16BE(command.length - 2)];
        const data = options.nv?.[command.readUInt32BE(14)] ?? Buffer.alloc(0);
        return authorized(Buffer.alloc(0), sized(data.subarray(offset, offset + size)));
      }
      case 0x165:
        return plain(Buffer.alloc(0));
      default:
        return refused(0x143);
    }
  };
  const codes: number[] = [];
  const tpm: FakeTpm = {
    spki,
    codes,
    closed: false,
    exchange: {
      async transceive(command) {
        const given = answer(Buffer.from(command));
        return ok(new Uint8Array(options.twist?.(codes.at(-1) ?? 0, given) ?? given));
      },
      async close() {
        tpm.closed = true;
      },
    },
  };
  return tpm;
}

function signature(message: Uint8Array, key: KeyObject): Buffer {
  const raw = sign('sha256', message, { key, dsaEncoding: 'ieee-p1363' });
  return Buffer.concat([u16(0x18), u16(0x0b), sized(raw.subarray(0, 32)), sized(raw.subarray(32))]);
}

/** Hands with this TPM, and folders that are made in nothing. */
export function handsWith(tpm: FakeTpm | null, folders: EvidenceHands['folders']): EvidenceHands {
  return {
    folders,
    openExchange: async (path) =>
      tpm === null ? { ok: false, error: { code: 'file-missing', message: `${path}: ENOENT` } } : ok(tpm.exchange),
  };
}
