/** A responder on a socket: SPDM over TCP as DSP0287 has it, or the socket protocol that QEMU’s `spdm_port` speaks. */
import { createServer, type Server, type Socket } from 'node:net';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes } from '@airlock/evidence/bytes.ts';
import { decodeEmulatorFrame, EMULATOR_COMMAND, encodeEmulatorFrame } from './emulator-frame.ts';
import { createEmulatorFramer, createTcpFramer } from './framer.ts';
import { SOCKET_FORM, type SocketForm } from './socket-form.ts';

/** One connection’s responder: a message of the binding for another; nothing to send ends the connection. */
export type Answerer = (message: Uint8Array) => Result<Uint8Array> | Promise<Result<Uint8Array>>;

export interface SocketServerOptions {
  /** A TCP address, or a path. */
  readonly listen: { readonly host: string; readonly port: number } | { readonly path: string };
  readonly form: SocketForm;
  /** Called for each connection, so that none knows of another’s state. */
  readonly open: () => Answerer;
  /** What happens, for whoever looks on. */
  readonly onEvent?: (event: ServerEvent) => void;
}

export type ServerEvent =
  | { readonly event: 'connected' | 'disconnected' }
  | { readonly event: 'message'; readonly request: Uint8Array; readonly answer: Uint8Array | null }
  | { readonly event: 'refused'; readonly code: string; readonly message: string };

export interface SocketServer {
  /** 0 for a path. */
  readonly port: number;
  close(): Promise<void>;
  /** Settles when the server is closed, by us or by an emulator’s shutdown command. */
  readonly closed: Promise<void>;
}

/** Connections at a time; a device has one host. */
const CONNECTION_LIMIT = 16;
/** Messages that wait for their answer on one connection. */
const QUEUE_LIMIT = 64;

/** Codes: `link-refused` (the address is taken, or not ours). */
export async function serveSocket(options: SocketServerOptions): Promise<Result<SocketServer>> {
  const { listen, onEvent } = options;
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true });
  const closed = new Promise<void>((resolve) => server.once('close', resolve));
  const close = async (): Promise<void> => {
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  server.maxConnections = CONNECTION_LIMIT;
  server.on('connection', (socket) => {
    sockets.add(socket);
    onEvent?.({ event: 'connected' });
    socket.on('error', () => undefined);
    socket.once('close', () => {
      sockets.delete(socket);
      onEvent?.({ event: 'disconnected' });
    });
    converse(socket, options, () => void close());
  });
  const listening = await listenOn(server, listen);
  if (!listening.ok) return listening;
  const address = server.address();
  return ok({ port: typeof address === 'object' && address !== null ? address.port : 0, close, closed });
}

function listenOn(server: Server, listen: SocketServerOptions['listen']): Promise<Result<void>> {
  return new Promise((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) => resolve(fail('link-refused', error.code ?? error.message)));
    server.listen(listen, () => {
      server.removeAllListeners('error');
      server.on('error', () => undefined);
      resolve(ok(undefined));
    });
  });
}

const HELLO = asciiBytes('Server Hello!\0');

function converse(socket: Socket, { form, open, onEvent }: SocketServerOptions, shutdown: () => void): void {
  const { transport } = SOCKET_FORM[form];
  const framer = transport === null ? createTcpFramer() : createEmulatorFramer();
  const answerer = open();
  let queue: Promise<void> = Promise.resolve();
  let waiting = 0;
  const refuse = (code: string, message: string) => {
    onEvent?.({ event: 'refused', code, message });
    socket.destroy();
  };

  async function answer(message: Uint8Array): Promise<Uint8Array | null> {
    const result = await answerer(message);
    onEvent?.({ event: 'message', request: message, answer: result.ok ? result.value : null });
    if (!result.ok) refuse(result.error.code, result.error.message);
    return result.ok ? result.value : null;
  }

  async function takeFrame(bytes: Uint8Array): Promise<void> {
    const frame = decodeEmulatorFrame(bytes);
    if (!frame.ok) return refuse(frame.error.code, frame.error.message);
    const { command, transport: found, payload } = frame.value;
    if (found !== transport)
      return refuse('emulator-frame-invalid', `transport ${found}, this responder speaks ${transport}`);
    const send = (code: number, body: Uint8Array) => {
      const reply = encodeEmulatorFrame({ command: code, transport: found, payload: body });
      if (reply.ok) socket.write(reply.value);
      else refuse(reply.error.code, reply.error.message);
    };
    if (command === EMULATOR_COMMAND.message) {
      const reply = await answer(payload);
      if (reply !== null) send(command, reply);
    } else if (command === EMULATOR_COMMAND.hello) send(command, HELLO);
    else if (command === EMULATOR_COMMAND.continue || command === EMULATOR_COMMAND.shutdown) {
      send(command, new Uint8Array());
      socket.end();
      if (command === EMULATOR_COMMAND.shutdown) shutdown();
    } else send(EMULATOR_COMMAND.unknown, new Uint8Array());
  }

  async function take(bytes: Uint8Array): Promise<void> {
    if (transport !== null) return takeFrame(bytes);
    const reply = await answer(bytes);
    if (reply !== null) socket.write(reply);
  }

  socket.on('data', (piece: Buffer) => {
    const whole = framer.push(piece);
    if (!whole.ok) return refuse(whole.error.code, whole.error.message);
    waiting += whole.value.length;
    if (waiting > QUEUE_LIMIT) return refuse('link-closed', `more than ${QUEUE_LIMIT} messages without an answer`);
    for (const message of whole.value)
      queue = queue.then(async () => {
        if (!socket.destroyed) await take(message);
        waiting--;
      });
  });
}
