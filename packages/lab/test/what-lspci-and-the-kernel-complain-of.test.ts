import assert from 'node:assert/strict';
import { test } from 'node:test';
import { complaints } from '../src/kernel-log.ts';
import { readPciListing } from '../src/pci-listing.ts';

const GOOD = `01:00.0 Unclassified device [00ff]: Red Hat, Inc. Virtio 1.0 RNG (rev 01)
\tRegion 0: Memory at f2810000 (32-bit, non-prefetchable) [size=16K]
\tCapabilities: [40] Express (v2) Endpoint, IntMsgNum 0
\t\tLnkSta2: Current De-emphasis Level: -6dB, EqualizationComplete- EqualizationPhase1-
\tCapabilities: [d4] Vendor Specific Information: VirtIO: <unknown>
\tCapabilities: [100 v1] Device Serial Number 00-00-00-00-00-00-00-01
00: f4 1a 44 10 07 05 10 00 01 00 ff 00 00 00 00 00
ff0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
`;

test('what is read without a complaint has none', () => {
  const listing = readPciListing(GOOD);
  assert.deepEqual(listing.complaints, []);
  assert.equal(listing.dumped, 32);
  assert.deepEqual(listing.capabilities, [
    '[40] Express (v2) Endpoint, IntMsgNum 0',
    '[d4] Vendor Specific Information: VirtIO: <unknown>',
    '[100 v1] Device Serial Number 00-00-00-00-00-00-00-01',
  ]);
});

test('each thing that lspci cannot make sense of is seen', () => {
  for (const line of [
    'Capabilities: <access denied>',
    'Capabilities: [40] <chain looped>',
    'Capabilities: [40] <chain broken>',
    '!!! Unknown header type 7f',
    '!!! Invalid class 0600 for header type 00',
    'Region 0: Memory at <unassigned> (32-bit, non-prefetchable)',
    'Region 0: [virtual] Memory at f2810000 (32-bit, non-prefetchable) [size=16K]',
    'Region 0: Memory at f2810000 (32-bit, non-prefetchable) [disabled] [size=16K]',
    'Region 0: Memory at <ignored> (64-bit, prefetchable)',
    'Region 5: Memory at <invalid-64bit-slot>',
    'Capabilities: [50] #00 [0000]',
    'Capabilities: [100 v1] #33',
    'Capabilities: [100 v1] Extended Capability ID 0x39',
    'Vendor Specific Information: Len=00 <?>',
    'Something: <unknown>',
    'lspci: Unable to load libkmod resources: error -2',
    'pcilib: sysfs_read_vpd: read failed: No such device',
  ]) {
    assert.deepEqual(readPciListing(`${GOOD}\t${line}\n`).complaints, [line]);
  }
});

test('a line of the kernel counts from warning on, unless it is known for that type', () => {
  const log = [
    '<6>[   1.0] harmless',
    '<4>[   1.1] WARNING: CPU: 0 PID: 1 at lib/x.c:1',
    '<12>[   1.2] from user space, at warning',
    '<3>[   1.3] an error',
    '<4>[   1.4] nd_pmem namespace0.0: unable to guarantee persistence of writes',
    '<4>[   1.5] hrtimer: interrupt took 172052161 ns',
    'no level at all',
  ].join('\n');
  assert.equal(complaints(log, 'pmem').length, 3);
  assert.equal(complaints(log, 'block').length, 4);
  assert.equal(complaints('', null).length, 0);
});

test('a known trace is passed over to its end, and nothing beside it', () => {
  const log = [
    '<4>[   1.0] before',
    '<4>[   1.1] ------------[ cut here ]------------',
    '<4>[   1.1] Memory manager not clean during takedown.',
    '<4>[   1.1] WARNING: drivers/gpu/drm/drm_mm.c:965',
    '<4>[   1.1] Call Trace:',
    '<4>[   1.1] ---[ end trace 0000000000000000 ]---',
    '<4>[   1.2] ------------[ cut here ]------------',
    '<4>[   1.2] WARNING: kernel/other.c:1',
    '<4>[   1.2] ---[ end trace 0000000000000000 ]---',
  ].join('\n');
  assert.deepEqual(
    complaints(log, 'gpu').map((line) => line.slice(12)),
    [
      'before',
      '------------[ cut here ]------------',
      'WARNING: kernel/other.c:1',
      '---[ end trace 0000000000000000 ]---',
    ],
  );
  assert.equal(complaints(log, 'block').length, 9);
});
