/** A crypto accelerator: AES in CBC, with sessions. VIRTIO 1.4 §5.9. Keys are wiped when their session ends. */
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { cryptoDevice } from '@airlock/virtio/device/crypto.ts';
import { NO_FEATURES } from '@airlock/virtio/features.ts';
import type { DeviceModel } from '../model/model.ts';

/** AES-CBC without padding over whole blocks, into `into`, which is as long as `from`; false where that is impossible. */
export type AesCbc = (
  encrypts: boolean,
  key: Uint8Array,
  iv: Uint8Array,
  from: Uint8Array,
  into: Uint8Array,
) => boolean;

const HW_READY = 1;
const CIPHER_SERVICE = 1; // bit of VIRTIO_CRYPTO_SERVICE_CIPHER
const AES_CBC = 3;
const CREATE_CIPHER = 0x0002;
const DESTROY_CIPHER = 0x0003;
const ENCRYPT = 0x0000;
const DECRYPT = 0x0001;
const PLAIN_SYMMETRIC = 1;
const OP_ENCRYPT = 1;
const OP_DECRYPT = 2;

/** §5.9.7: status codes. */
const OK = 0;
const ERR = 1;
const NOTSUPP = 3;
const INVSESS = 4;
const NOSPC = 5;

/** Header of 16 bytes, then parameters of 56, whatever the request. */
const CONTROL_REQUEST = 72;
const DATA_REQUEST = 72;
const KEY_LIMIT = 32;
const BLOCK = 16;
export const SESSIONS_LIMIT = 1024;
export const DATA_LIMIT = 64 * 1024;

interface Session {
  readonly encrypts: boolean;
  readonly key: Uint8Array;
}

interface Transformed {
  readonly status: number;
  readonly length: number;
}
const refused = (status: number): Transformed => ({ status, length: 0 });
/** Each status as the byte that it is. */
const STATUSES = Array.from({ length: 6 }, (_, status) => Uint8Array.of(status));

export function cryptoModel(aesCbc: AesCbc): DeviceModel {
  const encoded = encodeConfig(cryptoDevice, NO_FEATURES, {
    ...{ status: HW_READY, max_dataqueues: 1, crypto_services: CIPHER_SERVICE, cipher_algo_l: 1 << AES_CBC },
    ...{ max_cipher_key_len: KEY_LIMIT, max_size: [DATA_LIMIT, 0] },
  });
  const config = encoded.ok ? encoded.value : new Uint8Array(56);
  const sessions = new Map<number, Session>();
  let last = 0;
  const counts = { requests: 0, refused: 0, encrypted: 0, decrypted: 0 };

  function endSession(id: number): boolean {
    const session = sessions.get(id);
    session?.key.fill(0);
    return sessions.delete(id);
  }
  function create(request: Uint8Array, view: DataView): { readonly status: number; readonly id: number } {
    const wrong = (status: number) => ({ status, id: 0 });
    if (request.length < CONTROL_REQUEST) return wrong(ERR);
    const [algorithm, keyLength, operation] = [
      view.getUint32(16, true),
      view.getUint32(20, true),
      view.getUint32(24, true),
    ];
    if (view.getUint32(64, true) !== PLAIN_SYMMETRIC || algorithm !== AES_CBC) return wrong(NOTSUPP);
    if (![16, 24, 32].includes(keyLength) || ![OP_ENCRYPT, OP_DECRYPT].includes(operation)) return wrong(ERR);
    const key = request.slice(CONTROL_REQUEST, CONTROL_REQUEST + keyLength);
    if (key.length !== keyLength) return wrong(ERR);
    if (sessions.size >= SESSIONS_LIMIT) return wrong(NOSPC);
    last = (last + 1) % 2 ** 31;
    sessions.set(last, { encrypts: operation === OP_ENCRYPT, key });
    return { status: OK, id: last };
  }
  function answerControl(request: Uint8Array, reply: Uint8Array): number {
    counts.requests++;
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    const opcode = request.length >= 16 ? view.getUint32(0, true) : 0;
    if (opcode === DESTROY_CIPHER) {
      if (reply.length < 1) return 0;
      const known = request.length >= 24 && endSession(view.getUint32(16, true) + view.getUint32(20, true) * 2 ** 32);
      if (!known) counts.refused++;
      reply[0] = known ? OK : INVSESS;
      return 1;
    }
    if (reply.length < 16) return 0;
    const { status, id } = opcode === CREATE_CIPHER ? create(request, view) : { status: NOTSUPP, id: 0 };
    if (status !== OK) counts.refused++;
    out.setUint32(0, id, true);
    out.setUint32(8, status, true);
    return 16;
  }
  /** What becomes of a data request; fills the front of `into`. */
  function transform(request: Uint8Array, into: Uint8Array): Transformed {
    if (request.length < DATA_REQUEST) return refused(ERR);
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const opcode = view.getUint32(0, true);
    const session = sessions.get(view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32);
    if (opcode !== ENCRYPT && opcode !== DECRYPT) return refused(NOTSUPP);
    if (session === undefined) return refused(INVSESS);
    if (view.getUint32(64, true) !== PLAIN_SYMMETRIC) return refused(NOTSUPP);
    const [ivLength, from, to] = [view.getUint32(24, true), view.getUint32(28, true), view.getUint32(32, true)];
    const whole = from > 0 && from % BLOCK === 0 && from <= DATA_LIMIT && to >= from;
    if (ivLength !== BLOCK || !whole || session.encrypts !== (opcode === ENCRYPT) || into.length < from)
      return refused(ERR);
    const iv = request.subarray(DATA_REQUEST, DATA_REQUEST + BLOCK);
    const data = request.subarray(DATA_REQUEST + BLOCK, DATA_REQUEST + BLOCK + from);
    if (data.length !== from) return refused(ERR);
    if (!aesCbc(session.encrypts, session.key, iv, data, into.subarray(0, from))) return refused(ERR);
    counts[session.encrypts ? 'encrypted' : 'decrypted'] += from;
    return { status: OK, length: from };
  }
  return {
    type: cryptoDevice,
    queues: [
      {
        ...{ kind: 'requests', size: 128 },
        requestLimit: DATA_REQUEST + BLOCK + DATA_LIMIT,
        replyLimit: DATA_LIMIT,
        answer(request, reply, facts) {
          const { room } = facts;
          counts.requests++;
          // The status is the last byte that the driver gave, which may be far behind the data: what is between stays.
          const into = reply.subarray(0, Math.max(0, Math.min(reply.length, room - 1)));
          const { status, length } = transform(request, into);
          if (status !== OK) counts.refused++;
          facts.tail = STATUSES[status] ?? null;
          return length;
        },
      },
      {
        ...{ kind: 'requests', requestLimit: CONTROL_REQUEST + 2 * KEY_LIMIT, replyLimit: 16 },
        answer: (request, reply) => answerControl(request, reply),
      },
    ],
    config: () => config,
    end() {
      for (const id of [...sessions.keys()]) endSession(id);
    },
    facts: () => ({ ...counts, sessions: sessions.size }),
  };
}
