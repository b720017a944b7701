/** A TEE device interface (TDI): its name and the states it goes through, PCIe 6.1 §11.2. */

export const TDI_STATES = ['CONFIG_UNLOCKED', 'CONFIG_LOCKED', 'RUN', 'ERROR'] as const;
/** In the order of their values in DEVICE_INTERFACE_STATE. */
export type TdiState = (typeof TDI_STATES)[number];

/** What moves a TDI: three requests, and whatever the device itself calls a violation of the lock. */
export const TDI_EVENTS = ['lock', 'start', 'stop', 'violation'] as const;
export type TdiEvent = (typeof TDI_EVENTS)[number];

const NEXT: Readonly<Record<TdiState, Readonly<Partial<Record<TdiEvent, TdiState>>>>> = {
  CONFIG_UNLOCKED: { lock: 'CONFIG_LOCKED', stop: 'CONFIG_UNLOCKED', violation: 'CONFIG_UNLOCKED' },
  CONFIG_LOCKED: { start: 'RUN', stop: 'CONFIG_UNLOCKED', violation: 'ERROR' },
  RUN: { stop: 'CONFIG_UNLOCKED', violation: 'ERROR' },
  ERROR: { stop: 'CONFIG_UNLOCKED', violation: 'ERROR' },
};

/** `undefined`: the event is not permitted in that state, and nothing happens. */
export function nextTdiState(state: TdiState, event: TdiEvent): TdiState | undefined {
  return NEXT[state][event];
}

/** A function, as TDISP names it: FUNCTION_ID of INTERFACE_ID, §11.3.2. */
export interface TdiFunction {
  readonly bus: number;
  readonly device: number;
  readonly function: number;
  /** Absent where the segment is not valid, which a single-segment machine may leave it. */
  readonly segment?: number;
}

export function functionId({ bus, device, function: number, segment }: TdiFunction): number {
  const requester = ((bus & 0xff) << 8) | ((device & 0x1f) << 3) | (number & 7);
  return segment === undefined ? requester : (requester | ((segment & 0xff) << 16) | (1 << 24)) >>> 0;
}

/** `0000:3d:02.1`; without a segment `3d:02.1`. */
export function functionText(id: number): string {
  const part = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  const place = `${part((id >>> 8) & 0xff, 2)}:${part((id >>> 3) & 0x1f, 2)}.${id & 7}`;
  return ((id >>> 24) & 1) === 1 ? `${part((id >>> 16) & 0xff, 4)}:${place}` : place;
}

/** `0xbeef`, `3d:02.1` or `0000:3d:02.1`: the segment is left out where it is 0. `undefined` for anything else. */
export function parseFunctionId(text: string): number | undefined {
  if (/^0x[0-9a-f]{1,7}$/i.test(text)) return Number(text) < 2 ** 25 ? Number(text) : undefined;
  const match = /^(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i.exec(text);
  if (match === null) return undefined;
  const [segment = 0, bus = 0, device = 0, number = 0] = match.slice(1).map((part) => Number.parseInt(part ?? '0', 16));
  if (segment > 0xff) return undefined;
  return functionId({ bus, device, function: number, ...(segment === 0 ? {} : { segment }) });
}
