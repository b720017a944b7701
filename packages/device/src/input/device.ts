/** A keyboard: keys are pressed from its control socket, lights are what the driver says. VIRTIO 1.4 §5.8. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { input } from '@airlock/virtio/device/input.ts';
import { INPUT_EVENT_SIZE, parseInputEvent } from '@airlock/virtio/request/input.ts';
import type { DeviceModel, ModelLink } from '../model/model.ts';

/** §5.8.2. */
const ID_NAME = 0x01;
const ID_SERIAL = 0x02;
const ID_DEVIDS = 0x03;
const EV_BITS = 0x11;
const UNION_AT = 8;
const UNION_SIZE = 128;

/** Of evdev. */
const EV_SYN = 0;
const EV_KEY = 1;
const EV_LED = 0x11;
const KEYS = 248;
const LIGHTS = 3;
const BUS_VIRTUAL = 6;

const EVENT_QUEUE = 0;

export interface KeyboardOptions {
  /** Plain ASCII, at most 128 characters each. */
  readonly name: string;
  readonly serial: string;
}

export function keyboardModel({ name, serial }: KeyboardOptions): DeviceModel {
  const config = new Uint8Array(UNION_AT + UNION_SIZE);
  let link: ModelLink | null = null;
  let sent = 0;
  let dropped = 0;
  let malformed = 0;
  const lights: Record<number, number> = {};

  /** What the selectors ask for. */
  function answer(): void {
    const bytes = fieldOf(config[0] ?? 0, config[1] ?? 0);
    config.fill(0, 2);
    config[2] = bytes.length;
    config.set(bytes, UNION_AT);
  }
  function fieldOf(select: number, subselect: number): Uint8Array {
    if (select === EV_BITS) {
      if (subselect === EV_KEY) return bits(1, KEYS);
      return subselect === EV_LED ? bits(0, LIGHTS) : NOTHING;
    }
    if (subselect !== 0) return NOTHING;
    if (select === ID_NAME) return text(name);
    if (select === ID_SERIAL) return text(serial);
    // bus type, vendor, product, version
    return select === ID_DEVIDS ? Uint8Array.of(BUS_VIRTUAL, 0, 0xf4, 0x1a, 0x01, 0, 1, 0) : NOTHING;
  }
  function send(type: number, code: number, value: number): boolean {
    const event = new Uint8Array(INPUT_EVENT_SIZE);
    const view = new DataView(event.buffer);
    view.setUint16(0, type, true);
    view.setUint16(2, code, true);
    view.setInt32(4, value, true);
    const taken = link?.send(EVENT_QUEUE, event) ?? false;
    if (taken) sent++;
    else dropped++;
    return taken;
  }
  return {
    type: input,
    queues: [
      { kind: 'events' },
      {
        ...{ kind: 'requests', requestLimit: INPUT_EVENT_SIZE, replyLimit: 0 },
        answer(request) {
          const event = parseInputEvent(request);
          if (!event.ok) malformed++;
          else if (event.value.type === EV_LED && event.value.code < LIGHTS)
            lights[event.value.code] = event.value.value;
          return 0;
        },
      },
    ],
    config: () => config,
    writeConfig(offset, bytes) {
      if (offset + bytes.length > 2) return false;
      config.set(bytes, offset);
      answer();
      return true;
    },
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      config.fill(0);
    },
    commands: {
      /** Presses a key and lets it go. */
      key(argument): Result<unknown> {
        const code = /^[0-9]{1,3}$/.test(argument) ? Number(argument) : 0;
        if (code < 1 || code > KEYS) return fail('device-control-invalid', `key CODE: 1 to ${KEYS}, as evdev has them`);
        if (link === null) return fail('device-control-invalid', 'there is no driver');
        for (const value of [1, 0]) {
          send(EV_KEY, code, value);
          send(EV_SYN, 0, 0);
        }
        return ok({ sent, dropped });
      },
    },
    facts: () => ({ sent, dropped, malformed, lights }),
  };
}

const NOTHING = new Uint8Array(0);

/** Ones from bit `first` to `last`. */
function bits(first: number, last: number): Uint8Array {
  const bytes = new Uint8Array((last >> 3) + 1);
  for (let bit = first; bit <= last; bit++) bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (1 << (bit & 7));
  return bytes;
}

function text(letters: string): Uint8Array {
  return Uint8Array.from(letters.slice(0, UNION_SIZE), (letter) => letter.charCodeAt(0));
}
