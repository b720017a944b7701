/**
 * One TCP connection that the other side opened. RFC 9293, with window scaling (RFC 7323), slow start, fast retransmit and
 * fast recovery (RFC 5681, RFC 6582), retransmission times (RFC 6298) and answers to blind attacks (RFC 5961). Bytes that
 * come out of order are kept, a few of them, until what is missing has come.
 *
 * Places in a stream are plain numbers that never wrap: SYN is at 0, the first byte at 1. Only what is on the wire has 32
 * bits. Output is pulled: `next` says what to send now, if anything.
 */
import type { Service } from './service.ts';
import { ACK, FIN, PSH, RST, type Segment, SYN } from './tcp-segment.ts';

export type TcpState =
  | 'syn-received'
  | 'established'
  | 'close-wait'
  | 'last-ack'
  | 'fin-wait-1'
  | 'fin-wait-2'
  | 'closing'
  | 'time-wait'
  | 'closed';

/** What `next` fills in. */
export interface Outgoing {
  flags: number;
  /** Place of the first byte; `wire` makes 32 bits of it. */
  place: number;
  length: number;
}

/** Our window's shift, used when the other side scales too. */
export const WINDOW_SHIFT = 5;
const WINDOW_LIMIT = 0xffff;
const FIRST_TIMEOUT = 1000;
const LEAST_TIMEOUT = 200;
const LONGEST_TIMEOUT = 60_000;
/** How often something is sent again before the connection is given up. */
const RETRIES = 8;
/** RFC 9293 §3.4.2 waits for minutes, because packets may live that long; here they live for microseconds. */
const TIME_WAIT = 2000;
const FIN_WAIT = 60_000;
const SILENCE = 300_000;
const DUPLICATES = 3;
/** What is kept of bytes that came before their turn. */
const EARLY_PIECES = 64;
const EARLY_BYTES = 256 * 1024;
const FIRST_WINDOW = 10;
/** A hostile window of one byte must not make us send a segment for each byte of megabytes. */
const LEAST_MSS = 88;

export class TcpConnection {
  state: TcpState = 'syn-received';
  readonly service: Service;
  readonly key: number;
  readonly mac: Uint8Array;
  readonly address: number;
  readonly remotePort: number;
  readonly localPort: number;
  /** The most payload of a segment on the wire. */
  readonly mss: number;
  /** When something was heard last. */
  heard: number;
  /** Segments sent again, for people. */
  retransmitted = 0;
  /** Bytes that came too early to be kept, or beyond the window. */
  untaken = 0;

  private readonly ourFirst: number;
  private readonly theirFirst: number;
  private readonly theirShift: number;
  private readonly ourShift: number;

  private unacknowledged = 0;
  private nextPlace = 0;
  /** One beyond the highest place that was sent. */
  private highest = 0;
  private window = 0;
  private windowAt = 0;
  private windowFrom = 0;
  private congestion: number;
  private threshold = Number.POSITIVE_INFINITY;
  private duplicates = 0;
  /** In fast recovery until this place is acknowledged; -1 when not. */
  private recover = -1;
  private againAt = -1;

  private expected = 1;
  private advertised = 0;
  private theirFin = false;
  /** Pieces beyond what is expected. */
  private readonly early: { readonly begin: number; readonly bytes: Uint8Array }[] = [];
  private earlyBytes = 0;
  private answer = false;

  private deadline = Number.POSITIVE_INFINITY;
  private timeout = FIRST_TIMEOUT;
  private smoothed = -1;
  private variation = 0;
  private timedPlace = -1;
  private timedAt = 0;
  private tries = 0;
  private probe = false;

  /** `first` is our initial sequence number; `mss` the most payload that a frame of ours may carry. */
  constructor(
    segment: Segment,
    mac: Uint8Array,
    key: number,
    service: Service,
    first: number,
    mss: number,
    now: number,
  ) {
    this.key = key;
    this.mac = mac;
    this.service = service;
    this.address = segment.source;
    this.remotePort = segment.sourcePort;
    this.localPort = segment.targetPort;
    this.ourFirst = first;
    this.theirFirst = segment.sequence;
    this.mss = Math.max(LEAST_MSS, Math.min(segment.mss, mss));
    this.theirShift = Math.max(segment.shift, 0);
    this.ourShift = segment.shift < 0 ? 0 : WINDOW_SHIFT;
    this.window = segment.window;
    this.congestion = FIRST_WINDOW * this.mss;
    this.heard = now;
  }

  /** 32 bits of a place of ours. */
  wire(place: number): number {
    return (this.ourFirst + place) >>> 0;
  }

  /** 32 bits of what we expect next. */
  get acknowledgement(): number {
    return (this.theirFirst + this.expected) >>> 0;
  }

  /** Did the other side say that it scales windows? Then our SYN says so too. */
  get scales(): boolean {
    return this.ourShift > 0;
  }

  /** The window to send with the next segment; the one of a SYN is never scaled. */
  windowField(flags: number): number {
    const room = this.theirFin ? 0 : this.room;
    const shift = (flags & SYN) !== 0 ? 0 : this.ourShift;
    const field = Math.min(Math.floor(room / 2 ** shift), WINDOW_LIMIT);
    this.advertised = Math.max(this.advertised, this.expected + field * 2 ** shift);
    return field;
  }

  /** What the service takes, as far as it can be told. */
  private get room(): number {
    return Math.min(this.service.room, WINDOW_LIMIT * 2 ** this.ourShift);
  }

  /** A segment for this connection. Returns whether the other side is to be reset: it said something impossible. */
  input(segment: Segment, now: number): boolean {
    const { flags } = segment;
    this.heard = now;
    // Where the segment begins, near to what we expect.
    const begin = this.expected + signed(segment.sequence - this.acknowledgement);
    const length = segment.length + ((flags & SYN) !== 0 ? 1 : 0) + ((flags & FIN) !== 0 ? 1 : 0);
    if (!this.isAcceptable(begin, length)) {
      if ((flags & RST) !== 0) return false;
      if (this.state === 'syn-received' && (flags & SYN) !== 0 && begin === 0) this.nextPlace = 0;
      else if (this.state === 'time-wait') this.deadline = now + TIME_WAIT;
      this.answer = true;
      return false;
    }
    if ((flags & RST) !== 0) {
      // RFC 5961 §3: only an exact one ends the connection; another may be a guess.
      if (begin === this.expected) this.state = 'closed';
      else this.answer = true;
      return false;
    }
    if ((flags & SYN) !== 0) {
      this.answer = true;
      return false;
    }
    if ((flags & ACK) === 0) return false;
    if (!this.acknowledge(segment, begin, now)) return this.state === 'syn-received';
    if (segment.length > 0) this.takePayload(segment, begin);
    if ((flags & FIN) !== 0) this.takeFin(begin + segment.length, now);
    this.arm(now);
    return false;
  }

  /** RFC 9293 §3.4: does any of it lie in the window? */
  private isAcceptable(begin: number, length: number): boolean {
    const end = Math.max(this.advertised, this.expected);
    if (length === 0) return begin === this.expected || (begin > this.expected && begin < end);
    // The beginning of what does not fit any more still carries an acknowledgement.
    if (begin === this.expected) return true;
    const last = begin + length - 1;
    return (begin > this.expected && begin < end) || (last >= this.expected && last < end && begin < this.expected);
  }

  /** The acknowledgement and window of a segment. False: nothing else of it counts. */
  private acknowledge(segment: Segment, begin: number, now: number): boolean {
    const place = this.unacknowledged + signed(segment.acknowledged - this.wire(this.unacknowledged));
    if (this.state === 'syn-received') {
      if (place !== 1 || this.highest < 1) return false;
      this.state = 'established';
    }
    if (place > this.highest) {
      this.answer = true;
      return false;
    }
    const window = segment.window * 2 ** this.theirShift;
    if (place > this.unacknowledged) {
      this.advance(place, now);
    } else if (place === this.unacknowledged && segment.length === 0 && window === this.window) {
      if ((segment.flags & FIN) === 0 && this.highest > this.unacknowledged) this.duplicate();
    }
    if (place >= this.unacknowledged) {
      if (this.windowFrom < begin || (this.windowFrom === begin && this.windowAt <= place)) {
        if (this.window === 0 && window > 0) this.reopen();
        this.window = window;
        this.windowFrom = begin;
        this.windowAt = place;
      }
    }
    return true;
  }

  /** The window opens again: what was only a question was not lost, and is sent as if for the first time. */
  private reopen(): void {
    this.probe = false;
    this.nextPlace = this.unacknowledged === 0 ? this.nextPlace : this.unacknowledged;
    this.deadline = Number.POSITIVE_INFINITY;
    this.timeout = this.smoothed < 0 ? FIRST_TIMEOUT : Math.max(LEAST_TIMEOUT, this.smoothed + 4 * this.variation);
    this.tries = 0;
  }

  private advance(place: number, now: number): void {
    const acknowledged = place - this.unacknowledged;
    this.unacknowledged = place;
    this.nextPlace = Math.max(this.nextPlace, place);
    this.tries = 0;
    this.probe = false;
    this.service.release(Math.min(place - 1, this.service.available));
    if (this.timedPlace >= 0 && place > this.timedPlace) this.measure(now - this.timedAt);
    if (this.recover >= 0) {
      if (place >= this.recover) {
        this.recover = -1;
        this.congestion = this.threshold;
      } else {
        // RFC 6582: a part was lost too.
        this.againAt = place;
        this.congestion = Math.max(this.mss, this.congestion - acknowledged + this.mss);
      }
    } else if (this.congestion < this.threshold) {
      this.congestion += Math.min(acknowledged, this.mss * 64);
    } else {
      this.congestion += Math.max(1, Math.floor((this.mss * Math.min(acknowledged, this.mss)) / this.congestion));
    }
    this.congestion = Math.min(this.congestion, 2 ** 30);
    this.duplicates = 0;
    this.deadline = Number.POSITIVE_INFINITY;
    if (this.finSent && place === this.finPlace + 1) this.finAcknowledged(now);
  }

  private duplicate(): void {
    this.duplicates++;
    if (this.recover >= 0) {
      this.congestion += this.mss;
    } else if (this.duplicates === DUPLICATES) {
      this.threshold = Math.max((this.highest - this.unacknowledged) / 2, 2 * this.mss);
      this.congestion = this.threshold + DUPLICATES * this.mss;
      this.recover = this.highest;
      this.againAt = this.unacknowledged;
      this.timedPlace = -1;
    }
  }

  private measure(sample: number): void {
    this.timedPlace = -1;
    if (this.smoothed < 0) {
      this.smoothed = sample;
      this.variation = sample / 2;
    } else {
      this.variation = 0.75 * this.variation + 0.25 * Math.abs(this.smoothed - sample);
      this.smoothed = 0.875 * this.smoothed + 0.125 * sample;
    }
    this.timeout = Math.min(LONGEST_TIMEOUT, Math.max(LEAST_TIMEOUT, this.smoothed + 4 * this.variation));
  }

  private takePayload(segment: Segment, begin: number): void {
    this.answer = true;
    if (this.theirFin) return;
    if (begin > this.expected) {
      this.keep(begin, segment);
      return;
    }
    this.takeBytes(begin, segment.bytes, segment.from, segment.to);
    // Each turn takes one piece out, so there are as many turns as pieces.
    for (let at = this.nextKept(); at >= 0; at = this.nextKept()) {
      const [piece] = this.early.splice(at, 1);
      if (piece === undefined) return;
      this.earlyBytes -= piece.bytes.length;
      this.takeBytes(piece.begin, piece.bytes, 0, piece.bytes.length);
    }
  }

  /** What of these bytes is new and has room. */
  private takeBytes(begin: number, bytes: Uint8Array, start: number, end: number): void {
    const from = start + (this.expected - begin);
    if (from >= end) return;
    const taken = Math.min(end - from, this.service.room);
    if (taken > 0) this.service.take(bytes, from, from + taken);
    this.expected += taken;
    this.untaken += end - from - taken;
  }

  private keep(begin: number, segment: Segment): void {
    const { length } = segment;
    if (this.early.length === EARLY_PIECES || this.earlyBytes + length > EARLY_BYTES) {
      this.untaken += length;
      return;
    }
    if (this.early.some((piece) => piece.begin === begin && piece.bytes.length >= length)) return;
    this.early.push({ begin, bytes: segment.bytes.slice(segment.from, segment.to) });
    this.earlyBytes += length;
  }

  /** A kept piece that what has come reaches; -1 when there is none. */
  private nextKept(): number {
    return this.early.findIndex(({ begin }) => begin <= this.expected);
  }

  private takeFin(place: number, now: number): void {
    this.answer = true;
    if (place !== this.expected || this.theirFin) return;
    this.expected++;
    this.theirFin = true;
    this.service.ended();
    if (this.state === 'established') this.state = 'close-wait';
    else if (this.state === 'fin-wait-1') this.state = 'closing';
    else if (this.state === 'fin-wait-2') this.waitOut(now);
  }

  private finAcknowledged(now: number): void {
    if (this.state === 'last-ack') this.state = 'closed';
    else if (this.state === 'fin-wait-1') {
      this.state = 'fin-wait-2';
      this.deadline = now + FIN_WAIT;
    } else if (this.state === 'closing') this.waitOut(now);
  }

  private waitOut(now: number): void {
    this.state = 'time-wait';
    this.deadline = now + TIME_WAIT;
  }

  /** Where our FIN stands, once all bytes are known. */
  private get finPlace(): number {
    return 1 + this.service.available;
  }

  private get finSent(): boolean {
    return this.state === 'last-ack' || this.state === 'fin-wait-1' || this.state === 'closing';
  }

  /**
   * What to send now, in `out`; false when there is nothing. `joined` is the most payload of one frame, at least the mss;
   * more than the mss where the receiver takes joined segments.
   */
  next(out: Outgoing, joined: number, now: number): boolean {
    if (this.state === 'closed') return false;
    if (this.nextPlace === 0) {
      if (this.state !== 'syn-received') this.nextPlace = 1;
      else return this.emit(out, SYN | ACK, 0, 0, now);
    }
    if (this.state !== 'syn-received' && this.nextData(out, joined, now)) return true;
    if (!this.answer && !this.windowOpened()) return false;
    this.answer = false;
    out.flags = ACK;
    out.place = this.nextPlace;
    out.length = 0;
    return true;
  }

  /** RFC 9293 §3.8.6.2.2: worth telling when it is two segments or half of all room more than was told. */
  private windowOpened(): boolean {
    if (this.theirFin || this.state === 'syn-received') return false;
    const more = this.expected + this.room - this.advertised;
    return more >= 2 * this.mss && this.advertised - this.expected < this.room / 2;
  }

  private nextData(out: Outgoing, joined: number, now: number): boolean {
    const { service } = this;
    const end = 1 + service.available;
    if (this.againAt >= 0) {
      const place = this.againAt;
      this.againAt = -1;
      const length = Math.min(this.mss, end - place, this.highest - place);
      if (place >= this.unacknowledged && (length > 0 || this.finSent)) {
        this.retransmitted++;
        return this.emitData(out, place, Math.max(0, length), end, now);
      }
    }
    const waiting = end - this.nextPlace;
    if (waiting <= 0) {
      const finDue = service.finished && this.nextPlace === end && this.mayClose();
      return finDue && this.emitData(out, this.nextPlace, 0, end, now);
    }
    const window = Math.min(this.window, this.congestion);
    const usable = this.unacknowledged + window - this.nextPlace;
    let length = Math.min(waiting, usable, joined);
    if (this.probe && this.window === 0 && this.nextPlace === this.unacknowledged) length = 1;
    if (length <= 0) return false;
    // Whole segments, unless it is the end; less than one only when nothing is on its way (RFC 9293 §3.8.6.2.1).
    if (length < waiting) {
      if (length >= this.mss) length -= length % this.mss;
      else if (this.nextPlace > this.unacknowledged) return false;
    }
    this.probe = false;
    return this.emitData(out, this.nextPlace, length, end, now);
  }

  private mayClose(): boolean {
    return this.state === 'established' || this.state === 'close-wait' || this.finSent;
  }

  private emitData(out: Outgoing, place: number, length: number, end: number, now: number): boolean {
    let flags = ACK;
    if (place + length === end && length > 0) flags |= PSH;
    if (place + length === end && this.service.finished && this.mayClose()) {
      flags |= FIN;
      if (this.state === 'established') this.state = 'fin-wait-1';
      else if (this.state === 'close-wait') this.state = 'last-ack';
    }
    return this.emit(out, flags, place, length, now);
  }

  private emit(out: Outgoing, flags: number, place: number, length: number, now: number): boolean {
    out.flags = flags;
    out.place = place;
    out.length = length;
    const after = place + length + ((flags & (SYN | FIN)) !== 0 ? 1 : 0);
    if (after > this.highest) {
      if (this.timedPlace < 0) {
        this.timedPlace = place;
        this.timedAt = now;
      }
      this.highest = after;
    } else {
      this.timedPlace = -1;
    }
    this.nextPlace = Math.max(this.nextPlace, after);
    this.answer = false;
    if (this.deadline === Number.POSITIVE_INFINITY) this.deadline = now + this.timeout;
    return true;
  }

  /** Sets the time at which to do something without being asked, when there is none. */
  private arm(now: number): void {
    if (this.deadline !== Number.POSITIVE_INFINITY) return;
    const open = this.highest > this.unacknowledged;
    // Something to send and no window to send it in: ask now and then whether it opened.
    const stuck = !open && this.window === 0 && 1 + this.service.available > this.nextPlace;
    if (open || stuck) this.deadline = now + this.timeout;
  }

  /** Does the connection wait for a time? */
  get timed(): boolean {
    return this.deadline !== Number.POSITIVE_INFINITY;
  }

  /** Time has passed. Returns false when the connection is over. */
  tick(now: number): boolean {
    if (this.state === 'closed') return false;
    if (now < this.deadline) return true;
    if (this.state === 'time-wait' || this.state === 'fin-wait-2') {
      this.state = 'closed';
      return false;
    }
    this.deadline = Number.POSITIVE_INFINITY;
    const open = this.highest > this.unacknowledged;
    if (!open && this.window > 0) return true;
    // A closed window that stays closed is no reason to give up as long as the other side answers (RFC 9293 §3.8.6.1).
    const answers = this.window === 0 && this.state !== 'syn-received' && now - this.heard < SILENCE;
    if (open && !answers && ++this.tries > RETRIES) {
      this.state = 'closed';
      return false;
    }
    this.timeout = Math.min(this.timeout * 2, LONGEST_TIMEOUT);
    this.timedPlace = -1;
    this.duplicates = 0;
    this.recover = -1;
    if (open && this.window > 0) {
      this.threshold = Math.max((this.highest - this.unacknowledged) / 2, 2 * this.mss);
      this.congestion = this.mss;
      this.retransmitted++;
    }
    this.nextPlace = this.unacknowledged;
    this.probe = this.window === 0;
    this.deadline = now + this.timeout;
    return true;
  }
}

/** 32 bits as the nearest distance. */
function signed(difference: number): number {
  return difference | 0;
}
