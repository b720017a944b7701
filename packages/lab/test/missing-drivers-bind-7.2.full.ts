/**
 * Linux's drivers that Debian leaves out, built from the same kernel's source: each binds our device of its type, by both
 * kinds of vfio-user and both of vhost-user, does one real operation with it, and the kernel has nothing to complain of.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootBench, DEVICE_TRANSPORTS, runCase } from '../src/device-bench.ts';
import { DEVICE_CASES } from '../src/device-cases.ts';
import { prepareDriverGuest } from '../src/driver-guest.ts';
import { MISSING_OPTIONS } from '../src/missing-drivers.ts';
import { assertClean } from './clean-case.ts';

const CASES = DEVICE_CASES.filter(({ option }) => MISSING_OPTIONS.some((one) => one === option));

for (const transport of DEVICE_TRANSPORTS) {
  test(`Linux 7.2, drivers built aside: over ${transport}`, { timeout: 900_000 }, async (t) => {
    if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
    const images = await prepareDriverGuest('7.2', () => {}, true);
    if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
    assert.ok(images.ok, JSON.stringify(images));
    const guest = await bootBench(images.value);
    assert.ok(guest.ok, JSON.stringify(guest));
    t.after(() => guest.value.end());
    assert.equal(CASES.length, MISSING_OPTIONS.length);
    for (const [index, one] of CASES.entries()) {
      await t.test(one.type, async (each) => {
        const outcome = await runCase(guest.value, images.value.kernel, transport, one, index);
        each.diagnostic(assertClean(outcome, one, images.value.kernel));
      });
    }
  });
}
