/** Guests for tests: images once a series, skipped by name where no guest can be. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { KernelSeries } from '../src/cache.ts';
import { gatedInitramfs } from '../src/gated-initramfs.ts';
import type { Guest } from '../src/guest.ts';
import { bootLab, type Images, prepareImages } from '../src/images.ts';
import type { DriveConduct, DriveMaker, SpdmDrive } from '../src/spdm-drive.ts';
import { lookInto, type View } from '../src/view.ts';

/** `undefined` after a skip. A cache that could not be filled is a failure, not a skip. */
export async function imagesOrSkip(t: TestContext, series: KernelSeries): Promise<Images | undefined> {
  if (process.env['AIRLOCK_NO_GUESTS'] === '1') {
    t.skip('AIRLOCK_NO_GUESTS=1');
    return undefined;
  }
  const images = await prepareImages(series, () => {});
  if (!images.ok && images.error.code === 'lab-unsupported') {
    t.skip(images.error.message);
    return undefined;
  }
  assert.ok(images.ok, JSON.stringify(images));
  return images.value;
}

export async function gated(images: Images, policy: string): Promise<string> {
  const made = await gatedInitramfs(images.cache, images.kernel, images.plain, policy);
  assert.ok('path' in made, JSON.stringify(made));
  return made.path;
}

/** Boots, and ends the guest with the test. */
export async function bootFor(
  t: TestContext,
  images: Images,
  initramfs: string,
  more: Parameters<typeof bootLab>[2] = {},
): Promise<Guest> {
  const guest = await bootLab(images, initramfs, more);
  assert.ok(guest.ok, JSON.stringify(guest));
  t.after(() => guest.value.end());
  return guest.value;
}

/** A drive for QEMU’s `spdm_port`, closed with the test. */
export async function driveFor(t: TestContext, maker: DriveMaker, conduct: DriveConduct): Promise<SpdmDrive> {
  const drive = await maker.open(conduct);
  assert.ok(drive.ok, JSON.stringify(drive));
  t.after(() => drive.value.close());
  return drive.value;
}

export async function viewOf(guest: Guest): Promise<View> {
  const view = await lookInto(guest);
  assert.ok(view.ok, JSON.stringify(view));
  return view.value;
}

export async function shell(guest: Guest, script: string, seconds?: number): Promise<string> {
  const answer = await guest.run(script, seconds);
  assert.ok(answer.ok, JSON.stringify(answer));
  return answer.value.stdout;
}

/** `00:02.0 virtio_blk`: every PCI function that has any driver, with the one that makes it usable. */
export function boundIn(view: View): string[] {
  return view.pci
    .map((device) => ({ device, drivers: device.nodes.map((node) => node.driver).filter((driver) => driver !== null) }))
    .filter(({ drivers }) => drivers.length > 0)
    .map(({ device, drivers }) => `${device.id.replace('pci:0000:', '')} ${drivers.at(-1)}`);
}
