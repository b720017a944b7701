/** What every case of a device in a guest has to hold, whichever test ran it. */
import assert from 'node:assert/strict';
import type { Kernel } from '../src/cache.ts';
import { type CaseOutcome, type DeviceCase, kernelDriver } from '../src/device-bench.ts';
import { VIRTIO_CAPABILITIES } from '../src/pci-listing.ts';

/**
 * The kernel's driver did its operation (or there is none, and nothing bound), the kernel complained of nothing, and lspci
 * read the whole function and made sense of all of it; of a function of ours it found every capability and none other.
 * Gives what was done, or why the transport does not carry the type.
 */
export function assertClean(outcome: CaseOutcome, one: DeviceCase, kernel: Kernel): string {
  const expected = kernelDriver(kernel, one.option);
  const ours = outcome.transport.startsWith('vfio-user');
  // Behind QEMU not every type can be had; which, the document says.
  if (!ours && outcome.excused !== null && outcome.excused !== expected.said) return outcome.excused;
  if (expected.has) {
    assert.ok(outcome.done.ok, JSON.stringify(outcome.done));
    assert.equal(outcome.driver, one.driver);
  } else {
    // Not silence: that nothing was bound was looked at.
    assert.deepEqual([outcome.excused, outcome.driver], [expected.said, null], JSON.stringify(outcome.done));
  }
  assert.deepEqual(outcome.warnings, []);
  const { listing } = outcome;
  assert.ok(listing !== null);
  assert.deepEqual(listing.complaints, []);
  assert.equal(listing.dumped, 4096);
  if (!ours) return outcome.done.ok ? outcome.done.value : expected.said;
  const capabilities = one.type === 'pmem' ? [...VIRTIO_CAPABILITIES, /VirtIO: <unknown>$/] : VIRTIO_CAPABILITIES;
  assert.equal(listing.capabilities.length, capabilities.length, listing.capabilities.join('\n'));
  for (const [i, capability] of capabilities.entries()) assert.match(listing.capabilities[i] ?? '', capability);
  return outcome.done.ok ? outcome.done.value : expected.said;
}
