/**
 * Pages of a file that were read lately, copied from a mapping instead of read again: half the cost. It has a price,
 * so it is asked for (`--map`): a page that the file no longer has, or that cannot be read again, kills whoever touches it
 * (SIGBUS). So only pages that the kernel read lately are touched, what was noted is forgotten after a while, and the size of
 * the file is looked at before every batch; what remains is a file that shrinks within the batch, and a page that left the
 * cache and fails to come back.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { MAP_SHARED, PROT_READ } from '@airlock/transport/sys/memory.ts';
import { callFailed, type SystemCalls } from '@airlock/transport/system-calls.ts';

const PAGE = 4096;
/** Longer transfers are not worth their check. */
const MOST_PAGES = 64;
/** A page counts as read lately within this turn and the next. */
const TURN_MILLISECONDS = 30_000;
const TURNS = 65535;
/** Two bytes a page, used as far as pages are read: 1 TiB. */
const PAGES_LIMIT = 2 ** 28;
const SEEK_END = 2;
const START = 0n;

export class FileMap {
  private readonly calls: SystemCalls;
  private readonly fd: number;
  private readonly size: number;
  private readonly address: number;
  private readonly now: () => number;
  /** For each page the turn in which the kernel read it; 0: never. */
  private readonly turns: Uint16Array;
  private turn = 1;
  private turnEnds: number;
  private usable = true;

  /** `now` counts milliseconds. Codes: `disk-not-usable` (too large), `system-call-failed`. */
  static create(calls: SystemCalls, fd: number, size: number, now: () => number): Result<FileMap> {
    if (size / PAGE > PAGES_LIMIT) return fail('disk-not-usable', 'larger than what can be mapped (1 TiB)');
    const address = calls.mmap(0, size, PROT_READ, MAP_SHARED, fd, 0);
    return address < 0 ? callFailed(calls, 'mmap', address) : ok(new FileMap(calls, fd, size, address, now));
  }

  private constructor(calls: SystemCalls, fd: number, size: number, address: number, now: () => number) {
    this.calls = calls;
    this.fd = fd;
    this.size = size;
    this.address = address;
    this.now = now;
    this.turns = new Uint16Array(Math.ceil(size / PAGE));
    this.turnEnds = now() + TURN_MILLISECONDS;
  }

  /** Before each batch: a file that shrank is not touched any more. */
  refresh(): void {
    if (!this.usable) return;
    if (this.calls.lseek(this.fd, START, SEEK_END) < this.size) {
      this.usable = false;
      return;
    }
    const now = this.now();
    if (now < this.turnEnds) return;
    this.turn = now < this.turnEnds + TURN_MILLISECONDS ? this.turn + 1 : this.turn + 2;
    this.turnEnds = now + TURN_MILLISECONDS;
    if (this.turn <= TURNS) return;
    this.turns.fill(0);
    this.turn = 1;
  }

  /** The kernel has read these bytes now: the pages that lie whole in them are in its cache. */
  note(position: number, length: number): void {
    const end = Math.floor((position + length) / PAGE);
    for (let page = Math.ceil(position / PAGE); page < end; page++) this.turns[page] = this.turn;
  }

  /** Copies bytes of pages that were noted lately to `address`. False, and nothing is touched, where one was not. */
  copy(address: number, position: number, length: number): boolean {
    if (!this.usable || length > MOST_PAGES * PAGE || position + length > this.size) return false;
    const { turns, turn } = this;
    const last = Math.floor((position + length - 1) / PAGE);
    for (let page = Math.floor(position / PAGE); page <= last; page++) {
      const noted = turns[page] as number;
      if (noted === 0 || noted < turn - 1) return false;
    }
    this.calls.copy(address, this.address + position, length);
    return true;
  }

  close(): void {
    this.usable = false;
    this.calls.munmap(this.address, this.size);
  }
}
