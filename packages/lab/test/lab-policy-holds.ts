/**
 * The rule that the three guest tests hold, each on its kernel: with policies/lab.yaml exactly the allowed devices are
 * bound, whatever the host plugs in and whatever root in the guest tries. What is asserted is what the guest's sysfs
 * says, read with busybox; what Airlock says is asserted against that. One boot serves all.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { isConnected } from '@airlock/core/level.ts';
import { agentIsUp, agentKnows } from '../src/agent-word.ts';
import { readEnforcement, readGate } from '../src/airlock-state.ts';
import { ATTEMPTS, makeAttempt } from '../src/attempts.ts';
import { CHECKOUT, type KernelSeries } from '../src/cache.ts';
import type { Guest } from '../src/guest.ts';
import { deniedFunctions, plugIn } from '../src/scenario.ts';
import { driverOf, type View } from '../src/view.ts';
import { bootFor, boundIn, gated, imagesOrSkip, shell, viewOf } from './guests.ts';

const ALLOWED = [
  '00:02.0 virtio_blk',
  '00:03.0 virtio_net',
  '00:04.0 virtio_console',
  '00:05.0 virtio_rng',
  '00:07.0 9pnet_virtio',
  '00:10.0 pcieport',
  '00:11.0 pcieport',
];
/** What is on no list of ours may have a driver only when it is a bridge that the policy allows. */
const MAY = new Set([...ALLOWED, '00:1f.0 lpc_ich']);
const HOTPLUGGED = ['pci:0000:01:00.0', 'pci:0000:02:00.0'];

/** VIRTIO_F_ACCESS_PLATFORM: the driver goes through the DMA API, so that swiotlb=force bounces it. */
const ACCESS_PLATFORM = 33;

export interface Expectation {
  /** Whether this kernel keeps hot-plugged PCI functions unbound by itself. */
  readonly holdsHotplug: boolean;
}

export function labPolicyHolds(series: KernelSeries, expected: Expectation): void {
  test(`Linux ${series}: with the lab policy exactly the allowed devices are bound`, {
    timeout: 600_000,
  }, async (t) => {
    const images = await imagesOrSkip(t, series);
    if (images === undefined) return;
    const guest = await bootFor(t, images, await gated(images, join(CHECKOUT, 'policies/lab.yaml')));

    await t.test('at boot', async () => exactlyAllowed(await viewOf(guest)));

    await t.test('allowed virtio devices negotiated ACCESS_PLATFORM, and the kernel bounces', async () => {
      const features = (await shell(guest, 'cat /sys/bus/virtio/devices/*/features')).trim().split('\n');
      assert.equal(features.length, ALLOWED.filter((line) => line.includes('virtio')).length);
      for (const bits of features) assert.equal(bits[ACCESS_PLATFORM], '1', bits);
      assert.match(await shell(guest, 'dmesg'), /software IO TLB/);
    });

    await t.test('the gate says what this kernel cannot hold', async () => {
      const gate = await readGate(guest);
      assert.ok(gate.ok, JSON.stringify(gate));
      assert.deepEqual(gate.value.problems, []);
      const hotplug = gate.value.machine.find(({ property }) => property.startsWith('hot-plugged PCI functions'));
      assert.equal(hotplug?.status, expected.holdsHotplug ? 'enforced' : 'not-enforceable', JSON.stringify(hotplug));
      if (!expected.holdsHotplug) assert.match(hotplug?.because ?? '', /\S/);
    });

    await t.test('the agent takes over and leaves it so', async () => {
      const fault = await agentIsUp(guest, 60);
      assert.ok(fault.ok && fault.value === null, JSON.stringify(fault));
      exactlyAllowed(await viewOf(guest));
      await saysWhatIs(guest);
    });

    await t.test('after the host plugged in a network card and an NVMe drive', async () => {
      const plugged = await plugIn(guest);
      assert.ok(plugged.ok, JSON.stringify(plugged));
      const known = await agentKnows(guest, HOTPLUGGED);
      assert.ok(known.ok && known.value, 'the agent has decided about both');
      await soon(guest, exactlyAllowed);
      const enforcement = await saysWhatIs(guest);
      for (const id of HOTPLUGGED) assert.equal(enforcement.get(id), 'disconnected', id);
    });

    for (const attempt of ATTEMPTS) {
      await t.test(`after root tried: ${attempt.title}`, async () => {
        const [view, enforcement] = [await viewOf(guest), await readEnforcement(guest)];
        assert.ok(enforcement.ok, JSON.stringify(enforcement));
        const denied = deniedFunctions(
          view,
          enforcement.value.map(({ decision }) => ({ id: decision.device, level: decision.level })),
        );
        // Balloon, graphics card, keyboard, NVMe, SATA, SMBus, and the two that were plugged in.
        assert.equal(denied.length, 8);
        const result = await makeAttempt(guest, attempt, denied);
        assert.ok(result.ok, JSON.stringify(result));
        assert.deepEqual(result.value.left, []);
        await soon(guest, exactlyAllowed);
      });
    }

    await t.test('an allowed device that root unbinds may be bound again', async () => {
      const driver = '/sys/bus/virtio/drivers/virtio_rng';
      const name = (await shell(guest, `cd ${driver}; ls -d virtio*`)).trim();
      assert.match(name, /^virtio\d+$/);
      await shell(guest, `echo ${name} >${driver}/unbind; sleep 1; echo ${name} >${driver}/bind 2>/dev/null`);
      await soon(guest, exactlyAllowed);
    });

    await t.test('in the end Airlock says what is', async () => void (await saysWhatIs(guest)));
  });
}

function exactlyAllowed(view: View): void {
  const bound = boundIn(view);
  assert.deepEqual(
    bound.filter((line) => !MAY.has(line)),
    [],
    'something is bound that must not be',
  );
  assert.deepEqual(
    ALLOWED.filter((line) => !bound.includes(line)),
    [],
    'something that is allowed is not bound',
  );
}

/** What is there now, or within some seconds: the agent reacts to what it hears. */
async function soon(guest: Guest, holds: (view: View) => void): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return holds(await viewOf(guest));
    } catch (error) {
      if (tries >= 20) throw error;
      await shell(guest, 'sleep 0.3');
    }
  }
}

/** Levels by device, after each was held against sysfs. Waits until the agent has caught up. */
async function saysWhatIs(guest: Guest): Promise<Map<string, string>> {
  for (let tries = 0; ; tries++) {
    const enforcement = await readEnforcement(guest);
    assert.ok(enforcement.ok, JSON.stringify(enforcement));
    const view = await viewOf(guest);
    try {
      for (const { decision, status } of enforcement.value) {
        assert.notEqual(status, 'failed', JSON.stringify(decision));
        const driver = driverOf(view, decision.device);
        assert.notEqual(driver, undefined, `${decision.device} is decided and not there`);
        if (!isConnected(decision.level) && status === 'enforced') assert.equal(driver, null, decision.device);
      }
      const decided = new Set(enforcement.value.map(({ decision }) => decision.device));
      for (const { id } of view.pci) assert.ok(decided.has(id), `nothing was decided about ${id}`);
      return new Map(enforcement.value.map(({ decision }) => [decision.device, decision.level]));
    } catch (error) {
      if (tries >= 10) throw error;
      await shell(guest, 'sleep 0.5');
    }
  }
}
