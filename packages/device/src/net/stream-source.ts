/** Where the peer of a stream comes from: it listens and we connect, or we listen. */
import { basename, dirname } from 'node:path';
import { ok, type Result } from '@airlock/core/result.ts';
import { READABLE } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix } from '@airlock/transport/unix-listener.ts';
import { connectUnix } from '@airlock/transport/unix-socket.ts';
import { connectIn, openFolder } from '../socket-folder.ts';
import type { StreamSource } from './stream-end.ts';

/** How long to wait before a lost connection is tried again, in milliseconds. */
const AGAIN_AFTER = 1000;

/** Connects to `path`, at once, and again whenever the connection is lost. Codes: those of `connectUnix`, of `openFolder`. */
export function connectingSource(calls: SystemCalls, path: string): Result<StreamSource> {
  const first = connectUnix(calls, path);
  if (!first.ok) return first;
  const folder = openFolder(calls, dirname(path));
  if (!folder.ok) {
    calls.close(first.value);
    return folder;
  }
  let waiting: number | null = first.value;
  return ok({
    name: `unix:${path}`,
    listens: false,
    connect() {
      const fd = waiting;
      waiting = null;
      if (fd !== null) return fd;
      const again = connectIn(calls, folder.value, basename(path), 'stream');
      return again.ok ? again.value : null;
    },
    wait(reactor, ready) {
      let cancel: () => void;
      const turn = () => {
        ready();
        cancel = reactor.after(AGAIN_AFTER, turn);
      };
      cancel = reactor.after(AGAIN_AFTER, turn);
      return () => cancel();
    },
    close() {
      if (waiting !== null) calls.close(waiting);
      waiting = null;
      calls.close(folder.value);
    },
  });
}

/** Listens at `path`. Codes: those of `listenUnix`. */
export function listeningSource(calls: SystemCalls, path: string): Result<StreamSource> {
  const listening = listenUnix(calls, path);
  if (!listening.ok) return listening;
  const listener = listening.value;
  return ok({
    name: `unix-listen:${path}`,
    listens: true,
    connect() {
      const accepted = listener.accept();
      return accepted.ok ? accepted.value : null;
    },
    wait(reactor, ready) {
      const watch = reactor.watch(listener.fd, READABLE, ready);
      return () => watch.close();
    },
    close: () => listener.close(),
  });
}
