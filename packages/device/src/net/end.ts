/** The other end of a network device: where the driver's frames go, and where those for it come from. */
import type { Frame } from './frame.ts';
import type { Offloads } from './offloads.ts';

/**
 * Both directions are pulled by the device, so that whoever is slow holds up the other, and nobody has to drop: a frame
 * stays with the end until the driver has a buffer for it, and with the driver until the end has room.
 */
export interface NetEnd {
  /** What it is, for people: `TAP tap0`. */
  readonly name: string;
  /** What frames given to it may leave undone. */
  readonly takes: Offloads;
  /** What frames that it gives may leave undone, once `setOffloads` asked for it. */
  readonly gives: Offloads;
  /** Is anybody there? While nobody is, frames of the driver are dropped and counted, as on a wire without a plug. */
  readonly up: boolean;

  /**
   * Begins. `wake` is called when there may be a frame, or room again after there was none, or when `up` changed; never
   * from within another call of this interface.
   */
  open(wake: () => void): void;
  /** What the driver does itself from now on: no more than `gives`. Frames that are waiting may still be otherwise. */
  setOffloads(offloads: Offloads): void;

  /** Room for one frame of any length, until `send`; null when there is none now, and `wake` will be called. */
  room(): Frame | null;
  /** The frame that `room` gave last is filled. It goes out with the next `flush`, or earlier. */
  send(): void;
  /** Nothing more comes for now. */
  flush(): void;

  /**
   * The next frame for the driver, the same until `advance`; null when there is none now, and `wake` will be called. Its
   * offsets lie within it, whatever the peer claimed.
   */
  peek(): Frame | null;
  /** The frame was taken or dropped. */
  advance(): void;
  close(): void;

  /**
   * What became of frames that did not get through: at least `malformed` (frames of the peer that broke a rule and were
   * dropped) and `refused` (frames of the driver that the peer or the system did not take).
   */
  readonly counters: EndCounters;
}

export interface EndCounters {
  malformed: number;
  refused: number;
  readonly [more: string]: number;
}
