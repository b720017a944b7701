/** A PCI function's DOE mailbox as a link that SPDM goes over. */
import type { Device } from '@airlock/core/device.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { findSpdmMailbox, openDoeMailboxes } from '@airlock/linux/doe-mailbox.ts';
import { pciIdentity, readFunctionFacts } from '@airlock/linux/function-layout.ts';
import { openConfigSpace } from '@airlock/linux/node-config-space.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { doeLink } from '@airlock/spdm/doe/link.ts';
import type { Clock } from '@airlock/spdm/doe/mailbox.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import type { Link } from '@airlock/spdm/requester/procedure.ts';
import type { FunctionFacts } from '@airlock/spdm/tdisp/record.ts';

export interface FunctionLink {
  readonly link: Link;
  /** What the function says it is. */
  readonly function: PciIdentity;
  /** What the machine shows of it, read anew at each call. */
  readFacts(): Promise<Result<FunctionFacts>>;
  close(): void;
}

/** Waits end with `signal`. Waiting for nothing lets everybody else run once. */
function clockUntil(signal: AbortSignal | undefined): Clock {
  return {
    now: () => performance.now(),
    wait: (milliseconds) =>
      new Promise((done) => {
        if (milliseconds <= 0) return void setImmediate(done);
        if (signal?.aborted === true) return void setTimeout(done, Math.min(milliseconds, 1));
        const timer = setTimeout(end, milliseconds);
        signal?.addEventListener('abort', end, { once: true });
        function end(): void {
          clearTimeout(timer);
          signal?.removeEventListener('abort', end);
          done();
        }
      }),
  };
}

/**
 * Once `signal` says that the time is over, what is under way is aborted and nothing more is said to the device. Codes:
 * `doe-*`, `config-*`, those of reading sysfs.
 */
export async function openFunctionLink(
  root: string,
  { id, location, path }: Device,
  signal?: AbortSignal,
): Promise<Result<FunctionLink>> {
  const clock = clockUntil(signal);
  const cancelled = () => signal?.aborted === true;
  if (!id.startsWith('pci:')) return fail('doe-absent', `${id} is no PCI function, and only those have a DOE mailbox`);
  // Nothing is written through these: the mailbox's registers have a hand of their own.
  const files = nodeFiles({ root, writes: 'nothing' });
  const config = await files.readAt(`${path}/config`, 0, 4096);
  if (!config.ok) return config;
  // Without it nothing could be compared with the name in its certificate, and any genuine device would do.
  const shown = pciIdentity(config.value);
  if (shown === undefined) return fail('doe-gone', `${id}: its configuration space reads all ones`);
  // First without the right to write: most functions have no mailbox.
  const seen = await openDoeMailboxes(files, clock, path);
  if (!seen.ok) return seen;
  const space = openConfigSpace(root, `${path}/config`);
  if (!space.ok) return space;
  const mailbox = await findSpdmMailbox(files, clock, path, { space: space.value, cancelled });
  if (!mailbox.ok) {
    space.value.close();
    return mailbox;
  }
  return ok({
    link: doeLink(mailbox.value.mailbox, clock),
    function: shown,
    readFacts: () => readFunctionFacts(files, path, location),
    close: () => space.value.close(),
  });
}
