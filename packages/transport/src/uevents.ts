/** Where uevents come from. Forms: `uevent-socket.ts` (the kernel), `polling.ts` (no socket), `fake-uevents.ts` (tests). */
import type { Uevent } from './uevent.ts';

export type UeventNotice =
  | { readonly kind: 'uevent'; readonly uevent: Uevent }
  /** Events may have been missed, or there is no other source: look at everything again. */
  | { readonly kind: 'look-again'; readonly because: string };

export interface UeventSource {
  readonly kind: 'netlink' | 'polling' | 'fake';
  /** Calls `listen` for each notice, in order, never while `listen` of the one before still runs. Once only. */
  start(listen: (notice: UeventNotice) => void): void;
  /** No notice comes afterwards. May be called twice. */
  close(): void;
  /** Messages that were not the kernel's, or not well formed, and were dropped. */
  readonly dropped: { readonly foreign: number; readonly malformed: number };
}
