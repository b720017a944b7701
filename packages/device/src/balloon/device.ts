/**
 * A memory balloon: says how many pages it wants, keeps account of those that the driver gave and took back, and of free
 * pages that it reports. It changes no page: the memory is the VMM's. VIRTIO 1.4 §5.5.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { balloon } from '@airlock/virtio/device/balloon.ts';
import { type DeviceModel, LATER, type ModelLink } from '../model/model.ts';

const STATS = 1;
const DEFLATE_ON_OOM = 2;
const REPORTING = 5;
const STATS_QUEUE = 2;
/** §5.5.6: pages of 4 KiB, whatever the driver's own are. */
const PAGES_A_MIB = 256;
/** Linux gives 256 at a time. */
const REQUEST_BYTES = 4096;
const STAT_SIZE = 10;
const STATS_BYTES = 64 * STAT_SIZE;
/** §5.5.6.4. */
const STAT_NAMES = [
  ...['swap-in', 'swap-out', 'major-faults', 'minor-faults', 'free-memory', 'total-memory', 'available-memory'],
  ...['disk-caches', 'hugetlb-allocations', 'hugetlb-failures', 'oom-kills', 'allocation-stalls', 'async-scans'],
  ...['direct-scans', 'async-reclaims', 'direct-reclaims'],
];

export interface BalloonFacts {
  readonly target: number;
  readonly actual: number;
  /** Pages that are in the balloon by our own account. */
  readonly pages: number;
  /** Pages of an inflate that were in it already, of a deflate that were not, or too high to be kept account of. */
  readonly strange: number;
  readonly reportedBytes: number;
  readonly stats: Readonly<Record<string, number>>;
}

/** `target`: the pages that are wanted at first. */
export function balloonModel(target = 0): DeviceModel & { facts(): BalloonFacts & Record<string, unknown> } {
  const config = new Uint8Array(8);
  const view = new DataView(config.buffer);
  view.setUint32(0, target, true);
  const pages = new PageSet();
  let strange = 0;
  let reportedBytes = 0;
  let stats: Record<string, number> = {};
  let statsToken: number | null = null;
  let link: ModelLink | null = null;

  function move(request: Uint8Array, size: number, into: boolean): number {
    const numbers = new DataView(request.buffer, request.byteOffset, request.byteLength - (request.byteLength % 4));
    for (let at = 0; at < numbers.byteLength; at += 4) {
      const page = numbers.getUint32(at, true);
      if (!(into ? pages.add(page) : pages.remove(page))) strange++;
    }
    if (size > request.length || size % 4 !== 0) strange++;
    return 0;
  }
  return {
    type: balloon,
    bits: [STATS, DEFLATE_ON_OOM, REPORTING],
    queues: [
      {
        ...{ kind: 'requests', size: 128, requestLimit: REQUEST_BYTES, replyLimit: 0 },
        answer: (request, _reply, { size }) => move(request, size, true),
      },
      {
        ...{ kind: 'requests', size: 128, requestLimit: REQUEST_BYTES, replyLimit: 0 },
        answer: (request, _reply, { size }) => move(request, size, false),
      },
      {
        ...{ kind: 'requests', feature: STATS, requestLimit: STATS_BYTES, replyLimit: 0, laterLimit: 1 },
        answer(request, _reply, { token }) {
          stats = readStats(request);
          // §5.5.6.3.1: the buffer stays with the device until it wants newer ones.
          if (statsToken !== null) return 0;
          statsToken = token;
          return LATER;
        },
      },
      {
        ...{ kind: 'requests', feature: REPORTING, requestLimit: 0, replyLimit: 0 },
        answer(_request, _reply, { room }) {
          reportedBytes += room;
          return 0;
        },
      },
    ],
    config: () => config,
    writeConfig(offset, bytes) {
      if (offset !== 4 || bytes.length !== 4) return false;
      config.set(bytes, 4);
      return true;
    },
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      statsToken = null;
      // §5.5.5: with the reset the pages are the driver's again.
      pages.clear();
      view.setUint32(4, 0, true);
    },
    commands: {
      target(argument): Result<unknown> {
        const mebibytes = /^[0-9]{1,7}$/.test(argument) ? Number(argument) : Number.NaN;
        if (!(mebibytes * PAGES_A_MIB < 2 ** 32)) return fail('device-control-invalid', 'target MEBIBYTES');
        view.setUint32(0, mebibytes * PAGES_A_MIB, true);
        link?.configChanged();
        return ok({ target: mebibytes * PAGES_A_MIB });
      },
      'refresh-stats'(): Result<unknown> {
        const token = statsToken;
        if (token === null || link === null) return fail('device-control-invalid', 'the driver gave no statistics yet');
        statsToken = null;
        link.finish(STATS_QUEUE, token, NOTHING);
        return ok(null);
      },
    },
    facts: () => ({
      ...{ target: view.getUint32(0, true), actual: view.getUint32(4, true), pages: pages.count },
      ...{ strange, reportedBytes, stats },
    }),
  };
}

const NOTHING = new Uint8Array(0);

function readStats(bytes: Uint8Array): Record<string, number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stats: Record<string, number> = {};
  for (let at = 0; at + STAT_SIZE <= bytes.length; at += STAT_SIZE) {
    const name = STAT_NAMES[view.getUint16(at, true)];
    // A value above 2^53 loses its last digits; all ones means that the driver does not know.
    if (name !== undefined) stats[name] = view.getUint32(at + 2, true) + view.getUint32(at + 6, true) * 2 ** 32;
  }
  return stats;
}

const PAGES_A_PIECE = 32_768;
/** 128 GiB in pieces of 128 MiB: 4 MiB of ours at most, wherever the driver says that its pages are. */
const PIECES_LIMIT = 1024;

/** Page numbers, as bits, in bounded room. */
class PageSet {
  count = 0;
  private readonly pieces = new Map<number, Uint32Array>();

  /** False when it was there already, or there is no room to remember it. */
  add(page: number): boolean {
    const number = Math.floor(page / PAGES_A_PIECE);
    let piece = this.pieces.get(number);
    if (piece === undefined) {
      if (this.pieces.size >= PIECES_LIMIT) return false;
      piece = new Uint32Array(PAGES_A_PIECE / 32);
      this.pieces.set(number, piece);
    }
    return this.set(piece, page % PAGES_A_PIECE, 1);
  }

  /** False when it was not there. */
  remove(page: number): boolean {
    const piece = this.pieces.get(Math.floor(page / PAGES_A_PIECE));
    return piece !== undefined && this.set(piece, page % PAGES_A_PIECE, 0);
  }

  private set(piece: Uint32Array, bit: number, to: 0 | 1): boolean {
    const word = piece[bit >>> 5] ?? 0;
    const mask = 1 << (bit & 31);
    if (((word & mask) !== 0 ? 1 : 0) === to) return false;
    piece[bit >>> 5] = word ^ mask;
    this.count += to === 1 ? 1 : -1;
    return true;
  }

  clear(): void {
    this.pieces.clear();
    this.count = 0;
  }
}
