/**
 * The rule that three guest tests hold, each on its kernel: a device of every type is plugged into a running Linux as a PCI
 * function, bound by the kernel's driver, used for what it is for, and unplugged, and the kernel has nothing to complain of.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelSeries } from '../src/cache.ts';
import { bootBench, runCase } from '../src/device-bench.ts';
import { DEVICE_CASES } from '../src/device-cases.ts';
import { prepareDriverGuest } from '../src/driver-guest.ts';

export function everyTypeOverVfioUser(series: KernelSeries): void {
  test(`Linux ${series}: a device of every type, over vfio-user`, { timeout: 900_000 }, async (t) => {
    if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
    const images = await prepareDriverGuest(series);
    if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
    assert.ok(images.ok, JSON.stringify(images));
    const guest = await bootBench(images.value);
    assert.ok(guest.ok, JSON.stringify(guest));
    t.after(() => guest.value.end());
    for (const [index, one] of DEVICE_CASES.entries()) {
      await t.test(one.type, async (each) => {
        const outcome = await runCase(guest.value, images.value.kernel, 'vfio-user', one, index);
        if (outcome.excused !== null) {
          // Not silence: that nothing was bound was looked at.
          assert.equal(outcome.driver, null);
          each.diagnostic(outcome.excused);
          return;
        }
        assert.ok(outcome.done.ok, JSON.stringify(outcome.done));
        assert.equal(outcome.driver, one.driver);
        assert.deepEqual(outcome.warnings, []);
        each.diagnostic(outcome.done.value);
      });
    }
  });
}
