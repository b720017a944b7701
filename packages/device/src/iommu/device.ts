/**
 * An IOMMU's front: endpoints, domains and their mappings, kept and checked. It translates for nobody: what other devices
 * reach is the VMM's to say, and vfio-user has no message for it. VIRTIO 1.4 §5.13.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { iommu } from '@airlock/virtio/device/iommu.ts';
import { featureSet } from '@airlock/virtio/features.ts';
import type { DeviceModel } from '../model/model.ts';
import { Domain } from './domain.ts';

const F_MAP_UNMAP = 2;
const F_PROBE = 4;
const F_BYPASS_CONFIG = 6;
const BITS = [F_MAP_UNMAP, F_PROBE, F_BYPASS_CONFIG];

const ATTACH = 1;
const DETACH = 2;
const MAP = 3;
const UNMAP = 4;
const PROBE = 5;

const OK = 0;
const UNSUPP = 2;
const INVAL = 4;
const RANGE = 5;
const NOENT = 6;
const NOMEM = 8;

const ATTACH_F_BYPASS = 1;
const MAP_FLAGS = 7;
const PAGE = 4096n;
const PROBE_SIZE = 512;
const TAIL = 4;
/** struct virtio_iommu_probe_property of type RESV_MEM, subtype MSI: where Linux's own go on x86. */
const PROPERTY_RESERVED = 1;
const MSI = 1;
const MSI_START = 0xfee0_0000;
const MSI_END = 0xfeef_ffff;
const BYPASS_AT = 36;

export const DOMAINS_LIMIT = 1024;
export const ENDPOINTS_LIMIT = 4096;
export const MAPPINGS_LIMIT = 65_536;

export function iommuModel(): DeviceModel {
  const encoded = encodeConfig(iommu, featureSet(BITS), {
    ...{ page_size_mask: [0xffff_f000, 0xffff_ffff], probe_size: PROBE_SIZE, bypass: 1 },
  });
  const config = encoded.ok ? encoded.value : new Uint8Array(40);
  const domains = new Map<number, Domain>();
  const endpoints = new Map<number, { readonly domain: Domain; readonly number: number }>();
  let mappings = 0;
  const counts = { probes: 0, attaches: 0, detaches: 0, maps: 0, unmaps: 0, refused: 0 };

  function detach(endpoint: number): boolean {
    const held = endpoints.get(endpoint);
    if (held === undefined) return false;
    endpoints.delete(endpoint);
    held.domain.endpoints--;
    // §5.13.6.4.2: a domain without endpoints is gone, and its mappings.
    if (held.domain.endpoints === 0) {
      mappings -= held.domain.size;
      domains.delete(held.number);
    }
    return true;
  }
  function attach(view: DataView): number {
    const [number, endpoint, flags] = [view.getUint32(4, true), view.getUint32(8, true), view.getUint32(12, true)];
    if ((flags & ~ATTACH_F_BYPASS) !== 0) return INVAL;
    const bypass = flags === ATTACH_F_BYPASS;
    const known = domains.get(number);
    if (known !== undefined && known.bypass !== bypass) return INVAL;
    if (known === undefined && domains.size >= DOMAINS_LIMIT) return NOMEM;
    if (!endpoints.has(endpoint) && endpoints.size >= ENDPOINTS_LIMIT) return NOMEM;
    const domain = known ?? new Domain(bypass);
    domain.endpoints++;
    detach(endpoint);
    domains.set(number, domain);
    endpoints.set(endpoint, { domain, number });
    counts.attaches++;
    return OK;
  }
  function map(view: DataView): number {
    const domain = domains.get(view.getUint32(4, true));
    const [start, end] = [view.getBigUint64(8, true), view.getBigUint64(16, true)];
    const [physical, flags] = [view.getBigUint64(24, true), view.getUint32(32, true)];
    if (domain === undefined) return NOENT;
    if (domain.bypass || (flags & ~MAP_FLAGS) !== 0 || (flags & MAP_FLAGS) === 0) return INVAL;
    const length = end - start + 1n;
    if (end < start || physical + length > 2n ** 64n) return INVAL;
    if (start % PAGE !== 0n || length % PAGE !== 0n || physical % PAGE !== 0n) return RANGE;
    if (mappings >= MAPPINGS_LIMIT) return NOMEM;
    if (!domain.map({ start, end, physical, flags })) return INVAL;
    mappings++;
    counts.maps++;
    return OK;
  }
  function unmap(view: DataView): number {
    const domain = domains.get(view.getUint32(4, true));
    if (domain === undefined) return NOENT;
    if (domain.bypass) return INVAL;
    const removed = domain.unmap(view.getBigUint64(8, true), view.getBigUint64(16, true));
    if (removed === null) return RANGE;
    mappings -= removed;
    counts.unmaps++;
    return OK;
  }
  function execute(type: number, view: DataView, reply: DataView): number {
    const fits = (length: number) => view.byteLength >= length;
    switch (type) {
      case ATTACH:
        return fits(20) ? attach(view) : INVAL;
      case DETACH: {
        if (!fits(20)) return INVAL;
        const [number, endpoint] = [view.getUint32(4, true), view.getUint32(8, true)];
        if (endpoints.get(endpoint)?.number !== number) return endpoints.has(endpoint) ? INVAL : NOENT;
        counts.detaches++;
        detach(endpoint);
        return OK;
      }
      case MAP:
        return fits(36) ? map(view) : INVAL;
      case UNMAP:
        return fits(28) ? unmap(view) : INVAL;
      case PROBE:
        if (!fits(8) || reply.byteLength < PROBE_SIZE + TAIL) return INVAL;
        counts.probes++;
        reply.setUint16(0, PROPERTY_RESERVED, true);
        reply.setUint16(2, 20, true);
        reply.setUint8(4, MSI);
        reply.setUint32(8, MSI_START, true);
        reply.setUint32(16, MSI_END, true);
        return OK;
      default:
        return UNSUPP;
    }
  }
  return {
    type: iommu,
    bits: BITS,
    queues: [
      {
        ...{ kind: 'requests', size: 128, requestLimit: 72, replyLimit: PROBE_SIZE + TAIL },
        answer(request, reply, { room }) {
          if (reply.length < TAIL || room > reply.length) return 0;
          const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
          const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
          const status = request.length >= 4 ? execute(request[0] ?? 0, view, out) : INVAL;
          if (status !== OK) {
            counts.refused++;
            reply.fill(0);
          }
          // The tail is the end of what the driver gave.
          reply[reply.length - TAIL] = status;
          return reply.length;
        },
      },
      { kind: 'events' },
    ],
    config: () => config,
    writeConfig(offset, bytes) {
      if (offset !== BYPASS_AT || bytes.length !== 1 || (bytes[0] ?? 2) > 1) return false;
      config[BYPASS_AT] = bytes[0] ?? 0;
      return true;
    },
    end() {
      domains.clear();
      endpoints.clear();
      mappings = 0;
    },
    commands: {
      /** Where an address of an endpoint leads, by its domain. */
      translate(argument): Result<unknown> {
        const [, endpoint = '', address = ''] = /^([0-9]{1,10}) (0x[0-9a-f]{1,16})$/.exec(argument) ?? [];
        if (address === '') return fail('device-control-invalid', 'translate ENDPOINT 0xADDRESS');
        const domain = endpoints.get(Number(endpoint))?.domain;
        if (domain === undefined) return fail('device-control-invalid', `endpoint ${endpoint} is not attached`);
        const found = domain.bypass
          ? { physical: BigInt(address), flags: MAP_FLAGS }
          : domain.translate(BigInt(address));
        return ok(found === null ? null : { physical: `0x${found.physical.toString(16)}`, flags: found.flags });
      },
    },
    facts: () => ({
      ...counts,
      ...{ domains: domains.size, endpoints: [...endpoints.keys()], mappings, bypass: config[BYPASS_AT] },
    }),
  };
}
