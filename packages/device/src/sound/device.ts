/** A sound card: one stream out, whose samples are handed on, one stream in, which is silent, and a jack. VIRTIO 1.4 §5.14. */
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { sound } from '@airlock/virtio/device/sound.ts';
import { NO_FEATURES } from '@airlock/virtio/features.ts';
import { type DeviceModel, LATER, type ModelLink } from '../model/model.ts';

const JACK_INFO = 0x0001;
const PCM_INFO = 0x0100;
const PCM_SET_PARAMS = 0x0101;
const PCM_PREPARE = 0x0102;
const PCM_START = 0x0104;
const PCM_STOP = 0x0105;
const CHMAP_INFO = 0x0200;

const OK = 0x8000;
const BAD_MSG = 0x8001;
const NOT_SUPP = 0x8002;
const IO_ERR = 0x8003;

const OUTPUT = 0;
const INPUT = 1;
const STREAMS = 2;
/** Bytes of one entry of each answer. */
const JACK_SIZE = 24;
const PCM_SIZE = 32;
const CHMAP_SIZE = 24;
const FORMAT_S16 = 5;
/** Numbers of rates (§5.14.6.6.2) and hertz. */
const RATES: Readonly<Record<number, number>> = { 6: 44_100, 7: 48_000 };
const BUFFER_LIMIT = 1 << 20;
/** Samples of one message. */
const PERIOD_LIMIT = 256 * 1024;

/** Messages that wait for their time: more than any driver's ring of periods has. */
const WAITING_LIMIT = 64;
const WAITING_BYTES = 2 * BUFFER_LIMIT;
const TX = 2;
const RX = 3;

/** Calls once, not before so many milliseconds; the returned function takes it back. */
export type After = (milliseconds: number, call: () => void) => () => void;

/** What the driver plays; 16 bits a sample, little-endian, channels in turn. */
export interface SoundSink {
  /** A stream begins to play with these. */
  format(rate: number, channels: number): void;
  samples(bytes: Uint8Array): void;
}

type State = 'idle' | 'set' | 'prepared' | 'running';

interface Message {
  readonly token: number;
  /** What is to be played, or silence of that length. */
  readonly bytes: Uint8Array;
}

/** One stream: its messages are done one after the other, each after the time that its samples last. */
class Stream {
  state: State = 'idle';
  rate = 48_000;
  channels = 2;
  private readonly waiting: Message[] = [];
  private waitingBytes = 0;
  private takeBack: (() => void) | null = null;
  private readonly after: After;
  private readonly done: (message: Message, status: number) => void;

  constructor(after: After, done: (message: Message, status: number) => void) {
    this.after = after;
    this.done = done;
  }

  /** False where too much waits. */
  add(message: Message): boolean {
    const full = this.waiting.length >= WAITING_LIMIT || this.waitingBytes + message.bytes.length > WAITING_BYTES;
    if (this.state === 'idle' || this.state === 'set' || full) return false;
    this.waiting.push(message);
    this.waitingBytes += message.bytes.length;
    this.go();
    return true;
  }

  go(): void {
    const first = this.waiting[0];
    if (this.state !== 'running' || this.takeBack !== null || first === undefined) return;
    const milliseconds = (first.bytes.length / (2 * this.channels * this.rate)) * 1000;
    this.takeBack = this.after(milliseconds, () => {
      this.takeBack = null;
      this.finish(OK);
      this.go();
    });
  }

  pause(): void {
    this.takeBack?.();
    this.takeBack = null;
  }

  private finish(status: number): void {
    const message = this.waiting.shift();
    if (message === undefined) return;
    this.waitingBytes -= message.bytes.length;
    this.done(message, status);
  }

  /** §5.14.6.6.5.1: a release ends every message. */
  release(): void {
    this.pause();
    while (this.waiting.length > 0) this.finish(IO_ERR);
  }

  forget(): void {
    this.pause();
    this.waiting.length = 0;
    this.waitingBytes = 0;
    this.state = 'idle';
  }
}

export function soundModel(sink: SoundSink, after: After): DeviceModel {
  const encoded = encodeConfig(sound, NO_FEATURES, { jacks: 1, streams: STREAMS, chmaps: STREAMS });
  const config = encoded.ok ? encoded.value : new Uint8Array(12);
  let link: ModelLink | null = null;
  const counts = { requests: 0, refused: 0, played: 0, recorded: 0, starts: 0 };

  const streams: [Stream, Stream] = [
    new Stream(after, ({ token, bytes }, status) => {
      if (status === OK) {
        counts.played += bytes.length;
        sink.samples(bytes);
      }
      link?.finish(TX, token, pcmStatus(status, 0));
    }),
    new Stream(after, ({ token, bytes }, status) => {
      if (status === OK) counts.recorded += bytes.length;
      link?.finish(RX, token, pcmStatus(status, bytes.length));
    }),
  ];

  /** An answer of items that the driver asks for by first and count (§5.14.6.2). */
  function items(
    view: DataView,
    reply: DataView,
    size: number,
    there: number,
    put: (item: number, at: number) => void,
  ) {
    if (view.byteLength < 16) return BAD_MSG;
    const [first, count, asked] = [view.getUint32(4, true), view.getUint32(8, true), view.getUint32(12, true)];
    if (asked !== size || count > there || first > there - count || reply.byteLength < 4 + count * size) return BAD_MSG;
    for (let i = 0; i < count; i++) put(first + i, 4 + i * size);
    return OK;
  }
  function setParameters(stream: Stream, view: DataView): number {
    if (view.byteLength < 24) return BAD_MSG;
    const [buffer, period, features] = [view.getUint32(8, true), view.getUint32(12, true), view.getUint32(16, true)];
    const [channels, format, rate] = [view.getUint8(20), view.getUint8(21), RATES[view.getUint8(22)]];
    if (features !== 0 || format !== FORMAT_S16 || rate === undefined || channels < 1 || channels > 2) return NOT_SUPP;
    if (period === 0 || buffer > BUFFER_LIMIT || buffer % period !== 0) return BAD_MSG;
    if (stream.state === 'running') return BAD_MSG;
    Object.assign(stream, { state: 'set', rate, channels });
    return OK;
  }
  /** §5.14.6.6.1: from which states a command leads to which. */
  function step(stream: Stream, from: readonly State[], to: State): number {
    if (!from.includes(stream.state)) return BAD_MSG;
    stream.state = to;
    return OK;
  }
  function execute(code: number, view: DataView, reply: DataView): number {
    if (code === JACK_INFO) {
      return items(view, reply, JACK_SIZE, 1, (_, at) => {
        reply.setUint32(at + 8, 0x0010_0000, true); // a line out, by default: HDA pin configuration
        reply.setUint8(at + 16, 1); // plugged in
      });
    }
    if (code === PCM_INFO) {
      return items(view, reply, PCM_SIZE, STREAMS, (item, at) => {
        reply.setUint32(at + 8, 1 << FORMAT_S16, true);
        for (const rate of Object.keys(RATES)) reply.setUint8(at + 16, reply.getUint8(at + 16) | (1 << Number(rate)));
        reply.setUint8(at + 24, item);
        reply.setUint8(at + 25, 1);
        reply.setUint8(at + 26, 2);
      });
    }
    if (code === CHMAP_INFO) {
      return items(view, reply, CHMAP_SIZE, STREAMS, (item, at) => {
        reply.setUint8(at + 4, item);
        reply.setUint8(at + 5, 2);
        reply.setUint8(at + 6, 3); // front left
        reply.setUint8(at + 7, 4); // front right
      });
    }
    const stream = view.byteLength >= 8 ? streams[view.getUint32(4, true)] : undefined;
    if (code < PCM_SET_PARAMS || code > PCM_STOP) return NOT_SUPP;
    if (stream === undefined) return BAD_MSG;
    switch (code) {
      case PCM_SET_PARAMS:
        return setParameters(stream, view);
      case PCM_PREPARE:
        if (stream === streams[OUTPUT]) sink.format(stream.rate, stream.channels);
        return step(stream, ['set', 'prepared'], 'prepared');
      case PCM_START: {
        const started = step(stream, ['prepared'], 'running');
        if (started === OK) counts.starts++;
        stream.go();
        return started;
      }
      case PCM_STOP:
        stream.pause();
        return step(stream, ['running'], 'prepared');
      default:
        stream.release();
        return step(stream, ['set', 'prepared'], 'set');
    }
  }
  function answerControl(request: Uint8Array, reply: Uint8Array): number {
    if (request.length < 4 || reply.length < 4) return 0;
    counts.requests++;
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    const outcome = execute(view.getUint32(0, true), view, out);
    if (outcome !== OK) counts.refused++;
    out.setUint32(0, outcome, true);
    return outcome === OK ? reply.length : 4;
  }
  return {
    type: sound,
    queues: [
      { kind: 'requests', requestLimit: 64, replyLimit: 4 + STREAMS * PCM_SIZE, answer: answerControl },
      { kind: 'events' },
      {
        ...{ kind: 'requests', requestLimit: 4 + PERIOD_LIMIT, replyLimit: 8, laterLimit: WAITING_LIMIT },
        answer(request, reply, { size, token }) {
          if (reply.length < 8) return 0;
          const fits = size <= request.length && request.length > 4 && numberOf(request) === OUTPUT;
          if (fits && streams[OUTPUT].add({ token, bytes: request.slice(4) })) return LATER;
          counts.refused++;
          reply.set(pcmStatus(fits ? IO_ERR : BAD_MSG, 0));
          return 8;
        },
      },
      {
        ...{ kind: 'requests', requestLimit: 4, replyLimit: PERIOD_LIMIT + 8, laterLimit: WAITING_LIMIT },
        answer(request, reply, { room, token }) {
          if (reply.length < 8 || room > reply.length) return 0;
          const fits = reply.length > 8 && numberOf(request) === INPUT;
          if (fits && streams[INPUT].add({ token, bytes: new Uint8Array(reply.length - 8) })) return LATER;
          counts.refused++;
          reply.set(pcmStatus(fits ? IO_ERR : BAD_MSG, 0), reply.length - 8);
          return reply.length;
        },
      },
    ],
    config: () => config,
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      for (const stream of streams) stream.forget();
    },
    facts: () => ({ ...counts, output: streams[OUTPUT].state, input: streams[INPUT].state }),
  };
}

/** Which stream a message is for; -1 where it does not say. */
function numberOf(request: Uint8Array): number {
  return request.length < 4 ? -1 : new DataView(request.buffer, request.byteOffset).getUint32(0, true);
}

/** struct virtio_snd_pcm_status behind so much silence. */
function pcmStatus(status: number, silence: number): Uint8Array {
  const bytes = new Uint8Array(silence + 8);
  new DataView(bytes.buffer).setUint32(silence, status, true);
  return bytes;
}
