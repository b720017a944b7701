/**
 * vfio-user 0.0 on the wire: commands, and what each one's body looks like. Pure. A client that breaks a length or a flag
 * gets an error reply; one that breaks the framing loses its connection.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Framing } from '../framed-socket.ts';

export const HEADER_SIZE = 16;

export const VERSION = 1;
export const DMA_MAP = 2;
export const DMA_UNMAP = 3;
export const DEVICE_GET_INFO = 4;
export const DEVICE_GET_REGION_INFO = 5;
export const DEVICE_GET_REGION_IO_FDS = 6;
export const DEVICE_GET_IRQ_INFO = 7;
export const DEVICE_SET_IRQS = 8;
export const REGION_READ = 9;
export const REGION_WRITE = 10;
export const DMA_READ = 11;
export const DMA_WRITE = 12;
export const DEVICE_RESET = 13;
export const REGION_WRITE_MULTI = 15;

const NAMES: Readonly<Record<number, string>> = {
  [VERSION]: 'VERSION',
  [DMA_MAP]: 'DMA_MAP',
  [DMA_UNMAP]: 'DMA_UNMAP',
  [DEVICE_GET_INFO]: 'DEVICE_GET_INFO',
  [DEVICE_GET_REGION_INFO]: 'DEVICE_GET_REGION_INFO',
  [DEVICE_GET_REGION_IO_FDS]: 'DEVICE_GET_REGION_IO_FDS',
  [DEVICE_GET_IRQ_INFO]: 'DEVICE_GET_IRQ_INFO',
  [DEVICE_SET_IRQS]: 'DEVICE_SET_IRQS',
  [REGION_READ]: 'REGION_READ',
  [REGION_WRITE]: 'REGION_WRITE',
  [DMA_READ]: 'DMA_READ',
  [DMA_WRITE]: 'DMA_WRITE',
  [DEVICE_RESET]: 'DEVICE_RESET',
  [REGION_WRITE_MULTI]: 'REGION_WRITE_MULTI',
};

export function commandName(command: number): string {
  return NAMES[command] ?? `command ${command}`;
}

/** Bits of the header's flags. */
export const TYPE_REPLY = 0x1;
const TYPE_MASK = 0xf;
export const NO_REPLY = 0x10;
export const ERROR = 0x20;

/** What is asked for and offered as the longest transfer of one message. */
export const TRANSFER_LIMIT = 1 << 20;
/** What a client may send along with one message: as many vectors as MSI-X has fit no message of Linux. */
export const DESCRIPTORS_LIMIT = 253;

export interface Header {
  readonly id: number;
  readonly command: number;
  readonly reply: boolean;
  readonly noReply: boolean;
  readonly error: boolean;
  readonly errno: number;
}

/** Codes: `vfio-user-header-invalid`. */
export function parseHeader(head: Uint8Array): Result<Header & { readonly size: number }> {
  const view = new DataView(head.buffer, head.byteOffset, HEADER_SIZE);
  const length = view.getUint32(4, true);
  const flags = view.getUint32(8, true);
  const command = view.getUint16(2, true);
  const type = flags & TYPE_MASK;
  if (length < HEADER_SIZE || length > HEADER_SIZE + BODY_LIMIT) {
    return fail('vfio-user-header-invalid', `${commandName(command)}: a message of ${length} bytes`);
  }
  if (type > TYPE_REPLY || (flags & ~0x3f) !== 0) {
    return fail('vfio-user-header-invalid', `${commandName(command)}: flags 0x${(flags >>> 0).toString(16)}`);
  }
  return ok({
    id: view.getUint16(0, true),
    command,
    reply: type === TYPE_REPLY,
    noReply: (flags & NO_REPLY) !== 0,
    error: (flags & ERROR) !== 0,
    errno: view.getUint32(12, true),
    size: length - HEADER_SIZE,
  });
}

/** The longest transfer with its own header. */
const BODY_LIMIT = TRANSFER_LIMIT + 64;

export const VFIO_USER_FRAMING: Framing<Header> = {
  headerSize: HEADER_SIZE,
  bodyLimit: BODY_LIMIT,
  descriptorsLimit: DESCRIPTORS_LIMIT,
  backlogLimit: 8 << 20,
  parse: parseHeader,
  codes: {
    closed: 'vfio-user-gone',
    cutOff: 'vfio-user-cut-off',
    descriptors: 'vfio-user-descriptors',
    notReading: 'vfio-user-not-reading',
  },
};

/** A whole message: header, then a body that the caller fills in at HEADER_SIZE. The same bytes twice. */
export interface Message {
  readonly view: DataView;
  readonly bytes: Uint8Array;
}

/** Bodies up to here are put together in the same place again and again. */
const SMALL_BODY = 64;

/**
 * Where messages are put together, one at a time: what `start` gives is valid until it is called again. Whoever may have
 * two in the making has two drafts.
 */
export class Draft {
  /** By length of the body, once there was one; all over the same bytes. */
  private readonly small: Message[] = [];
  private readonly room = new ArrayBuffer(HEADER_SIZE + SMALL_BODY);

  /** The body is zero. */
  start(id: number, command: number, flags: number, body: number, errno = 0): Message {
    const message = this.messageOf(body);
    const { view } = message;
    view.setUint16(0, id, true);
    view.setUint16(2, command, true);
    view.setUint32(4, HEADER_SIZE + body, true);
    view.setUint32(8, flags, true);
    view.setUint32(12, errno, true);
    message.bytes.fill(0, HEADER_SIZE);
    return message;
  }

  private messageOf(body: number): Message {
    if (body > SMALL_BODY) return over(new ArrayBuffer(HEADER_SIZE + body), HEADER_SIZE + body);
    let message = this.small[body];
    if (message === undefined) {
      message = over(this.room, HEADER_SIZE + body);
      this.small[body] = message;
    }
    return message;
  }
}

function over(room: ArrayBuffer, length: number): Message {
  return { view: new DataView(room, 0, length), bytes: new Uint8Array(room, 0, length) };
}

/** A 64-bit field as a number; `NaN` above 2^53, which no check lets through. */
export function takeUint64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  return high < 2 ** 21 ? high * 2 ** 32 + view.getUint32(at, true) : Number.NaN;
}

export function putUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

export interface ClientVersion {
  readonly major: number;
  readonly minor: number;
  /** Descriptors that the client takes with one message; 1 when it does not say. */
  readonly mostDescriptors: number;
  /** Bytes that the client takes in one message's data. */
  readonly mostData: number;
}

/** The body of VERSION. Code: `vfio-user-version-invalid`. */
export function parseVersion(body: Uint8Array): Result<ClientVersion> {
  if (body.length < 4) return fail('vfio-user-version-invalid', `${body.length} bytes`);
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const capabilities = parseCapabilities(body.subarray(4));
  if (capabilities === null) return fail('vfio-user-version-invalid', 'capabilities that are no JSON');
  const { max_msg_fds: fds, max_data_xfer_size: data } = capabilities;
  return ok({
    major: view.getUint16(0, true),
    minor: view.getUint16(2, true),
    mostDescriptors: isCount(fds) ? Math.min(fds, DESCRIPTORS_LIMIT) : 1,
    mostData: isCount(data) ? Math.min(data, TRANSFER_LIMIT) : TRANSFER_LIMIT,
  });
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** The text up to its NUL; what is in it besides capabilities is the client's own business. */
function parseCapabilities(bytes: Uint8Array): Readonly<Record<string, unknown>> | null {
  const end = bytes.indexOf(0);
  if (bytes.length === 0) return {};
  if (end < 0 || bytes.length > 4096) return null;
  try {
    const parsed: unknown = JSON.parse(String.fromCharCode(...bytes.subarray(0, end)));
    if (typeof parsed !== 'object' || parsed === null) return null;
    const { capabilities = {} } = parsed as { capabilities?: unknown };
    if (typeof capabilities !== 'object' || capabilities === null || Array.isArray(capabilities)) return null;
    return capabilities as Readonly<Record<string, unknown>>;
  } catch {
    return null;
  }
}

/** What the VERSION reply says, after its two numbers: never longer than the request, or QEMU has no room for it. */
export function capabilitiesText(room: number, mostDescriptors: number): string {
  const whole = JSON.stringify({
    capabilities: {
      max_msg_fds: mostDescriptors,
      max_data_xfer_size: TRANSFER_LIMIT,
      max_dma_maps: 65535,
      pgsizes: 4096,
    },
  });
  if (4 + whole.length + 1 <= room) return `${whole}\0`;
  return 4 + 3 <= room ? '{}\0' : '';
}

export const DMA_READABLE = 1;
export const DMA_WRITABLE = 2;

export interface DmaRange {
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly size: number;
}

/** DMA_MAP's body, 32 bytes. Code: `vfio-user-body-invalid`. */
export function parseDmaMap(body: Uint8Array): Result<DmaRange> {
  if (body.length !== 32) return wrongSize(DMA_MAP, body);
  const view = new DataView(body.buffer, body.byteOffset, 32);
  const range = {
    flags: view.getUint32(4, true),
    offset: takeUint64(view, 8),
    address: takeUint64(view, 16),
    size: takeUint64(view, 24),
  };
  const sound =
    view.getUint32(0, true) === 32 &&
    (range.flags & ~3) === 0 &&
    range.flags !== 0 &&
    range.size > 0 &&
    range.address + range.size <= 2 ** 53 &&
    range.offset >= 0;
  return sound ? ok(range) : wrongBody(DMA_MAP, JSON.stringify(range));
}

const UNMAP_ALL = 2;

/** DMA_UNMAP's body, 24 bytes; `null` for everything. Dirty bitmaps are not offered. Code: `vfio-user-body-invalid`. */
export function parseDmaUnmap(body: Uint8Array): Result<{ readonly address: number; readonly size: number } | null> {
  if (body.length !== 24) return wrongSize(DMA_UNMAP, body);
  const view = new DataView(body.buffer, body.byteOffset, 24);
  const flags = view.getUint32(4, true);
  const range = { address: takeUint64(view, 8), size: takeUint64(view, 16) };
  if (flags === UNMAP_ALL)
    return range.address === 0 && range.size === 0 ? ok(null) : wrongBody(DMA_UNMAP, 'all, of a range');
  const sound = flags === 0 && range.size > 0 && range.address + range.size <= 2 ** 53;
  return sound ? ok(range) : wrongBody(DMA_UNMAP, `flags ${flags}`);
}

export interface RegionAccess {
  readonly offset: number;
  readonly region: number;
  readonly count: number;
  /** Of a write. */
  readonly data: Uint8Array;
}

/** REGION_READ (16 bytes) or REGION_WRITE (with its data). Code: `vfio-user-body-invalid`. */
export function parseRegionAccess(command: number, body: Uint8Array): Result<RegionAccess> {
  if (body.length < 16) return wrongSize(command, body);
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const access = {
    offset: takeUint64(view, 0),
    region: view.getUint32(8, true),
    count: view.getUint32(12, true),
    data: body.subarray(16),
  };
  const data = command === REGION_WRITE ? access.count : 0;
  const sound =
    access.count > 0 && access.count <= TRANSFER_LIMIT && access.data.length === data && access.offset <= 2 ** 52;
  return sound
    ? ok(access)
    : wrongBody(command, `${access.count} bytes at ${access.offset} of region ${access.region}`);
}

export const IRQ_INTX = 0;
export const IRQ_MSI = 1;
export const IRQ_MSIX = 2;

export const DATA_NONE = 1;
export const DATA_BOOL = 2;
export const DATA_EVENTFD = 4;
export const ACTION_MASK = 8;
export const ACTION_UNMASK = 0x10;
export const ACTION_TRIGGER = 0x20;

export interface SetIrqs {
  readonly data: number;
  readonly action: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** Of DATA_BOOL: one byte a vector. */
  readonly flags: Uint8Array;
}

/** DEVICE_SET_IRQS: 20 bytes, then a byte for each vector with DATA_BOOL. Code: `vfio-user-body-invalid`. */
export function parseSetIrqs(body: Uint8Array): Result<SetIrqs> {
  if (body.length < 20) return wrongSize(DEVICE_SET_IRQS, body);
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const flags = view.getUint32(4, true);
  const set = {
    data: flags & 7,
    action: flags & 0x38,
    index: view.getUint32(8, true),
    start: view.getUint32(12, true),
    count: view.getUint32(16, true),
    flags: body.subarray(20),
  };
  const sound =
    (flags & ~0x3f) === 0 &&
    [DATA_NONE, DATA_BOOL, DATA_EVENTFD].includes(set.data) &&
    [ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER].includes(set.action) &&
    set.flags.length === (set.data === DATA_BOOL ? set.count : 0);
  return sound ? ok(set) : wrongBody(DEVICE_SET_IRQS, `flags 0x${flags.toString(16)}, ${set.count} vectors`);
}

function wrongSize(command: number, body: Uint8Array): Result<never> {
  return fail('vfio-user-body-invalid', `${commandName(command)}: a body of ${body.length} bytes`);
}

function wrongBody(command: number, detail: string): Result<never> {
  return fail('vfio-user-body-invalid', `${commandName(command)}: ${detail}`);
}
