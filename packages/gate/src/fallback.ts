/**
 * Decisions without a policy: what a machine needs to find its root disk, at `limited`, and nothing else. The list is
 * built in, so that a broken policy file can make a machine poorer and never richer.
 */
import type { Decision, ReasonCode } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';

/** NVMe, by PCI class code. */
const NVME = 0x010802;

/** Disks: virtio block and SCSI over PCI, and NVMe, that were there at boot. */
export function isBootCritical(device: Device): boolean {
  if (device.origin === 'hotplug') return false;
  if (device.bus === 'virtio') {
    return (
      (device.type === 'block' || device.type === 'scsi') && (device.transport === 'pci' || device.transport === 'ccw')
    );
  }
  return device.bus === 'pci' && device.class === NVME && device.sriov?.role !== 'virtual';
}

/** One decision for each device. `why` says what is wrong with the policy. */
export function fallbackDecisions(inventory: Inventory, why: string): Decision[] {
  return inventory.devices.map((device) => {
    const critical = isBootCritical(device);
    const reason: ReasonCode = critical ? 'fallback-boot-critical' : 'fallback-denied';
    return {
      device: device.id,
      level: critical ? 'limited' : 'disconnected',
      rule: null,
      reason,
      detail: critical ? `a disk that the machine may boot from; ${why}` : `not needed to boot; ${why}`,
      tier: device.vendor !== undefined && device.device !== undefined ? 'claimed' : 'location',
      inputs: [{ field: 'type', value: device.type ?? null, holds: critical }],
      changes: [],
      pending: [],
      grantable: 'disconnected',
    };
  });
}

/**
 * The same decisions with everything disconnected that is not boot-critical: for a machine on which decisions cannot
 * be kept for the agent. `critical` are rule ids and device ids, as the policy's boot-critical section names them.
 */
export function onlyBootCritical(decisions: readonly Decision[], critical: readonly string[], why: string): Decision[] {
  return decisions.map((decision) => {
    const named = critical.includes(decision.device) || (decision.rule !== null && critical.includes(decision.rule.id));
    if (named || decision.level === 'disconnected') return decision;
    return { ...decision, level: 'disconnected', reason: 'fallback-denied', detail: why, pending: [] };
  });
}
