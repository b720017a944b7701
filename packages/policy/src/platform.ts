/** The policy's `platform` section: what must hold of the machine, and what no rule can allow. */
import type { DecisionInput } from '@airlock/core/decision.ts';
import type { Device, Inventory, KernelFacts } from '@airlock/core/device.ts';
import { isLegacyVirtio, NO, unknownOfPci } from './facts.ts';
import type { PlatformForbid, PlatformRequirement, Policy } from './policy.ts';

interface Observed {
  readonly holds: boolean;
  readonly value: unknown;
  readonly wanted: string;
}

/** Each as docs/policy.md, "Platform" says. What is not known does not hold. */
export function observe(name: PlatformRequirement, inventory: Inventory): Observed {
  const kernel = inventory.kernel;
  switch (name) {
    case 'memory-encryption':
      return {
        holds: kernel.confidential !== null,
        value: kernel.confidential ?? 'not a confidential VM',
        wanted: 'a confidential VM',
      };
    case 'memory-integrity':
      return {
        holds: kernel.confidential !== null && kernel.confidential !== 'sev' && kernel.confidential !== 'sev-es',
        value: kernel.confidential ?? 'not a confidential VM',
        wanted: 'sev-snp, tdx, cca or secure-execution',
      };
    case 'swiotlb':
      return { holds: kernel.swiotlb !== 'off', value: kernel.swiotlb, wanted: 'not off' };
    case 'swiotlb-force':
      // In a confidential VM the kernel bounces by itself: with SWIOTLB_FORCE up to 7.2, per device since 7.3.
      return {
        holds: kernel.swiotlb === 'force' || (kernel.swiotlb === 'auto' && kernel.confidential !== null),
        value: kernel.swiotlb,
        wanted: 'force, or a confidential VM',
      };
    case 'iommu-strict':
      return iommuStrict(inventory);
    case 'lockdown':
      return {
        holds: kernel.lockdown === 'integrity' || kernel.lockdown === 'confidentiality',
        value: kernel.lockdown ?? 'not available',
        wanted: 'integrity or confidentiality',
      };
    case 'lockdown-confidentiality':
      return {
        holds: kernel.lockdown === 'confidentiality',
        value: kernel.lockdown ?? 'not available',
        wanted: 'confidentiality',
      };
    case 'module-signatures': {
      // Lockdown refuses unsigned modules as well.
      const locked = kernel.lockdown === 'integrity' || kernel.lockdown === 'confidentiality';
      const enforced = setting(kernel, 'module.sig_enforce');
      const on = enforced !== undefined && ['', '1', 'y', 'Y'].includes(enforced);
      return {
        holds: locked || on,
        value: locked ? `lockdown ${kernel.lockdown}` : `module.sig_enforce ${enforced ?? 'not set'}`,
        wanted: 'module.sig_enforce=1 or lockdown',
      };
    }
  }
}

function iommuStrict(inventory: Inventory): Observed {
  const wanted = 'every IOMMU group of type DMA, or iommu.strict=1';
  const types = new Set<string>();
  for (const device of inventory.devices) {
    if (device.iommu) types.add(device.iommu.type ?? 'unknown');
  }
  const passthrough = setting(inventory.kernel, 'iommu.passthrough') === '1' || types.has('identity');
  const asked = setting(inventory.kernel, 'iommu.strict') === '1';
  const observed = types.size > 0 && [...types].every((type) => type === 'DMA');
  const seen = types.size > 0 ? [...types].sort().join(', ') : 'no IOMMU group';
  return { holds: !passthrough && types.size > 0 && (observed || asked), value: seen, wanted };
}

/** The last `name=value` of the kernel's command line; '' for a bare name. What follows ` -- ` is for init. */
function setting(kernel: KernelFacts, name: string): string | undefined {
  let found: string | undefined;
  for (const word of kernel.cmdline.split(/\s+/)) {
    if (word === '--') break;
    if (word === name) found = '';
    else if (word.startsWith(`${name}=`)) found = word.slice(name.length + 1);
  }
  return found;
}

/** One input a requirement, in the policy's order. */
export function platformInputs(policy: Policy, inventory: Inventory): readonly DecisionInput[] {
  return policy.platform.require.map(({ name }) => {
    const { holds, value, wanted } = observe(name, inventory);
    return { field: `platform.${name}`, value, wanted, holds };
  });
}

const FORBIDDEN: Readonly<Record<PlatformForbid, (device: Device) => boolean>> = {
  'virtio-mmio': (device) => device.transport === 'mmio',
  'virtio-legacy': isLegacyVirtio,
  'virtio-vdpa': (device) => device.transport === 'vdpa',
  vdpa: (device) => device.bus === 'vdpa' || device.transport === 'vdpa',
  hotplug: (device) => device.origin !== 'boot',
  usb: (device) => device.bus === 'usb',
  // One that does not tell whether it is one may be one.
  'sriov-virtual': (device) =>
    device.sriov === undefined ? unknownOfPci(device) !== NO : device.sriov?.role === 'virtual',
};

export function isForbidden(name: PlatformForbid, device: Device): boolean {
  return FORBIDDEN[name](device);
}
