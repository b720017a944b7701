/** A program that touches memory whose file was cut: what an unsealed memfd of a peer would do to it. */
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';

const loaded = await loadSystemCalls();
if (loaded.ok) {
  const calls = loaded.value;
  const fd = calls.memfdCreate('cut', 0);
  calls.ftruncate(fd, 4096);
  const bytes = new Uint8Array(calls.bytesAt(calls.mmap(0, 4096, 3, 1, fd, 0), 4096));
  bytes[0] = 1;
  calls.ftruncate(fd, 0);
  bytes[0] = 2;
}
