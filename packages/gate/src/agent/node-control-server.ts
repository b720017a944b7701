/**
 * The control socket's server end. Root only: the socket is made with mode 0600 in a folder of mode 0700, and the
 * kernel's word on who connected is asked for besides. A client that is slow, silent or rude costs itself its
 * connection, never the agent its time.
 */
import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Event } from '@airlock/core/event.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import {
  lineSplitter,
  REQUEST_LIMIT,
  type Reply,
  type Request,
  readRequest,
  type ServerLine,
} from './control-protocol.ts';

export interface ControlHandlers {
  /** Answers everything but `watch`. */
  answer(request: Exclude<Request, { verb: 'watch' }>): Promise<Result<unknown>>;
  /** Begins a stream of events; the returned function ends it. */
  watch(since: number | undefined, send: (event: Event) => void): () => void;
  /** The user at the other end of a descriptor, or null where the kernel cannot be asked. */
  peer(fd: number): number | null;
}

export interface ControlLimits {
  readonly clients: number;
  /** Requests of one client that are under way at once. */
  readonly requests: number;
  /** Bytes that may wait for a client before it is cut off. */
  readonly backlog: number;
  /** Milliseconds that a client may stay silent, unless it watches. */
  readonly idle: number;
}

export const CONTROL_LIMITS: ControlLimits = { clients: 32, requests: 8, backlog: 4 * 1024 * 1024, idle: 30_000 };

export interface ControlServer {
  readonly clients: number;
  close(): Promise<void>;
}

/** Codes: `agent-running`, `control-socket`. */
export async function serveControl(
  path: string,
  handlers: ControlHandlers,
  limits: ControlLimits = CONTROL_LIMITS,
): Promise<Result<ControlServer>> {
  if (Buffer.byteLength(path) > 107) return fail('control-socket', `${path}: longer than a socket's path can be`);
  const folder = prepareFolder(dirname(path));
  if (!folder.ok) return folder;
  if (await listens(path)) return fail('agent-running', `another agent listens on ${path}`);

  const sockets = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: false }, (socket) => {
    serveClient(socket, handlers, limits, sockets);
  });
  try {
    rmSync(path, { force: true });
    await listen(server, path);
    chmodSync(path, 0o600);
  } catch (error) {
    return fail('control-socket', `${path}: ${errno(error)}`);
  }
  server.on('error', () => undefined);
  return ok({
    get clients() {
      return sockets.size;
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroySoon();
        // Whoever does not take its last bytes is not waited for.
        setTimeout(() => {
          for (const socket of sockets) socket.destroy();
        }, 200).unref();
      }),
  });
}

function prepareFolder(folder: string): Result<void> {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const stat = lstatSync(folder);
    if (!stat.isDirectory()) return fail('control-socket', `${folder}: not a directory`);
    if (process.geteuid !== undefined && stat.uid !== process.geteuid()) {
      return fail('control-socket', `${folder}: belongs to user ${stat.uid}, not to the agent's`);
    }
    if ((stat.mode & 0o077) !== 0) chmodSync(folder, 0o700);
    return ok(undefined);
  } catch (error) {
    return fail('control-socket', `${folder}: ${errno(error)}`);
  }
}

/** Is there somebody at this socket already? */
function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // The socket comes into being with mode 0600: there is no moment in which others could connect.
    const before = process.umask(0o177);
    try {
      server.once('error', reject);
      server.listen(path, () => {
        server.removeListener('error', reject);
        resolve();
      });
    } finally {
      process.umask(before);
    }
  });
}

function serveClient(socket: Socket, handlers: ControlHandlers, limits: ControlLimits, sockets: Set<Socket>): void {
  const send = (line: ServerLine): void => {
    if (socket.destroyed || !socket.writable) return;
    if (socket.writableLength > limits.backlog) {
      socket.destroy();
      return;
    }
    socket.write(`${JSON.stringify(line)}\n`);
  };
  const refuse = (error: Problem): void => {
    send({ id: 0, ok: false, error });
    socket.destroySoon();
  };
  socket.on('error', () => undefined);
  const uid = peerOf(socket, handlers);
  if (uid !== null && uid !== 0 && uid !== process.geteuid?.()) {
    refuse({ code: 'control-denied', message: `user ${uid} may not talk to the agent` });
    return;
  }
  if (sockets.size >= limits.clients) {
    refuse({ code: 'agent-busy', message: `${sockets.size} clients are connected already` });
    return;
  }
  sockets.add(socket);
  const lines = lineSplitter(REQUEST_LIMIT);
  let underWay = 0;
  let endWatch: (() => void) | undefined;
  socket.setTimeout(limits.idle, () => {
    if (endWatch === undefined && underWay === 0) socket.destroy();
  });
  socket.on('close', () => {
    sockets.delete(socket);
    endWatch?.();
  });
  socket.on('data', (chunk) => {
    for (const line of lines.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk)) {
      if (line.trim() !== '') take(line);
    }
    if (lines.overflow) {
      refuse({ code: 'control-too-long', message: `a request longer than ${REQUEST_LIMIT} bytes` });
    }
  });

  function take(line: string): void {
    const { id, request } = readRequest(line);
    if (!request.ok) {
      send({ id, ok: false, error: request.error });
      return;
    }
    if (request.value.verb === 'watch') {
      send({ id, ok: true, value: null });
      endWatch?.();
      endWatch = handlers.watch(request.value.since, (event) => send({ event }));
      return;
    }
    if (underWay >= limits.requests) {
      send({ id, ok: false, error: { code: 'agent-busy', message: `${underWay} requests are under way` } });
      return;
    }
    underWay++;
    void reply(id, request.value).then((line) => {
      underWay--;
      send(line);
    });
  }

  async function reply(id: number, request: Exclude<Request, { verb: 'watch' }>): Promise<Reply> {
    const result = await handlers.answer(request);
    return result.ok ? { id, ok: true, value: result.value } : { id, ok: false, error: result.error };
  }
}

/** Node keeps the descriptor in its handle. */
function peerOf(socket: Socket, handlers: ControlHandlers): number | null {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  return typeof fd === 'number' && fd >= 0 ? handlers.peer(fd) : null;
}

function errno(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'failed';
}
