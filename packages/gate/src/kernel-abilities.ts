/**
 * What a kernel can hold and what it cannot, as data: each entry was seen in its source or in a guest, and says so in
 * words that go into `not-enforceable`.
 */
import type { Inventory, KernelFacts } from '@airlock/core/device.ts';
import type { Outcome } from '@airlock/core/plan.ts';

export interface KernelAbilities {
  /**
   * `drivers_autoprobe` = 0 also holds for PCI functions that are hot-plugged or found by a rescan. Up to 6.12
   * pci_bus_add_device() calls device_attach(), which does not look at it; on 7.2 it holds (seen in guests).
   */
  readonly autoprobeHoldsHotplug: boolean;
  /** The virtio bus has driver_override: on no kernel so far (checked by looking for it all the same). */
  readonly virtioOverride: boolean;
  /** Features can be turned down by user space before a driver negotiates them: on no kernel so far. */
  readonly featureChoice: boolean;
}

/** The first release on which each ability was seen. */
const SINCE = { autoprobeHoldsHotplug: [7, 2] } as const;

export function kernelAbilities(kernel: KernelFacts): KernelAbilities {
  return {
    autoprobeHoldsHotplug: atLeast(kernel.release, SINCE.autoprobeHoldsHotplug),
    virtioOverride: false,
    featureChoice: false,
  };
}

/** `false` for a release that does not begin with two numbers: an unknown kernel is not trusted to hold anything. */
function atLeast(release: string, wanted: readonly [number, number]): boolean {
  const match = /^(\d{1,4})\.(\d{1,4})(?:\D|$)/.exec(release);
  if (match === null) return false;
  const major = Number(match[1]);
  return major > wanted[0] || (major === wanted[0] && Number(match[2]) >= wanted[1]);
}

export interface HoleFacts {
  /** Drivers on the PCI bus, as /sys/bus/pci/drivers lists them. */
  readonly pciDrivers: readonly string[];
  /** The policy asked for modules_disabled. */
  readonly disableModules: boolean;
}

/**
 * What holds, and what does not, of the machine as a whole once every device is as its decision says. `inventory` is
 * that of after the last step.
 */
export function machineOutcomes(inventory: Inventory, facts: HoleFacts): Outcome[] {
  const { kernel } = inventory;
  const outcomes: Outcome[] = [];
  for (const bus of ['pci', 'virtio', 'vdpa', 'usb']) {
    const value = kernel.autoprobe[bus];
    if (value === undefined) continue;
    outcomes.push({
      property: `nothing binds by itself on ${bus}`,
      status: value ? 'failed' : 'enforced',
      evidence: { path: `/sys/bus/${bus}/drivers_autoprobe`, value: value ? '1' : '0' },
      ...(value ? { because: 'it was turned on again, or could not be turned off' } : {}),
    });
  }
  for (const { location, path, sriov } of inventory.devices) {
    if (sriov?.role !== 'physical' || sriov.autoprobe === undefined) continue;
    outcomes.push({
      property: `nothing binds by itself to virtual functions of ${location}`,
      status: sriov.autoprobe ? 'failed' : 'enforced',
      evidence: { path: `${path}/sriov_drivers_autoprobe`, value: sriov.autoprobe ? '1' : '0' },
      ...(sriov.autoprobe ? { because: 'it was turned on again, or could not be turned off' } : {}),
    });
  }
  outcomes.push(hotplugOutcome(inventory, facts));
  if (facts.disableModules) {
    outcomes.push({
      property: 'no more modules can be loaded',
      status: kernel.modulesDisabled ? 'enforced' : 'failed',
      evidence: { path: '/proc/sys/kernel/modules_disabled', value: kernel.modulesDisabled ? '1' : '0' },
      ...(kernel.modulesDisabled ? {} : { because: 'the kernel did not take modules_disabled = 1' }),
    });
  }
  return outcomes;
}

function hotplugOutcome({ kernel, devices }: Inventory, facts: HoleFacts): Outcome {
  const property = 'hot-plugged PCI functions stay without a driver';
  const evidence = { path: '/proc/sys/kernel/osrelease', value: kernel.release };
  const autoprobe = kernel.autoprobe['pci'];
  const onPci = facts.pciDrivers.length > 0 || devices.some(({ nodes }) => nodes[0]?.bus === 'pci');
  if (autoprobe === undefined && !onPci) {
    return { property, status: 'enforced', evidence: { path: '/sys/bus/pci', value: '(no PCI bus)' } };
  }
  if (kernelAbilities(kernel).autoprobeHoldsHotplug) {
    if (autoprobe === false) return { property, status: 'enforced', evidence };
    const path = '/sys/bus/pci/drivers_autoprobe';
    return {
      property,
      status: 'failed',
      evidence: { path, value: autoprobe === undefined ? '(unreadable)' : '1' },
      because: 'this kernel holds them back only while drivers_autoprobe is 0',
    };
  }
  // pcieport takes only bridges; a function behind virtio-pci still has an unbound child on the virtio bus.
  const takers = facts.pciDrivers.filter((name) => name !== 'pcieport' && name !== 'virtio-pci');
  const shown = takers.slice(0, 4).join(', ') + (takers.length > 4 ? ` and ${takers.length - 4} more` : '');
  return {
    property,
    status: 'not-enforceable',
    evidence,
    because:
      `Linux before 7.2 binds them in spite of drivers_autoprobe = 0; ` +
      (takers.length === 0
        ? 'no driver that could take one is here now (virtio devices stay unbound on the virtio bus)'
        : `drivers here that could take one: ${shown}`) +
      (kernel.modulesDisabled ? '; no more can be loaded' : '; more can be loaded') +
      '. The agent unbinds it at once',
  };
}
