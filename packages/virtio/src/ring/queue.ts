/**
 * The two sides of a virtqueue, whatever its format. Both sides take the other for an adversary: whoever breaks a rule
 * finds the queue poisoned (`violation` says which rule), and nothing but `reset` makes it work again.
 *
 * Results of the hot paths are small numbers and fields of the queue, so that nothing is allocated per request.
 */
import type { Problem } from '@airlock/core/result.ts';
import type { RingErrorCode } from '../errors.ts';
import type { Chain } from './chain.ts';

/** Nothing there; try again after a notification. */
export const NONE = 0;
/** `complete`: a request is done. `take`: a chain was taken. `submit`: the request is in the ring. */
export const DONE = 1;
/** `submit`: not enough free descriptors now. */
export const FULL = 2;
/** `submit`: the request itself is wrong, see `refusal`. */
export const REFUSED = 3;
/** `take`: a chain broke a rule and went back unused; see `refusal`. There may be more behind it. */
export const MALFORMED = 4;
/** `take`: the address space has no translation yet; ask for it and take again. Nothing was consumed. */
export const UNTRANSLATED = 5;
/** The queue is poisoned, see `violation`. */
export const BROKEN = 6;

/** What of the negotiated features matters to a ring. */
export interface RingFeatures {
  readonly packed: boolean;
  readonly indirect: boolean;
  readonly eventIndex: boolean;
  readonly inOrder: boolean;
}

/** One request's elements in memory, read back from the driver's own record, never from the ring. */
export interface Elements {
  readonly addresses: Float64Array;
  readonly lengths: Uint32Array;
  /** How many of the first elements are device-readable; the rest are device-writable. */
  readable: number;
  count: number;
}

export interface DriverQueue {
  readonly size: number;
  /** Free descriptors. */
  readonly free: number;
  /** Requests that the device has and has not completed. */
  readonly inFlight: number;
  readonly violation: Problem | null;
  /** Why the last `submit` was REFUSED. */
  readonly refusal: Problem | null;
  /** Completions whose used length was above the writable bytes of their request. */
  readonly clamped: number;

  /** Adds a device-readable element to the request being made; `address` is what the device is to use. */
  readable(address: number, length: number): void;
  /** Adds a device-writable element. */
  writable(address: number, length: number): void;
  /** Puts the request into the ring: DONE, FULL, REFUSED or BROKEN. In every case the next request starts empty. */
  submit(token: number): number;
  /** Lets the device see what was submitted. */
  publish(): void;
  /** After `publish`: does the device want an available buffer notification? (§2.7.10, §2.8.10) */
  shouldNotify(): boolean;
  /** Takes the next completion: DONE (see `token`, `written`), NONE or BROKEN. */
  complete(): number;
  /** Of the last completion: the token it was submitted with. */
  readonly token: number;
  /** Of the last completion: bytes that the device says it wrote, never more than the request's writable bytes. */
  readonly written: number;
  /** Elements of the last completion; true until the next `submit`. Returns false when `into` is too short. */
  elements(into: Elements): boolean;
  /** Asks for no used buffer notifications (advice; they may still come). */
  suppressNotifications(): void;
  /**
   * Asks for a notification after `after` more completions (1: the next; more only with EVENT_IDX). True when there is
   * a completion already: take it, no notification may come for it (§2.7.14).
   */
  requestNotifications(after?: number): boolean;
  /** §2.9: next_off in bits 0 to 14, next_wrap in bit 15. */
  notificationOffset(): number;
  /** Forgets everything and zeroes the ring; returns the tokens of requests that the device never completed. */
  reset(): number[];
}

/** Where a device stands in its queue, to be saved and restored. Split: free-running 16-bit indices, no wraps. */
export interface DevicePosition {
  readonly avail: number;
  readonly availWrap: boolean;
  readonly used: number;
  readonly usedWrap: boolean;
}

export interface DeviceQueue {
  readonly size: number;
  /** Chains taken and not yet given back. */
  readonly inFlight: number;
  /** Set when the driver broke a rule of the ring: the device is to set DEVICE_NEEDS_RESET (§2.1.2). */
  readonly violation: Problem | null;
  /** Why the last chain was MALFORMED. */
  readonly refusal: Problem | null;
  /** Chains that went back unused. */
  readonly malformed: number;

  /** Takes the next available chain into `chain`: DONE, NONE, MALFORMED, UNTRANSLATED or BROKEN. */
  take(chain: Chain): number;
  /** Gives a chain back, `written` bytes of its writable part filled. False when `id` is not a chain in flight. */
  give(id: number, written: number): boolean;
  /** Lets the driver see what was given back. */
  publish(): void;
  /** After `publish`: does the driver want a used buffer notification? (§2.7.7, §2.8.10) */
  shouldNotify(): boolean;
  suppressNotifications(): void;
  /** Asks for available buffer notifications. True when there is a chain already: take it (§2.7.10). */
  requestNotifications(): boolean;
  position(): DevicePosition;
  /** Starts at a saved position with nothing in flight. Code: `queue-state-invalid`. */
  restore(position: DevicePosition): Problem | null;
  reset(): void;
}

/** A problem whose code the catalogue knows. */
export function ringProblem(code: RingErrorCode, message: string): Problem {
  return { code, message };
}

/**
 * Has `event` been passed by moving from `old` to `now`? All are 16-bit and wrap; the arithmetic of vring_need_event.
 */
export function passedEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}
