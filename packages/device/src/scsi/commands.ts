/** The SCSI commands of a disk, as Linux and others use them. SPC-5, SBC-4. */
import type { SectorFile } from '../model/sector-file.ts';

export const GOOD = 0;
export const CHECK_CONDITION = 2;

/** Sense key, additional code and qualifier. */
export type Sense = readonly [number, number, number];
const INVALID_COMMAND: Sense = [5, 0x20, 0];
const OUT_OF_RANGE: Sense = [5, 0x21, 0];
const INVALID_FIELD: Sense = [5, 0x24, 0];
export const NO_SUCH_LUN: Sense = [5, 0x25, 0];
const WRITE_PROTECTED: Sense = [7, 0x27, 0];
const READ_FAILED: Sense = [3, 0x11, 0];
const WRITE_FAILED: Sense = [3, 0x0c, 0];
export const SENSE_SIZE = 18;

export const BLOCK = 512;

export interface ScsiDisk {
  readonly file: SectorFile;
  /** At most 20 characters of plain ASCII. */
  readonly serial: string;
  /** The most blocks of one transfer. */
  readonly blocksLimit: number;
}

/** What became of a command. */
export interface Outcome {
  readonly sense: Sense | null;
  /** Bytes in the data buffer, or of the data that was taken. */
  readonly moved: number;
}

const done = (moved = 0): Outcome => ({ sense: null, moved });
const refused = (sense: Sense): Outcome => ({ sense, moved: 0 });

/** `cdb`: 32 bytes. `out`: what the initiator sent; `into`: room for what it is to get, zeros. */
export function execute(disk: ScsiDisk, cdb: Uint8Array, out: Uint8Array, into: Uint8Array): Outcome {
  const view = new DataView(cdb.buffer, cdb.byteOffset, cdb.byteLength);
  switch (cdb[0]) {
    case 0x00: // TEST UNIT READY
    case 0x1b: // START STOP UNIT
    case 0x1e: // PREVENT ALLOW MEDIUM REMOVAL
      return done();
    case 0x03: // REQUEST SENSE
      return put(into, cdb[4] ?? 0, senseBytes([0, 0, 0]));
    case 0x12:
      return inquiry(disk, cdb, view.getUint16(3), into);
    case 0x1a:
      return modeSense(disk, cdb, cdb[4] ?? 0, into, 4);
    case 0x5a:
      return modeSense(disk, cdb, view.getUint16(7), into, 8);
    case 0x25:
      return readCapacity10(disk, into);
    case 0x9e:
      return (cdb[1] ?? 0) % 32 === 0x10 ? readCapacity16(disk, view.getUint32(10), into) : refused(INVALID_FIELD);
    case 0xa0:
      return reportLuns(cdb, view.getUint32(6), into);
    case 0x28:
      return read(disk, view.getUint32(2), view.getUint16(7), into);
    case 0xa8:
      return read(disk, view.getUint32(2), view.getUint32(6), into);
    case 0x88:
      return read(disk, wide(view), view.getUint32(10), into);
    case 0x2a:
      return write(disk, view.getUint32(2), view.getUint16(7), out, cdb);
    case 0xaa:
      return write(disk, view.getUint32(2), view.getUint32(6), out, cdb);
    case 0x8a:
      return write(disk, wide(view), view.getUint32(10), out, cdb);
    case 0x35:
    case 0x91: // SYNCHRONIZE CACHE, 10 and 16: all of it, whatever range is named
      return disk.file.flush() ? done() : refused(WRITE_FAILED);
    default:
      return refused(INVALID_COMMAND);
  }
}

/** Fixed format, current. SPC-5 §4.4.3. */
export function senseBytes([key, code, qualifier]: Sense): Uint8Array {
  const bytes = new Uint8Array(SENSE_SIZE);
  bytes[0] = 0x70;
  bytes[2] = key;
  bytes[7] = SENSE_SIZE - 8;
  bytes[12] = code;
  bytes[13] = qualifier;
  return bytes;
}

function wide(view: DataView): number {
  return view.getUint32(2) * 2 ** 32 + view.getUint32(6);
}

/** As much of `bytes` as was asked for and fits. */
function put(into: Uint8Array, asked: number, bytes: Uint8Array): Outcome {
  const piece = bytes.subarray(0, Math.min(asked, into.length));
  into.set(piece);
  return done(piece.length);
}

function ascii(into: Uint8Array, at: number, text: string, length = text.length): void {
  for (let i = 0; i < length; i++) into[at + i] = i < text.length ? text.charCodeAt(i) & 0x7f : 0x20;
}

/** SPC-5 §6.7, §7.7; SBC-4 §6.6. */
function inquiry(disk: ScsiDisk, cdb: Uint8Array, asked: number, into: Uint8Array): Outcome {
  const page = cdb[2] ?? 0;
  if ((cdb[1] ?? 0) % 2 === 0) {
    if (page !== 0) return refused(INVALID_FIELD);
    const bytes = new Uint8Array(36);
    bytes.set([0, 0, 6, 2, 31, 0, 0, 2]);
    ascii(bytes, 8, 'AIRLOCK', 8);
    ascii(bytes, 16, 'SCSI disk', 16);
    ascii(bytes, 32, '1', 4);
    return put(into, asked, bytes);
  }
  const body = vitalPage(disk, page);
  if (body === null) return refused(INVALID_FIELD);
  const bytes = new Uint8Array(4 + body.length);
  bytes.set([0, page, body.length >> 8, body.length & 0xff]);
  bytes.set(body, 4);
  return put(into, asked, bytes);
}

function vitalPage({ serial, blocksLimit }: ScsiDisk, page: number): Uint8Array | null {
  if (page === 0x00) return Uint8Array.of(0x00, 0x80, 0x83, 0xb0, 0xb1);
  if (page === 0x80) {
    const bytes = new Uint8Array(serial.length);
    ascii(bytes, 0, serial);
    return bytes;
  }
  if (page === 0x83) {
    // One designator: ASCII, by vendor (T10).
    const bytes = new Uint8Array(4 + 8 + serial.length);
    bytes.set([0x02, 0x01, 0, 8 + serial.length]);
    ascii(bytes, 4, 'AIRLOCK', 8);
    ascii(bytes, 12, serial);
    return bytes;
  }
  if (page === 0xb0) {
    const bytes = new Uint8Array(60);
    new DataView(bytes.buffer).setUint32(4, blocksLimit);
    return bytes;
  }
  if (page !== 0xb1) return null;
  const bytes = new Uint8Array(60);
  bytes[1] = 1; // does not turn
  return bytes;
}

/** The caching page, whose WCE says that a flush is needed. SPC-5 §6.13, SBC-4 §6.5.6. */
function modeSense(disk: ScsiDisk, cdb: Uint8Array, asked: number, into: Uint8Array, header: 4 | 8): Outcome {
  const page = (cdb[2] ?? 0) & 0x3f;
  const changeable = (cdb[2] ?? 0) >> 6 === 1;
  if (page !== 0x08 && page !== 0x3f) return refused(INVALID_FIELD);
  const bytes = new Uint8Array(header + 20);
  if (header === 4) bytes[0] = bytes.length - 1;
  else bytes[1] = bytes.length - 2;
  // Write-protected; FUA is understood.
  bytes[header === 4 ? 2 : 3] = (disk.file.readOnly ? 0x80 : 0) | 0x10;
  bytes.set([0x08, 18, changeable ? 0 : 0x04], header);
  return put(into, asked, bytes);
}

function blocksOf({ file }: ScsiDisk): number {
  return Math.floor(file.bytes / BLOCK);
}

function readCapacity10(disk: ScsiDisk, into: Uint8Array): Outcome {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Math.min(blocksOf(disk) - 1, 0xffff_ffff));
  view.setUint32(4, BLOCK);
  return put(into, 8, bytes);
}

function readCapacity16(disk: ScsiDisk, asked: number, into: Uint8Array): Outcome {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  const last = blocksOf(disk) - 1;
  view.setUint32(0, Math.floor(last / 2 ** 32));
  view.setUint32(4, last >>> 0);
  view.setUint32(8, BLOCK);
  return put(into, asked, bytes);
}

/** LUN 0 only. SPC-5 §6.33. */
function reportLuns(cdb: Uint8Array, asked: number, into: Uint8Array): Outcome {
  const report = cdb[2] ?? 0;
  if (report > 2) return refused(INVALID_FIELD);
  const luns = report === 1 ? 0 : 1; // 1: well-known ones only
  const bytes = new Uint8Array(8 + 8 * luns);
  new DataView(bytes.buffer).setUint32(0, 8 * luns);
  return put(into, asked, bytes);
}

function outside(disk: ScsiDisk, block: number, count: number): boolean {
  return block + count > blocksOf(disk);
}

function read(disk: ScsiDisk, block: number, count: number, into: Uint8Array): Outcome {
  if (outside(disk, block, count)) return refused(OUT_OF_RANGE);
  if (count > disk.blocksLimit) return refused(INVALID_FIELD);
  // What the initiator has no room for is not read; the device tells it as a residual that is missing.
  const bytes = Math.min(count * BLOCK, into.length);
  return disk.file.read(block * BLOCK, into.subarray(0, bytes)) ? done(bytes) : refused(READ_FAILED);
}

function write(disk: ScsiDisk, block: number, count: number, out: Uint8Array, cdb: Uint8Array): Outcome {
  if (disk.file.readOnly) return refused(WRITE_PROTECTED);
  if (outside(disk, block, count)) return refused(OUT_OF_RANGE);
  // Less than the command needs is nothing that could be written.
  if (count > disk.blocksLimit || out.length < count * BLOCK) return refused(INVALID_FIELD);
  if (!disk.file.write(block * BLOCK, out.subarray(0, count * BLOCK))) return refused(WRITE_FAILED);
  const forced = ((cdb[1] ?? 0) & 0x08) !== 0;
  return forced && !disk.file.flush() ? refused(WRITE_FAILED) : done(count * BLOCK);
}
