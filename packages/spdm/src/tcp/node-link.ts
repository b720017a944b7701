/** A requester's link over a socket: SPDM over TCP as DSP0287 has it, or in the frames of DMTF's emulator. */
import { connect, type Socket } from 'node:net';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Link } from '../requester/procedure.ts';
import type { Binding } from '../secured/binding.ts';
import { decodeEmulatorFrame, EMULATOR_COMMAND, encodeEmulatorFrame } from './emulator-frame.ts';
import { createEmulatorFramer, createTcpFramer, type Framer } from './framer.ts';
import { SOCKET_FORM, type SocketForm } from './socket-form.ts';

export interface SocketLink extends Link {
  readonly binding: Binding;
  /** Says goodbye, so that an emulator waits for its next client instead of ending. */
  close(): Promise<void>;
}

export interface SocketPlace {
  readonly host: string;
  readonly port: number;
  readonly form: SocketForm;
  /** For the connection, and on top of what SPDM allows for each answer, in milliseconds. */
  readonly patience?: number;
}

const PATIENCE = 5000;
const GOODBYE = 500;

/**
 * Codes: `link-refused` (nobody listens there), and of `exchange` `link-timeout`, `link-closed`, `tcp-message-*`,
 * `emulator-frame-invalid`. After any of them the link is over.
 */
export async function openSocketLink({
  host,
  port,
  form,
  patience = PATIENCE,
}: SocketPlace): Promise<Result<SocketLink>> {
  const { binding, transport } = SOCKET_FORM[form];
  const socket = await open(host, port, patience);
  if (!socket.ok) return socket;
  const messages = receive(socket.value, transport === null ? createTcpFramer() : createEmulatorFramer());
  const frame = (command: number, payload: Uint8Array): Result<Uint8Array> =>
    transport === null ? ok(payload) : encodeEmulatorFrame({ command, transport, payload });

  async function ask(command: number, payload: Uint8Array, within: number): Promise<Result<Uint8Array>> {
    const framed = frame(command, payload);
    if (!framed.ok) return framed;
    const answer = await messages.ask(framed.value, within);
    if (!answer.ok || transport === null) return answer;
    const read = decodeEmulatorFrame(answer.value);
    if (!read.ok) return read;
    return read.value.command === command && read.value.transport === transport
      ? ok(read.value.payload)
      : fail(
          'emulator-frame-invalid',
          `command 0x${read.value.command.toString(16)} in answer to 0x${command.toString(16)}`,
        );
  }

  return ok({
    binding,
    exchange: (bytes, within) => ask(EMULATOR_COMMAND.message, bytes, within + patience),
    wait: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    async close() {
      if (transport !== null && !messages.over) await ask(EMULATOR_COMMAND.continue, new Uint8Array(), GOODBYE);
      socket.value.destroy();
    },
  });
}

function open(host: string, port: number, patience: number): Promise<Result<Socket>> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, noDelay: true });
    const timer = setTimeout(() => end(fail('link-refused', `${host}:${port} does not answer`)), patience);
    const end = (result: Result<Socket>) => {
      clearTimeout(timer);
      socket.removeAllListeners();
      if (!result.ok) {
        // A late error of a socket that nobody wants any more is nobody's.
        socket.on('error', () => undefined);
        socket.destroy();
      }
      resolve(result);
    };
    socket.once('connect', () => end(ok(socket)));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end(fail('link-refused', `${host}:${port}: ${error.code ?? 'no connection'}`)),
    );
  });
}

interface Messages {
  readonly over: boolean;
  /** Sends, and gives the next whole message; one at a time. */
  ask(bytes: Uint8Array, within: number): Promise<Result<Uint8Array>>;
}

function receive(socket: Socket, framer: Framer): Messages {
  let waiting: ((message: Result<Uint8Array>) => void) | undefined;
  let fault: Problem | undefined;
  const settle = (message: Result<Uint8Array>) => {
    const resolve = waiting;
    waiting = undefined;
    resolve?.(message);
  };
  const end = (problem: Problem) => {
    fault ??= problem;
    settle({ ok: false, error: fault });
    socket.destroy();
  };
  socket.on('data', (piece: Buffer) => {
    const whole = framer.push(piece);
    if (!whole.ok) return end(whole.error);
    for (const message of whole.value) {
      // A message that nobody asked for could be taken for the answer to what is asked next.
      if (waiting === undefined) return end({ code: 'link-closed', message: 'a message came that was not asked for' });
      settle(ok(message));
    }
  });
  socket.on('error', (error: NodeJS.ErrnoException) => end({ code: 'link-closed', message: error.code ?? 'broken' }));
  socket.on('close', () => end({ code: 'link-closed', message: 'the other side closed the connection' }));
  return {
    get over() {
      return fault !== undefined;
    },
    ask(bytes, within) {
      if (fault !== undefined) return Promise.resolve({ ok: false, error: fault });
      return new Promise((resolve) => {
        const timer = setTimeout(
          () => end({ code: 'link-timeout', message: `no answer within ${Math.round(within)} ms` }),
          Math.min(within, 2 ** 31 - 1),
        );
        waiting = (message) => {
          clearTimeout(timer);
          resolve(message);
        };
        socket.write(bytes);
      });
    },
  };
}
