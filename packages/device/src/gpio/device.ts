/** Lines that are inputs or outputs; inputs are moved by the control word `set LINE VALUE`. VIRTIO 1.4 §5.18. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { gpio } from '@airlock/virtio/device/gpio.ts';
import { hasFeature, NO_FEATURES } from '@airlock/virtio/features.ts';
import { type DeviceModel, LATER, type ModelLink } from '../model/model.ts';

const F_IRQ = 0;
const GET_NAMES = 1;
const GET_DIRECTION = 2;
const SET_DIRECTION = 3;
const GET_VALUE = 4;
const SET_VALUE = 5;
const SET_IRQ_TYPE = 6;
const OK = 0;
const ERR = 1;
const NONE = 0;
const OUT = 1;
const IN = 2;
/** Bits of an interrupt's type. */
const RISING = 1;
const FALLING = 2;
const HIGH = 4;
const LOW = 8;
const IRQ_INVALID = 0;
const IRQ_VALID = 1;
const REQUEST_SIZE = 8;
const EVENTS = 1;

interface Line {
  direction: number;
  /** What the outside holds it at while it is no output. */
  outside: number;
  /** What the driver holds it at while it is an output; may be said before it is one. */
  output: number;
  irq: number;
  /** An edge that nobody waited for yet; a level is not kept, it is there or not (§5.18.6.9). */
  latched: boolean;
  /** The driver's buffer for the next interrupt. */
  token: number | null;
}

const levelOf = (line: Line) => (line.direction === OUT ? line.output : line.outside);

/** `names`: one a line, plain ASCII; empty ones have none. */
export function gpioModel(names: readonly string[]): DeviceModel {
  const block = Uint8Array.from(names.map((name) => `${name}\0`).join(''), (letter) => letter.charCodeAt(0));
  const named = names.some((name) => name !== '') ? block : new Uint8Array(0);
  const encoded = encodeConfig(gpio, NO_FEATURES, { ngpio: names.length, gpio_names_size: named.length });
  const config = encoded.ok ? encoded.value : new Uint8Array(8);
  const fresh = (): Line => ({ direction: NONE, outside: 0, output: 0, irq: 0, latched: false, token: null });
  const lines = names.map(fresh);
  let link: ModelLink | null = null;
  const counts = { requests: 0, refused: 0, interrupts: 0 };

  function execute(request: Uint8Array, reply: Uint8Array): number {
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    if (request.length < REQUEST_SIZE || reply.length < 2) return ERR;
    const [type, number, value] = [view.getUint16(0, true), view.getUint16(2, true), view.getUint32(4, true)];
    if (type === GET_NAMES) {
      if (named.length === 0 || reply.length < 1 + named.length) return ERR;
      reply.set(named, 1);
      return OK;
    }
    const line = lines[number];
    if (line === undefined) return ERR;
    switch (type) {
      case GET_DIRECTION:
        reply[1] = line.direction;
        return OK;
      case SET_DIRECTION:
        return setDirection(line, value);
      case GET_VALUE:
        reply[1] = levelOf(line);
        return line.direction === NONE ? ERR : OK;
      case SET_VALUE:
        if (value > 1) return ERR;
        // §5.18.6.5: also of a line that is an input still, for the moment when it is one no more.
        line.output = value;
        return OK;
      case SET_IRQ_TYPE:
        return setInterrupt(line, value);
      default:
        return ERR;
    }
  }
  function setDirection(line: Line, direction: number): number {
    if (direction > IN || (line.irq !== 0 && direction === OUT)) return ERR;
    line.direction = direction;
    // §5.18.6.9: of a line that is let go nothing is kept.
    if (direction === NONE) {
      finish(line, IRQ_INVALID);
      Object.assign(line, fresh(), { outside: line.outside });
    }
    return OK;
  }
  function setInterrupt(line: Line, type: number): number {
    if (link === null || !hasFeature(link.features, F_IRQ)) return ERR;
    if (![0, RISING, FALLING, RISING | FALLING, HIGH, LOW].includes(type)) return ERR;
    if (type !== 0 && line.direction !== IN) return ERR;
    line.irq = type;
    line.latched = false;
    if (type === 0) finish(line, IRQ_INVALID);
    else if ((type & (HIGH | LOW)) !== 0) raise(line, line.outside, line.outside);
    return OK;
  }
  function finish(line: Line, status: number): void {
    const { token } = line;
    line.token = null;
    if (token !== null) link?.finish(EVENTS, token, Uint8Array.of(status));
  }
  /** What a change from `before` to `now`, or standing at it, means for the line's interrupt. */
  function raise(line: Line, before: number, now: number): void {
    const edge = now !== before && (line.irq & (now === 1 ? RISING : FALLING)) !== 0;
    const level = (line.irq & (now === 1 ? HIGH : LOW)) !== 0;
    if (!edge && !level) return;
    if (line.token === null) {
      line.latched ||= edge;
      return;
    }
    line.latched = false;
    counts.interrupts++;
    finish(line, IRQ_VALID);
  }
  return {
    type: gpio,
    bits: [F_IRQ],
    queues: [
      {
        ...{ kind: 'requests', requestLimit: REQUEST_SIZE, replyLimit: Math.max(2, 1 + named.length) },
        answer(request, reply) {
          if (reply.length < 1) return 0;
          counts.requests++;
          const status = execute(request, reply);
          if (status === ERR) {
            counts.refused++;
            reply.fill(0);
          }
          reply[0] = status;
          return reply.length;
        },
      },
      {
        ...{ kind: 'requests', feature: F_IRQ, requestLimit: 2, replyLimit: 1, laterLimit: names.length },
        answer(request, reply, { token }) {
          if (reply.length < 1) return 0;
          const line = request.length < 2 ? undefined : lines[(request[0] ?? 0) | ((request[1] ?? 0) << 8)];
          // One buffer a line, and only while its interrupt is on (§5.18.7.2).
          if (line === undefined || line.irq === 0 || line.token !== null) {
            counts.refused++;
            reply[0] = IRQ_INVALID;
            return 1;
          }
          const level = (line.irq & (line.outside === 1 ? HIGH : LOW)) !== 0;
          if (line.latched || level) {
            line.latched = false;
            counts.interrupts++;
            reply[0] = IRQ_VALID;
            return 1;
          }
          line.token = token;
          return LATER;
        },
      },
    ],
    config: () => config,
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      for (const line of lines) Object.assign(line, fresh(), { outside: line.outside });
    },
    commands: {
      set(argument): Result<unknown> {
        const [, number = '', value = ''] = /^([0-9]{1,5}) ([01])$/.exec(argument) ?? [];
        const line = number === '' ? undefined : lines[Number(number)];
        if (line === undefined) return fail('device-control-invalid', `set LINE 0|1: lines 0 to ${lines.length - 1}`);
        if (line.direction === OUT) return fail('device-control-invalid', 'that line is an output');
        const before = line.outside;
        line.outside = Number(value);
        raise(line, before, line.outside);
        return ok(null);
      },
    },
    facts: () => ({
      ...counts,
      lines: lines.map((line) => ({ direction: line.direction, value: levelOf(line), irq: line.irq })),
    }),
  };
}
