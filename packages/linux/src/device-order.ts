/** The last step of an inventory: devices sorted, each id once, keys in one order. */
import type { Device } from '@airlock/core/device.ts';
import type { Draft } from './pci.ts';

const RANK: readonly string[] = ['pci', 'ccw', 'virtio', 'platform', 'usb', 'vdpa'];

/** Sorted, each id once: two devices that pass for one must not share a decision. */
export function orderDevices(drafts: readonly Draft[], boot: readonly string[] | undefined, full: boolean): Device[] {
  const known = boot === undefined ? undefined : new Set(boot);
  const seen = new Map<string, number>();
  const keyed = drafts.map((draft) => ({ draft, key: orderKey(draft) }));
  return keyed
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map(({ draft }): Device => {
      const times = (seen.get(draft.id) ?? 0) + 1;
      seen.set(draft.id, times);
      if (times > 1) draft.id = `${draft.id}#${times}`;
      if (known !== undefined) draft.origin = known.has(draft.id) ? 'boot' : 'hotplug';
      return full ? inOrder(draft) : draft;
    });
}

const KEYS: readonly (keyof Device)[] = [
  'id',
  'bus',
  'transport',
  'type',
  'virtioId',
  'vendor',
  'device',
  'subsystem',
  'class',
  'revision',
  'serial',
  'modalias',
  'location',
  'path',
  'parent',
  'origin',
  'nodes',
  'sriov',
  'features',
  'status',
  'iommu',
  'link',
  'doe',
  'tsm',
  'interfaces',
  'faults',
];

/** The same device with its keys in one order, however its reads came back: inventories can be compared as text. */
function inOrder(draft: Draft): Device {
  const facts: Record<string, unknown> = {};
  for (const key of KEYS) if (draft[key] !== undefined) facts[key] = draft[key];
  const device: unknown = facts;
  return device as Device;
}

/** Numbers in a name count as numbers: `1-10` comes after `1-9`. PCI addresses have as many digits each. */
function orderKey(draft: Draft): string {
  const rank = RANK.indexOf(draft.id.slice(0, draft.id.indexOf(':')));
  return rank === 0
    ? `0${draft.location}`
    : `${rank}${draft.location.replace(/\d+/g, (digits) => digits.padStart(10, '0'))}`;
}
