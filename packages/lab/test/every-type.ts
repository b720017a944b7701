/**
 * The rule that guest tests hold, each on its kernel: a device of every type is plugged into a running Linux as a PCI
 * function of ours or of QEMU's, read by lspci without a complaint, bound by the kernel's driver, used for what it is for,
 * let go and taken again, and unplugged; and the kernel has nothing to complain of after any of that.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelSeries } from '../src/cache.ts';
import { bootBench, type DeviceTransport, PORTS, runCase } from '../src/device-bench.ts';
import { DEVICE_CASES } from '../src/device-cases.ts';
import { prepareDriverGuest } from '../src/driver-guest.ts';
import type { Guest } from '../src/guest.ts';
import { assertClean } from './clean-case.ts';

export function everyType(series: KernelSeries, transport: DeviceTransport): void {
  test(`Linux ${series}: a device of every type, over ${transport}`, { timeout: 900_000 }, async (t) => {
    if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
    const images = await prepareDriverGuest(series);
    if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
    assert.ok(images.ok, JSON.stringify(images));
    let guest: Guest | null = null;
    t.after(() => guest?.end());
    for (const [index, one] of DEVICE_CASES.entries()) {
      // Plain functions stay plugged in: when the slots are full, the next has a guest of its own.
      if (guest === null || (transport === 'vfio-user plain' && index % PORTS === 0)) {
        await guest?.end();
        const booted = await bootBench(images.value);
        assert.ok(booted.ok, JSON.stringify(booted));
        guest = booted.value;
      }
      const running: Guest = guest;
      await t.test(one.type, async (each) => {
        const outcome = await runCase(running, images.value.kernel, transport, one, index);
        each.diagnostic(assertClean(outcome, one, images.value.kernel));
      });
    }
  });
}
