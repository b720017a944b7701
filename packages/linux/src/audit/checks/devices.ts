/** What devices and drivers have agreed on, from the inventory. */
import { type Device, isBound } from '@airlock/core/device.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, notApplicable, REFERENCES, unknown, type Verdict, verdictOf } from '../finding.ts';
import type { Observations } from '../reading.ts';

/** The virtio types that Intel hardened and fuzzed; its guest filter refuses all others. */
export const HARDENED_TYPES: readonly string[] = ['net', 'block', 'console', '9p', 'vsock'];

const FEATURES = '/sys/bus/virtio/devices/*/features';

/**
 * Judges every device of the inventory that is `concerned`; `wrong` gives what is wrong with one, or nothing. The
 * evidence names the attribute of its innermost node.
 */
function eachDevice(
  observations: Observations,
  attribute: string,
  concerned: (device: Device) => boolean,
  wrong: (device: Device) => string | undefined,
  nothing: string,
): Verdict {
  const { inventory } = observations;
  if (inventory === null) return unknown('/sys/bus', observations.inventoryProblem?.message ?? 'no inventory');
  const devices = inventory.devices.filter(concerned);
  if (devices.length === 0) return notApplicable(nothing);
  const found: Evidence[] = [];
  const fine: Evidence[] = [];
  for (const device of devices) {
    const problem = wrong(device);
    const inner = device.nodes[device.nodes.length - 1];
    const path = inner === undefined ? device.path : `/sys/bus/${inner.bus}/devices/${inner.name}/${attribute}`;
    if (problem === undefined) fine.push(evidence(path, device.type ?? device.bus));
    else found.push(evidence(path, problem));
  }
  return verdictOf(found, fine);
}

const negotiated = (device: Device) => device.features?.negotiated;
const liveVirtio = (device: Device) => device.bus === 'virtio' && isBound(device) && negotiated(device) !== undefined;

function featureCheck(feature: string, wanted: boolean): Check['run'] {
  return (observations) =>
    eachDevice(
      observations,
      'features',
      liveVirtio,
      (device) =>
        negotiated(device)?.includes(feature) === wanted
          ? undefined
          : `${device.type ?? 'virtio'}: ${feature} ${wanted ? 'not negotiated' : 'negotiated'}`,
      'no virtio device with a driver',
    );
}

export const deviceChecks: readonly Check[] = [
  {
    id: 'virtio-without-access-platform',
    area: 'devices',
    title: 'A virtio device works without ACCESS_PLATFORM',
    severity: 'critical',
    elsewhere: 'info',
    looksAt: [FEATURES],
    why: 'The driver hands the device raw guest-physical addresses: no bounce buffers, no IOMMU. Kernels that know they are confidential refuse such devices on x86 and s390.',
    fix: 'Have the VMM offer it (QEMU: iommu_platform=on), and forbid devices without it in the policy: features: { require: [ACCESS_PLATFORM] }.',
    reference: REFERENCES.threatModel,
    run: featureCheck('ACCESS_PLATFORM', true),
  },
  {
    id: 'virtio-legacy',
    area: 'devices',
    title: 'A virtio device is driven through the legacy interface',
    severity: 'medium',
    elsewhere: 'info',
    looksAt: [FEATURES],
    why: 'Legacy virtio (without VERSION_1) has other layouts and no feature negotiation that can fail; Intel disabled it for hardened guests.',
    fix: 'Have the VMM offer modern devices only (QEMU: disable-legacy=on); features: { require: [VERSION_1] } in the policy.',
    reference: REFERENCES.intelVirtio,
    run: featureCheck('VERSION_1', true),
  },
  {
    id: 'virtio-packed-ring',
    area: 'devices',
    title: 'A virtio device uses packed rings',
    severity: 'low',
    elsewhere: 'info',
    looksAt: [FEATURES],
    why: 'Only the split ring without indirect descriptors was audited and fuzzed. Linux accepts packed rings whenever the device offers them.',
    fix: 'Have the VMM not offer them (QEMU: packed=off); features: { forbid: [RING_PACKED] } makes Airlock cut such a device off.',
    reference: REFERENCES.intelVirtio,
    run: featureCheck('RING_PACKED', false),
  },
  {
    id: 'virtio-indirect-descriptors',
    area: 'devices',
    title: 'A virtio device uses indirect descriptors',
    severity: 'low',
    elsewhere: 'info',
    looksAt: [FEATURES],
    why: 'Only the split ring without indirect descriptors was audited and fuzzed. Linux accepts them whenever the device offers them.',
    fix: 'Have the VMM not offer them (QEMU: indirect_desc=off); features: { forbid: [INDIRECT_DESC] } makes Airlock cut such a device off.',
    reference: REFERENCES.intelVirtio,
    run: featureCheck('INDIRECT_DESC', false),
  },
  {
    id: 'virtio-needs-reset',
    area: 'devices',
    title: 'A virtio device says that it is broken',
    severity: 'low',
    elsewhere: 'low',
    looksAt: ['/sys/bus/virtio/devices/*/status'],
    why: 'NEEDS_RESET or FAILED is set. The kernel does not log it and nearly no driver looks; a device that does so may be probing how the guest reacts.',
    fix: 'Find out why with the operator of the host; airlock reject DEVICE takes the device away until then.',
    reference: 'VIRTIO 1.2, 2.1 Device Status Field',
    run: (observations) =>
      eachDevice(
        observations,
        'status',
        (device) => device.bus === 'virtio' && device.status !== undefined,
        ({ status = 0, type }) =>
          (status & 0xc0) === 0 ? undefined : `${type ?? 'virtio'}: status 0x${status.toString(16)}`,
        'no virtio device with a driver',
      ),
  },
  {
    id: 'virtio-mmio',
    area: 'devices',
    title: 'A virtio device sits on the mmio transport',
    severity: 'medium',
    elsewhere: null,
    looksAt: ['/sys/bus/platform/devices'],
    why: 'Intel hardened virtio over PCI only; mmio devices come from ACPI tables or the command line, both of which the host may write.',
    fix: 'Have the VMM put devices on PCI (QEMU: not the microvm machine), and forbid [virtio-mmio] in the policy.',
    reference: REFERENCES.intelVirtio,
    run: (observations) =>
      eachDevice(
        observations,
        'uevent',
        (device) => device.bus === 'virtio',
        (device) => (device.transport === 'mmio' ? `${device.type ?? 'virtio'} over mmio` : undefined),
        'no virtio device',
      ),
  },
  {
    id: 'unhardened-virtio-device',
    area: 'devices',
    title: 'A virtio device of a type that nobody hardened has a driver',
    severity: 'medium',
    elsewhere: null,
    looksAt: ['/sys/bus/virtio/devices/*/driver'],
    why: `Outside ${HARDENED_TYPES.join(', ')} no virtio driver was audited against a hostile device; its bugs are open to the host.`,
    fix: 'Have the VMM not offer the device, or let no rule of the policy match it; Airlock then keeps it without a driver.',
    reference: REFERENCES.intelVirtio,
    run: (observations) =>
      eachDevice(
        observations,
        'driver',
        (device) => device.bus === 'virtio' && isBound(device),
        (device) => {
          if (device.type !== null && HARDENED_TYPES.includes(device.type)) return undefined;
          return `${device.type ?? 'unknown type'}: driver ${device.nodes[device.nodes.length - 1]?.driver}`;
        },
        'no virtio device with a driver',
      ),
  },
  {
    id: 'emulated-pci-device',
    area: 'devices',
    title: 'A PCI device that is not virtio has a driver',
    severity: 'medium',
    elsewhere: null,
    looksAt: ['/sys/bus/pci/devices/*/driver'],
    why: 'Emulated and passed-through functions are driven by code that trusts its hardware. Intel lets only virtio through.',
    fix: 'Have the VMM not offer the device, or let no rule of the policy match it; what must be used belongs on a rule with level: limited.',
    reference: REFERENCES.intelFilter,
    run: (observations) =>
      eachDevice(
        observations,
        'driver',
        // Bridges (base class 06) are how the bus itself works.
        (device) => device.bus === 'pci' && isBound(device) && (device.class ?? 0) >> 16 !== 0x06,
        (device) => `${device.type ?? 'PCI function'}: driver ${device.nodes[device.nodes.length - 1]?.driver}`,
        'no PCI function with a driver besides virtio and bridges',
      ),
  },
];
