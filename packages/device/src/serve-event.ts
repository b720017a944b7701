/** What a device process tells whoever started it: one JSON object a line. */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { LayerName, SandboxLayer } from '@airlock/transport/sandbox.ts';

const LAYERS: readonly LayerName[] = [
  ...(['user', 'network', 'ipc', 'uts', 'pid', 'root', 'privileges'] as const),
  ...(['capabilities', 'system-calls', 'core-dumps', 'descriptors'] as const),
];

export type ServeEvent =
  | {
      readonly event: 'listening';
      readonly type: string;
      readonly transport: string;
      readonly socket: string;
      /** What is served, in a few words. */
      readonly device: string;
      /** What confines the process, and what does not; nothing without a sandbox. */
      readonly sandbox: readonly SandboxLayer[];
    }
  | { readonly event: 'warning'; readonly text: string }
  /** `socket`: of which function, where there are several; the physical one when it is not there. */
  | { readonly event: 'connected'; readonly socket?: string }
  | { readonly event: 'disconnected'; readonly why: Problem; readonly socket?: string }
  /** A guest enabled so many virtual functions; 0: none any more. */
  | { readonly event: 'virtual-functions'; readonly enabled: number }
  | { readonly event: 'problem'; readonly problem: Problem }
  /** It could not begin, or a defect ended it. */
  | { readonly event: 'failed'; readonly problem: Problem }
  | { readonly event: 'ended' };

/** Everything that a device process needs to know; goes to it as JSON. */
export interface ServeRequest {
  readonly type: string;
  readonly transport: string;
  readonly socket: string;
  /** Where relative paths begin. */
  readonly folder: string;
  readonly values: Readonly<Record<string, string | boolean | readonly string[]>>;
  /** End when the first front-end has gone. */
  readonly once: boolean;
  /** Take memory that the front-end can shrink: see `BackEndOptions`. */
  readonly unsealedMemory: boolean;
  /** Serve only from within the sandbox, as far as this machine permits one. */
  readonly sandbox: boolean;
  /** vfio-user: the VMM emulates MSI-X (see `ConnectionOptions.stealth`). */
  readonly plain: boolean;
  /** vfio-user: options of virtual functions beside it, each a whole set; none when absent. */
  readonly virtual?: readonly Readonly<Record<string, string | boolean | readonly string[]>>[];
  /** They are functions of one slot, and the guest enables them (SR-IOV); otherwise each is a function by itself. */
  readonly sriov?: boolean;
}

/** Where the virtual function `index` (from 0) of a served function listens. */
export function virtualSocket(socket: string, index: number): string {
  return `${socket}-vf${index}`;
}

/** The most characters of one line. */
export const EVENT_LIMIT = 65_536;

/** A line of a device process. It may be compromised by its guest: what it says is checked. Code: `serve-event-invalid`. */
export function parseServeEvent(line: string): Result<ServeEvent> {
  if (line.length > EVENT_LIMIT) return wrong('too long');
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return wrong('no JSON');
  }
  if (!isRecord(value)) return wrong('no object');
  const { event } = value;
  const text = (name: string): string => (typeof value[name] === 'string' ? value[name] : '');
  switch (event) {
    case 'listening':
      return ok({
        ...{ event, type: text('type'), transport: text('transport') },
        ...{ socket: text('socket'), device: text('device'), sandbox: layersOf(value['sandbox']) },
      });
    case 'warning':
      return ok({ event, text: text('text') });
    case 'ended':
      return ok({ event });
    case 'connected':
      return ok({ event, ...socketOf(value) });
    case 'disconnected':
      return ok({ event, why: problemOf(value['why']), ...socketOf(value) });
    case 'virtual-functions': {
      const { enabled } = value;
      return Number.isInteger(enabled) && Number(enabled) >= 0
        ? ok({ event, enabled: Number(enabled) })
        : wrong('no number of functions');
    }
    case 'problem':
    case 'failed':
      return ok({ event, problem: problemOf(value['problem']) });
    default:
      return wrong('an unknown event');
  }
}

function socketOf({ socket }: Record<string, unknown>): { readonly socket?: string } {
  return typeof socket === 'string' ? { socket } : {};
}

/** As many as there could ever be. */
const LAYERS_LIMIT = 32;
const STATUSES = ['enforced', 'not-enforceable', 'failed'] as const;

function layersOf(value: unknown): SandboxLayer[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, LAYERS_LIMIT).flatMap((one: unknown) => {
    if (!isRecord(one)) return [];
    const layer = LAYERS.find((name) => name === one['layer']);
    const status = STATUSES.find((name) => name === one['status']);
    if (layer === undefined || status === undefined) return [];
    return [{ layer, status, detail: typeof one['detail'] === 'string' ? one['detail'] : '' }];
  });
}

function problemOf(value: unknown): Problem {
  if (!isRecord(value)) return { code: 'unknown', message: '' };
  const { code, message, hint } = value;
  return {
    code: typeof code === 'string' && /^[a-z0-9-]{1,64}$/.test(code) ? code : 'unknown',
    message: typeof message === 'string' ? message : '',
    ...(typeof hint === 'string' && hint !== '' ? { hint } : {}),
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrong(what: string): Result<never> {
  return fail('serve-event-invalid', `the device process said something that is ${what}`);
}
