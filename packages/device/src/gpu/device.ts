/** A display without a screen: 2D resources, scanouts, and what they show as a picture. VIRTIO 1.4 §5.7. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { gpu } from '@airlock/virtio/device/gpu.ts';
import { NO_FEATURES } from '@airlock/virtio/features.ts';
import type { DeviceModel, ModelLink } from '../model/model.ts';
import { displayEdid } from './edid.ts';
import { encodePng } from './png.ts';
import { type Backing, FORMATS, PIXEL, type Rectangle, Resource } from './resource.ts';

const F_EDID = 1;
const HEADER = 24;
/** struct virtio_gpu_resp_display_info: 16 displays. */
const DISPLAY_INFO = HEADER + 16 * 24;
const EDID_REPLY = HEADER + 8 + 1024;
const FENCE = 1;

const GET_DISPLAY_INFO = 0x100;
const RESOURCE_CREATE_2D = 0x101;
const RESOURCE_UNREF = 0x102;
const SET_SCANOUT = 0x103;
const RESOURCE_FLUSH = 0x104;
const TRANSFER_TO_HOST_2D = 0x105;
const ATTACH_BACKING = 0x106;
const DETACH_BACKING = 0x107;
const GET_EDID = 0x10a;
const UPDATE_CURSOR = 0x300;
const MOVE_CURSOR = 0x301;

const OK_NODATA = 0x1100;
const OK_DISPLAY_INFO = 0x1101;
const OK_EDID = 0x1104;
const ERR_UNSPEC = 0x1200;
const ERR_OUT_OF_MEMORY = 0x1201;
const ERR_INVALID_SCANOUT = 0x1202;
const ERR_INVALID_RESOURCE = 0x1203;
const ERR_INVALID_PARAMETER = 0x1205;

/** Of ours, for all that the driver makes. */
const PIXELS_LIMIT = 64 << 20;
const RESOURCES_LIMIT = 256;
const SIDE_LIMIT = 8192;
/** Runs of memory behind one resource: 64 MiB in pages. */
const BACKINGS_LIMIT = 16_384;
const REQUEST_BYTES = 32 + 16 * BACKINGS_LIMIT;

export interface GpuOptions {
  readonly width: number;
  readonly height: number;
  /** Takes a picture of the display when it is asked for and when the device ends. */
  readonly save?: (png: Uint8Array) => void;
}

export function gpuModel({ width, height, save }: GpuOptions): DeviceModel {
  const encoded = encodeConfig(gpu, NO_FEATURES, { num_scanouts: 1, num_capsets: 0 });
  const config = encoded.ok ? encoded.value : new Uint8Array(16);
  const resources = new Map<number, Resource>();
  let scanout: { readonly resource: number; readonly at: Rectangle } | null = null;
  let held = 0;
  let link: ModelLink | null = null;
  const counts = { commands: 0, refused: 0, flushes: 0, transfers: 0, cursor: 0 };

  function execute(type: number, view: DataView, size: number, reply: DataView): number {
    const fits = (length: number) => view.byteLength >= length;
    switch (type) {
      case GET_DISPLAY_INFO:
        if (reply.byteLength < DISPLAY_INFO) return ERR_INVALID_PARAMETER;
        [0, 0, width, height, 1, 0].forEach((value, i) => {
          reply.setUint32(HEADER + 4 * i, value, true);
        });
        return OK_DISPLAY_INFO;
      case GET_EDID: {
        if (!fits(32) || reply.byteLength < EDID_REPLY) return ERR_INVALID_PARAMETER;
        if (view.getUint32(24, true) !== 0) return ERR_INVALID_SCANOUT;
        const edid = displayEdid(width, height);
        reply.setUint32(HEADER, edid.length, true);
        edid.forEach((byte, i) => {
          reply.setUint8(HEADER + 8 + i, byte);
        });
        return OK_EDID;
      }
      case RESOURCE_CREATE_2D:
        return fits(40) ? create(view) : ERR_INVALID_PARAMETER;
      case RESOURCE_UNREF:
        return fits(32) ? remove(view.getUint32(24, true)) : ERR_INVALID_PARAMETER;
      case SET_SCANOUT:
        return fits(48) ? show(view) : ERR_INVALID_PARAMETER;
      case RESOURCE_FLUSH: {
        if (!fits(48)) return ERR_INVALID_PARAMETER;
        const resource = resources.get(view.getUint32(40, true));
        if (resource === undefined) return ERR_INVALID_RESOURCE;
        if (!resource.holds(rectangle(view))) return ERR_INVALID_PARAMETER;
        counts.flushes++;
        return OK_NODATA;
      }
      case TRANSFER_TO_HOST_2D:
        return fits(56) ? transfer(view) : ERR_INVALID_PARAMETER;
      case ATTACH_BACKING:
        return fits(32) && size === view.byteLength ? attach(view) : ERR_INVALID_PARAMETER;
      case DETACH_BACKING: {
        const resource = fits(32) ? resources.get(view.getUint32(24, true)) : undefined;
        if (resource === undefined) return ERR_INVALID_RESOURCE;
        resource.backing = [];
        return OK_NODATA;
      }
      default:
        return ERR_UNSPEC;
    }
  }
  function create(view: DataView): number {
    const [id, format] = [view.getUint32(24, true), view.getUint32(28, true)];
    const [w, h] = [view.getUint32(32, true), view.getUint32(36, true)];
    if (id === 0 || resources.has(id)) return ERR_INVALID_RESOURCE;
    if (FORMATS[format] === undefined || w < 1 || h < 1 || w > SIDE_LIMIT || h > SIDE_LIMIT)
      return ERR_INVALID_PARAMETER;
    const bytes = w * h * PIXEL;
    if (resources.size >= RESOURCES_LIMIT || held + bytes > PIXELS_LIMIT) return ERR_OUT_OF_MEMORY;
    resources.set(id, new Resource(format, w, h));
    held += bytes;
    return OK_NODATA;
  }
  function remove(id: number): number {
    const resource = resources.get(id);
    if (resource === undefined) return ERR_INVALID_RESOURCE;
    resources.delete(id);
    held -= resource.pixels.length;
    if (scanout?.resource === id) scanout = null;
    return OK_NODATA;
  }
  function show(view: DataView): number {
    const [number, id] = [view.getUint32(40, true), view.getUint32(44, true)];
    if (number !== 0) return ERR_INVALID_SCANOUT;
    if (id === 0) {
      scanout = null;
      return OK_NODATA;
    }
    const resource = resources.get(id);
    if (resource === undefined) return ERR_INVALID_RESOURCE;
    const at = rectangle(view);
    if (!resource.holds(at)) return ERR_INVALID_PARAMETER;
    scanout = { resource: id, at };
    return OK_NODATA;
  }
  function transfer(view: DataView): number {
    const resource = resources.get(view.getUint32(48, true));
    if (resource === undefined) return ERR_INVALID_RESOURCE;
    const at = rectangle(view);
    const offset = view.getUint32(44, true) * 2 ** 32 + view.getUint32(40, true);
    const memory = link?.memory ?? null;
    if (!resource.holds(at) || memory === null) return ERR_INVALID_PARAMETER;
    counts.transfers++;
    return resource.transfer(memory, at, offset) ? OK_NODATA : ERR_UNSPEC;
  }
  function attach(view: DataView): number {
    const [id, entries] = [view.getUint32(24, true), view.getUint32(28, true)];
    const resource = resources.get(id);
    if (resource === undefined) return ERR_INVALID_RESOURCE;
    if (entries > BACKINGS_LIMIT || view.byteLength < 32 + 16 * entries) return ERR_INVALID_PARAMETER;
    if (resource.backing.length > 0) return ERR_UNSPEC;
    resource.backing = Array.from({ length: entries }, (_, i): Backing => {
      const at = 32 + 16 * i;
      const address = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
      return { address, length: view.getUint32(at + 8, true) };
    });
    return OK_NODATA;
  }
  function answer(request: Uint8Array, reply: Uint8Array, size: number): number {
    if (request.length < HEADER || reply.length < HEADER) return 0;
    counts.commands++;
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    const type = view.getUint32(0, true);
    const outcome = execute(type, view, size, out);
    if (outcome >= ERR_UNSPEC) counts.refused++;
    out.setUint32(0, outcome, true);
    // §5.7.6.7: a fence comes back when the command is done, which it is.
    if ((view.getUint32(4, true) & FENCE) !== 0) {
      out.setUint32(4, FENCE, true);
      reply.set(request.subarray(8, 20), 8);
    }
    if (outcome === OK_DISPLAY_INFO) return DISPLAY_INFO;
    return outcome === OK_EDID ? EDID_REPLY : HEADER;
  }
  /** What the display shows; null while it shows nothing. */
  function picture(): Uint8Array | null {
    const resource = scanout === null ? undefined : resources.get(scanout.resource);
    if (scanout === null || resource === undefined) return null;
    const { at } = scanout;
    const [red, green, blue] = FORMATS[resource.format] ?? [0, 1, 2];
    const rgb = new Uint8Array(3 * at.width * at.height);
    let put = 0;
    for (let y = at.y; y < at.y + at.height; y++) {
      for (let x = at.x; x < at.x + at.width; x++) {
        const pixel = (y * resource.width + x) * PIXEL;
        rgb[put] = resource.pixels[pixel + red] ?? 0;
        rgb[put + 1] = resource.pixels[pixel + green] ?? 0;
        rgb[put + 2] = resource.pixels[pixel + blue] ?? 0;
        put += 3;
      }
    }
    return encodePng(at.width, at.height, rgb);
  }
  function screenshot(): Result<unknown> {
    const png = picture();
    if (png === null) return fail('device-control-invalid', 'the display shows nothing');
    save?.(png);
    return ok({ png: Buffer.from(png).toString('base64') });
  }
  const requests = { kind: 'requests', requestLimit: REQUEST_BYTES, replyLimit: EDID_REPLY } as const;
  return {
    type: gpu,
    bits: [F_EDID],
    queues: [
      { ...requests, answer: (request, reply, { size }) => answer(request, reply, size) },
      {
        ...{ kind: 'requests', size: 16, requestLimit: 56, replyLimit: HEADER },
        answer(request) {
          const type = request.length >= 56 ? (request[0] ?? 0) | ((request[1] ?? 0) << 8) : 0;
          if (type === UPDATE_CURSOR || type === MOVE_CURSOR) counts.cursor++;
          else counts.refused++;
          return 0;
        },
      },
    ],
    config: () => config,
    writeConfig: (offset, bytes) => offset === 4 && bytes.length === 4,
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      resources.clear();
      scanout = null;
      held = 0;
    },
    close() {
      const png = picture();
      if (png !== null) save?.(png);
    },
    commands: { screenshot },
    facts: () => ({ ...counts, resources: resources.size, pixelBytes: held, shown: scanout }),
  };
}

/** struct virtio_gpu_rect behind the header. */
function rectangle(view: DataView): Rectangle {
  const at = (offset: number) => view.getUint32(HEADER + offset, true);
  return { x: at(0), y: at(4), width: at(8), height: at(12) };
}
