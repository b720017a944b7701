/**
 * When to look at a descriptor. It is looked at by readiness, not by trying again and again; and while nobody wants what
 * is there, readiness is not asked for, because it would be told without end.
 */
import { HANGUP, READABLE, type Reactor, type Watch, WRITABLE } from '@airlock/transport/reactor.ts';

export class Readiness {
  /** The last read found nothing, and no readiness was told since: reading would find nothing again. */
  drained = false;
  private readonly watch: Watch;
  private events = READABLE;

  /** `ready` is to read and write what there is, and to tell what it found with `empty` and `full`. */
  constructor(reactor: Reactor, fd: number, ready: (events: number) => void) {
    this.watch = reactor.watch(fd, READABLE, (events) => {
      if ((events & (READABLE | HANGUP)) !== 0) this.drained = false;
      ready(events);
      if ((events & READABLE) !== 0 && !this.drained) this.ask(this.events & ~READABLE);
    });
  }

  /** A read found nothing: tell when there is something. */
  empty(): void {
    this.drained = true;
    this.ask(this.events | READABLE);
  }

  /** A write found no room (or found it again): tell when there is some (or no more). */
  full(yes: boolean): void {
    this.ask(yes ? this.events | WRITABLE : this.events & ~WRITABLE);
  }

  private ask(events: number): void {
    if (events === this.events) return;
    this.events = events;
    this.watch.setEvents(events);
  }

  close(): void {
    this.watch.close();
  }
}
