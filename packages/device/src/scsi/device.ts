/** A SCSI host with one disk: target 0, LUN 0. VIRTIO 1.4 §5.6. */
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { scsi } from '@airlock/virtio/device/scsi.ts';
import { NO_FEATURES } from '@airlock/virtio/features.ts';
import type { DeviceModel } from '../model/model.ts';
import { CHECK_CONDITION, execute, NO_SUCH_LUN, type Outcome, type ScsiDisk, senseBytes } from './commands.ts';

/** VIRTIO_SCSI_F_CHANGE (§5.6.3). */
const F_CHANGE = 2;
const SENSE_ROOM = 96;
const CDB_ROOM = 32;
/** struct virtio_scsi_req_cmd before the CDB, and with it. */
const CDB_AT = 19;
const REQUEST_HEADER = CDB_AT + CDB_ROOM;
const RESPONSE_HEADER = 12 + SENSE_ROOM;
const SENSE_SIZE_AT = 20;
const CDB_SIZE_AT = 24;
/** Blocks of one transfer: 1 MiB. */
export const BLOCKS_LIMIT = 2048;
const DATA_LIMIT = BLOCKS_LIMIT * 512;
const SEGMENTS = 254;

/** §5.6.6.1. */
const OK = 0;
const OVERRUN = 1;
const BAD_TARGET = 3;
const FAILURE = 9;
/** §5.6.6.2. */
const TMF = 0;
const QUERY = 1;
const SUBSCRIBE = 2;
const FUNCTION_COMPLETE = 0;
const FUNCTION_REJECTED = 11;
const LAST_FUNCTION = 7;
const CONTROL_BYTES = 24;

export function scsiModel(disk: Omit<ScsiDisk, 'blocksLimit'>): DeviceModel {
  const limited = { ...disk, blocksLimit: BLOCKS_LIMIT };
  const encoded = encodeConfig(scsi, NO_FEATURES, {
    ...{ num_queues: 1, seg_max: SEGMENTS, max_sectors: BLOCKS_LIMIT, cmd_per_lun: 64, event_info_size: 16 },
    ...{ sense_size: SENSE_ROOM, cdb_size: CDB_ROOM, max_channel: 0, max_target: 0, max_lun: 0 },
  });
  const config = encoded.ok ? encoded.value : new Uint8Array(36);
  const counts = { commands: 0, refused: 0, malformed: 0, read: 0, written: 0, functions: 0 };

  function answer(request: Uint8Array, reply: Uint8Array, size: number, room: number): number {
    if (reply.length < RESPONSE_HEADER) {
      counts.malformed++;
      return 0;
    }
    const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    if (request.length < REQUEST_HEADER || size > REQUEST_HEADER + DATA_LIMIT || room > RESPONSE_HEADER + DATA_LIMIT) {
      counts.malformed++;
      view.setUint8(11, FAILURE);
      return RESPONSE_HEADER;
    }
    counts.commands++;
    const lun = lunOf(request);
    if (lun === null) {
      view.setUint8(11, BAD_TARGET);
      return RESPONSE_HEADER;
    }
    const out = request.subarray(REQUEST_HEADER);
    const into = reply.subarray(RESPONSE_HEADER);
    const cdb = request.subarray(CDB_AT, REQUEST_HEADER);
    const outcome: Outcome = lun === 0 ? execute(limited, cdb, out, into) : otherLun(limited, cdb, into);
    const offered = Math.max(out.length, into.length);
    if (outcome.sense !== null) {
      counts.refused++;
      const sense = senseBytes(outcome.sense);
      reply.set(sense, 12);
      view.setUint32(0, sense.length, true);
      view.setUint8(10, CHECK_CONDITION);
      view.setUint32(4, offered, true);
      view.setUint8(11, OK);
      return RESPONSE_HEADER;
    }
    view.setUint32(4, offered - outcome.moved, true);
    view.setUint8(11, needs(cdb) > outcome.moved ? OVERRUN : OK);
    if (out.length > 0) counts.written += outcome.moved;
    else counts.read += outcome.moved;
    return RESPONSE_HEADER + (into.length > 0 ? outcome.moved : 0);
  }
  return {
    type: scsi,
    chainLimit: SEGMENTS + 4,
    // A disk that never changes has no change to tell; QEMU's vhost-user-scsi-pci takes the feature unasked.
    bits: [F_CHANGE],
    queues: [
      // 128 are what QEMU's front-end makes of every queue.
      { kind: 'requests', size: 128, requestLimit: CONTROL_BYTES, replyLimit: 8, answer: answerControl },
      { kind: 'events', size: 128 },
      {
        ...{ kind: 'requests', size: 256 },
        requestLimit: REQUEST_HEADER + DATA_LIMIT,
        replyLimit: RESPONSE_HEADER + DATA_LIMIT,
        answer: (request, reply, { size, room }) => answer(request, reply, size, room),
      },
    ],
    config: () => config,
    /** §5.6.4: sizes of sense and CDB can be set; ours are as they are. */
    writeConfig(offset, bytes) {
      if (bytes.length !== 4 || (offset !== SENSE_SIZE_AT && offset !== CDB_SIZE_AT)) return false;
      return bytes.every((byte, i) => byte === config[offset + i]);
    },
    close: () => disk.file.close(),
    facts: () => ({ ...counts }),
  };

  function answerControl(request: Uint8Array, reply: Uint8Array): number {
    counts.functions++;
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const type = request.length >= 16 ? view.getUint32(0, true) : -1;
    if (type === TMF && request.length >= CONTROL_BYTES && reply.length >= 1) {
      // Every command has ended before the next request of any queue is looked at: there is nothing to abort.
      const known = view.getUint32(4, true) <= LAST_FUNCTION;
      const there = lunOf(request.subarray(8)) === 0;
      reply[0] = !there ? BAD_TARGET : known ? FUNCTION_COMPLETE : FUNCTION_REJECTED;
      return 1;
    }
    if ((type === QUERY || type === SUBSCRIBE) && reply.length >= 5) {
      reply[4] = lunOf(request.subarray(4)) === 0 ? OK : BAD_TARGET;
      return 5;
    }
    if (reply.length > 0) reply[reply.length >= 5 ? 4 : 0] = FAILURE;
    return Math.min(reply.length, 5);
  }
}

/** §5.6.6.1: 1, target, a LUN in single level form, zeros. Null where that is no target of ours. */
function lunOf(bytes: Uint8Array): number | null {
  if (bytes[0] !== 1 || bytes[1] !== 0 || bytes.subarray(4, 8).some((byte) => byte !== 0)) return null;
  return (((bytes[2] ?? 0) & 0x3f) << 8) | (bytes[3] ?? 0);
}

/** What answers at a LUN where nothing is: SPC-5 §5.5. */
function otherLun(disk: ScsiDisk, cdb: Uint8Array, into: Uint8Array): Outcome {
  if (cdb[0] === 0xa0) return execute(disk, cdb, new Uint8Array(0), into);
  if (cdb[0] !== 0x12 || (cdb[1] ?? 0) % 2 === 1) return { sense: NO_SUCH_LUN, moved: 0 };
  const outcome = execute(disk, cdb, new Uint8Array(0), into);
  if (outcome.moved > 0) into[0] = 0x7f; // no device is connected here
  return outcome;
}

/** Bytes that a transfer cannot do without: data of blocks. Lists are as long as there is room. */
function needs(cdb: Uint8Array): number {
  const view = new DataView(cdb.buffer, cdb.byteOffset, cdb.byteLength);
  if (cdb[0] === 0x28 || cdb[0] === 0x2a) return view.getUint16(7) * 512;
  if (cdb[0] === 0xa8 || cdb[0] === 0xaa) return view.getUint32(6) * 512;
  return cdb[0] === 0x88 || cdb[0] === 0x8a ? view.getUint32(10) * 512 : 0;
}
