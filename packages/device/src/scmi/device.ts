/** A platform that is asked by SCMI messages: the base protocol, and one clock. VIRTIO 1.4 §5.17, Arm DEN0056 §4.2, §4.6. */
import { scmi } from '@airlock/virtio/device/scmi.ts';
import type { DeviceModel } from '../model/model.ts';

const BASE = 0x10;
const CLOCK = 0x14;
const COMMAND = 0;
const SUCCESS = 0;
const NOT_SUPPORTED = -1;
const INVALID_PARAMETERS = -2;
const NOT_FOUND = -4;
const PROTOCOL_ERROR = -10;
const HEADER = 4;
const MESSAGE_LIMIT = 128;
const NAME = 16;
const FASTEST = 1_000_000_000;
/** Flags of setting a rate: later, by a message of its own unless that is not wanted (DEN0056 §4.6). */
const ASYNCHRONOUS = 1;
const NO_DELAYED_RESPONSE = 2;

/** What a message's parameters give: a status, and words behind it. */
interface Answer {
  readonly status: number;
  readonly words?: readonly number[];
  readonly text?: string;
}

export function scmiModel(): DeviceModel {
  const config = new Uint8Array(0);
  let rate = 100_000_000;
  let enabled = true;
  const counts = { messages: 0, refused: 0 };
  const good = (words: readonly number[] = [], text?: string): Answer => ({
    ...{ status: SUCCESS, words },
    ...(text === undefined ? {} : { text }),
  });
  const bad = (status: number): Answer => ({ status });

  /** Messages that the protocols have; parameters are words. */
  const protocols: Readonly<Record<number, Readonly<Record<number, (...words: number[]) => Answer>>>> = {
    [BASE]: {
      0: () => good([0x20000]),
      1: () => good([(1 << 8) | 1]), // one agent, one protocol besides this
      2: (message = -1) => (protocols[BASE]?.[message] === undefined ? bad(NOT_FOUND) : good([0])),
      3: () => good([], 'Airlock'),
      4: () => good([], 'lab'),
      5: () => good([1]),
      6: (skip = 0) => (skip === 0 ? good([1, CLOCK]) : skip === 1 ? good([0]) : bad(INVALID_PARAMETERS)),
      7: (agent = 0) => {
        if (agent === 0) return good([0], 'platform');
        return agent === 1 || agent === 0xffff_ffff ? good([1], 'guest') : bad(NOT_FOUND);
      },
    },
    [CLOCK]: {
      0: () => good([0x10000]),
      1: () => good([1]),
      2: (message = -1) => (protocols[CLOCK]?.[message] === undefined ? bad(NOT_FOUND) : good([0])),
      3: (id = -1) => (id === 0 ? good([enabled ? 1 : 0], 'clock') : bad(NOT_FOUND)),
      // A range, as lowest, highest and step of 64 bits each.
      4: (id = -1, first = 0) =>
        id !== 0
          ? bad(NOT_FOUND)
          : first === 0
            ? good([(1 << 12) | 3, 1, 0, FASTEST, 0, 1, 0])
            : bad(INVALID_PARAMETERS),
      5: (flags = 0, id = -1, low = 0, high = 0) => {
        // VIRTIO 1.4 §5.17.6.1.1: without an eventq there are no delayed responses to ask for.
        if ((flags & (ASYNCHRONOUS | NO_DELAYED_RESPONSE)) === ASYNCHRONOUS) return bad(NOT_SUPPORTED);
        if (id !== 0) return bad(NOT_FOUND);
        if (high !== 0 || low < 1 || low > FASTEST) return bad(INVALID_PARAMETERS);
        rate = low;
        return good();
      },
      6: (id = -1) => (id === 0 ? good([rate, 0]) : bad(NOT_FOUND)),
      7: (id = -1, attributes = 0) => {
        if (id !== 0) return bad(NOT_FOUND);
        enabled = (attributes & 1) === 1;
        return good();
      },
    },
  };
  /** How many words of parameters a message has. */
  const lengths: Readonly<Record<number, readonly number[]>> = {
    [BASE]: [0, 0, 1, 0, 0, 0, 1, 1],
    [CLOCK]: [0, 0, 1, 1, 2, 4, 1, 2],
  };
  function execute(header: number, parameters: DataView): Answer {
    const [message, type, protocol] = [header & 0xff, (header >>> 8) & 3, (header >>> 10) & 0xff];
    const handler = protocols[protocol]?.[message];
    if (type !== COMMAND || handler === undefined) return bad(NOT_SUPPORTED);
    const count = lengths[protocol]?.[message] ?? 0;
    if (parameters.byteLength !== 4 * count) return bad(PROTOCOL_ERROR);
    return handler(...Array.from({ length: count }, (_, i) => parameters.getUint32(4 * i, true)));
  }
  return {
    type: scmi,
    queues: [
      {
        ...{ kind: 'requests', requestLimit: MESSAGE_LIMIT, replyLimit: MESSAGE_LIMIT },
        answer(request, reply, { size }) {
          if (request.length < HEADER || reply.length < HEADER + 4) return 0;
          counts.messages++;
          const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
          const header = view.getUint32(0, true);
          const parameters = new DataView(request.buffer, request.byteOffset + HEADER, request.length - HEADER);
          const asked = size === request.length ? execute(header, parameters) : bad(PROTOCOL_ERROR);
          const { words = [], text } = asked;
          const length = HEADER + 4 + 4 * words.length + (text === undefined ? 0 : NAME);
          const fits = length <= reply.length;
          const status = fits ? asked.status : PROTOCOL_ERROR;
          if (status !== SUCCESS) counts.refused++;
          const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
          out.setUint32(0, header, true);
          out.setInt32(HEADER, status, true);
          if (!fits) return HEADER + 4;
          words.forEach((word, i) => {
            out.setUint32(HEADER + 4 + 4 * i, word, true);
          });
          const letters = text ?? '';
          for (let i = 0; i < letters.length; i++) reply[length - NAME + i] = letters.charCodeAt(i);
          return length;
        },
      },
    ],
    config: () => config,
    facts: () => ({ ...counts, rate, enabled }),
  };
}
