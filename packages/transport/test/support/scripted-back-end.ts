/** A back-end written by hand: it answers as it is told, right or wrong. It has no device behind it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Result } from '@airlock/core/result.ts';
import { listenUnix, type UnixListener } from '@airlock/transport/unix-listener.ts';
import { receive, send } from '@airlock/transport/unix-socket.ts';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { encodeMessage } from '@airlock/transport/vhost-user/message.ts';
import type { Payload } from '@airlock/transport/vhost-user/payload.ts';
import {
  FRONT_END_MESSAGES,
  type FrontEndMessage,
  frontEndMessage,
  NEED_REPLY,
  PROTOCOL_FEATURES_BIT,
  type ProtocolFeature,
  protocolFeatureSet,
  REPLY,
} from '@airlock/transport/vhost-user/protocol.ts';
import type { Wait } from '@airlock/transport/vhost-user/wait.ts';
import { must, systemCalls } from './scripted-front-end.ts';

export interface Told {
  readonly name: FrontEndMessage | undefined;
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly fds: readonly number[];
}

/** Bytes to send, with descriptors; nothing; or the end of the connection. */
export type Said = Uint8Array | { readonly bytes: Uint8Array; readonly fds: readonly number[] } | null | 'hang up';
export type Script = Partial<Record<FrontEndMessage, Said | ((told: Told) => Said)>>;

const folder = mkdtempSync(join(tmpdir(), 'vhost-user-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
let sockets = 0;

export function reply(name: FrontEndMessage, payload: Payload, flags = REPLY): Uint8Array {
  return encodeMessage(FRONT_END_MESSAGES[name].number, flags, payload);
}

export const number = (low: number, high = 0): Payload => ({ form: 'u64', words: [low, high] });

export class ScriptedBackEnd {
  readonly path = join(folder, `socket-${sockets++}`);
  /** Names of what came, in order. */
  readonly told: string[] = [];
  /** The descriptor of SET_BACKEND_REQ_FD. */
  channel = -1;
  private readonly listener: UnixListener;
  private readonly script: Script;
  private readonly features: Payload;
  private readonly protocol: number;
  private connection = -1;
  private time = 0;
  private buffer = new Uint8Array(0);
  private fds: number[] = [];
  readonly kept: number[] = [];

  constructor(script: Script = {}, protocol: readonly ProtocolFeature[] = ['MQ', 'REPLY_ACK', 'CONFIG'], bits = [32]) {
    this.script = script;
    const high = bits.reduce((word, bit) => (bit >= 32 ? (word | (1 << (bit - 32))) >>> 0 : word), 0);
    const low = bits.reduce((word, bit) => (bit < 32 ? (word | (1 << bit)) >>> 0 : word), 1 << PROTOCOL_FEATURES_BIT);
    this.features = number(low >>> 0, high);
    this.protocol = protocolFeatureSet(protocol);
    this.listener = must(listenUnix(systemCalls, this.path));
  }

  connect(timeout = 1000): Result<FrontEnd> {
    return FrontEnd.connect(this.path, { calls: systemCalls, wait: this.wait, now: this.now, timeout });
  }

  readonly now = (): number => this.time;

  /** While the front-end waits, this side works; then the time is over. */
  readonly wait: Wait = (_fds, _writable, milliseconds) => {
    this.time += Math.max(1, milliseconds / 4);
    this.pump();
  };

  pump(): void {
    if (this.connection < 0) this.connection = must(this.listener.accept()) ?? -1;
    if (this.connection < 0) return;
    for (;;) {
      const chunk = new Uint8Array(4096);
      const got = receive(systemCalls, this.connection, chunk, 8);
      if (!got.ok || got.value.length === 0) break;
      this.fds.push(...got.value.fds);
      this.buffer = Uint8Array.from([...this.buffer, ...chunk.subarray(0, got.value.length)]);
    }
    while (this.buffer.length >= 12) {
      const view = new DataView(this.buffer.buffer);
      const size = view.getUint32(8, true);
      if (this.buffer.length < 12 + size) return;
      const payload = this.buffer.slice(12, 12 + size);
      const name = frontEndMessage(view.getUint32(0, true));
      const flags = view.getUint32(4, true);
      this.buffer = this.buffer.slice(12 + size);
      this.told.push(name ?? '?');
      if (!this.answer({ name, flags, payload, fds: this.fds.splice(0) })) return;
    }
  }

  private answer(told: Told): boolean {
    const { name } = told;
    this.kept.push(...told.fds);
    if (name === 'SET_BACKEND_REQ_FD') this.channel = told.fds[0] ?? -1;
    const scripted = name === undefined ? null : this.script[name];
    const said = typeof scripted === 'function' ? scripted(told) : scripted;
    const answer = said === undefined ? this.usual(told) : said;
    if (answer === 'hang up') {
      this.hangUp();
      return false;
    }
    if (answer === null) return true;
    if (answer instanceof Uint8Array) must(send(systemCalls, this.connection, answer));
    else must(send(systemCalls, this.connection, answer.bytes, answer.fds));
    return true;
  }

  /** What a back-end in order says. */
  private usual({ name, flags, payload }: Told): Uint8Array | null {
    switch (name) {
      case 'GET_FEATURES':
        return reply(name, this.features);
      case 'GET_PROTOCOL_FEATURES':
        return reply(name, number(this.protocol));
      case 'GET_QUEUE_NUM':
        return reply(name, number(1));
      case 'GET_MAX_MEM_SLOTS':
        return reply(name, number(64));
      case 'GET_STATUS':
        return reply(name, number(11));
      case 'GET_VRING_BASE':
      case 'GET_CONFIG':
        return Uint8Array.from([
          ...encodeMessage(FRONT_END_MESSAGES[name].number, REPLY, { form: 'opaque', bytes: payload }),
        ]);
      default:
        return name !== undefined && (flags & NEED_REPLY) !== 0 ? reply(name, number(0)) : null;
    }
  }

  hangUp(): void {
    if (this.connection >= 0) systemCalls.close(this.connection);
    this.connection = -1;
    this.buffer = new Uint8Array(0);
    for (const fd of this.fds.splice(0)) systemCalls.close(fd);
    for (const fd of this.kept.splice(0)) systemCalls.close(fd);
  }

  end(): void {
    this.hangUp();
    this.listener.close();
  }
}
