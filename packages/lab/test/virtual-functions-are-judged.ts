/**
 * The rule that three guest tests hold, each on its kernel: where the platform has SR-IOV (QEMU’s virtio-net-pci behind
 * a root port), the virtual functions that root makes with `sriov_numvfs` are interfaces of their own. The policy lets one
 * in and not the other, and neither had a driver before that was decided.
 */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { agentIsUp, agentKnows } from '../src/agent-word.ts';
import type { KernelSeries } from '../src/cache.ts';
import type { Part } from '../src/qemu.ts';
import { bootFor, gated, imagesOrSkip, shell } from './guests.ts';

/** The third port of the lab’s machine, so the third bus. */
const PHYSICAL = '0000:03:00.0';
const FIRST = '0000:03:00.1';
const SECOND = '0000:03:00.2';

const POLICY = `version: 1
mode: enforce
default: disconnected
boot-critical: [disk]
rules:
  - { id: disk, match: { bus: virtio, type: block }, level: limited }
  - { id: bridges, match: { bus: pci, class: bridge }, level: limited }
  - { id: serial, match: { bus: platform, type: serial }, level: limited }
  - { id: card, match: { bus: virtio, type: net, function: physical }, level: limited }
  - id: first-part
    match: { bus: virtio, type: net, physical-function: "${PHYSICAL}", location: "${FIRST}" }
    level: limited
`;

/** A card of QEMU’s with two virtual functions. They are declared before the physical one that makes them such. */
function card(): Part[] {
  const part = (id: string, addr: string, more: Readonly<Record<string, string>>): Part => ({
    backend: ['-netdev', `user,id=${id},restrict=on`],
    device: {
      ...{ driver: 'virtio-net-pci', bus: 'virtual', addr, netdev: id, romfile: '', iommu_platform: 'on' },
      ...more,
    },
  });
  return [
    { device: { driver: 'pcie-root-port', addr: '18.0', id: 'virtual', chassis: '24', slot: '24' } },
    part('vf0', '0.1', { 'sriov-pf': 'pf' }),
    part('vf1', '0.2', { 'sriov-pf': 'pf' }),
    part('pf0', '0.0', { id: 'pf', multifunction: 'on' }),
  ];
}

export function virtualFunctionsAreJudged(series: KernelSeries): void {
  test(`Linux ${series}: of two virtual functions one is let in, and neither had a driver before it was decided`, {
    timeout: 400_000,
  }, async (t) => {
    const images = await imagesOrSkip(t, series);
    if (images === undefined) return;
    const policy = join(tmpdir(), `airlock-virtual-${process.pid}.yaml`);
    writeFileSync(policy, POLICY);
    t.after(() => rmSync(policy, { force: true }));
    const guest = await bootFor(t, images, await gated(images, policy), { parts: card() });
    assert.deepEqual(await agentIsUp(guest, 120), { ok: true, value: null });
    const at = (address: string) => `/sys/bus/pci/devices/${address}`;

    const before = await shell(guest, `cd ${at(PHYSICAL)} && cat sriov_totalvfs sriov_numvfs sriov_drivers_autoprobe`);
    assert.deepEqual(before.trim().split('\n'), ['2', '0', '0'], 'the gate turned autoprobe of virtual functions off');

    await shell(guest, `echo 2 > ${at(PHYSICAL)}/sriov_numvfs`, 60);
    const known = await agentKnows(guest, [`pci:${FIRST}`, `pci:${SECOND}`], 60);
    assert.deepEqual(known, { ok: true, value: true });
    await shell(guest, bound(FIRST), 90);
    const driver = async (address: string) =>
      (await shell(guest, `basename "$(readlink ${at(address)}/driver)"; cat ${at(address)}/driver_override`))
        .trim()
        .split('\n')
        .join(' ');
    assert.equal(await driver(FIRST), 'virtio-pci virtio-pci');
    assert.equal(await driver(SECOND), 'none');
    assert.match(await shell(guest, `ls ${at(FIRST)}/virtio*/net`), /eth/, 'it is a network interface');

    // What happened to them, in the agent’s own words: none was taken off a driver, none was a violation.
    const told = await shell(guest, `grep -E '03:00[.][12]' /run/airlock/events.ndjson`);
    assert.match(told, /"kind":"decided".*"device":"pci:0000:03:00\.1","level":"limited".*"id":"first-part"/);
    assert.match(told, /"kind":"decided".*"device":"pci:0000:03:00\.2","level":"disconnected"/);
    assert.doesNotMatch(told, /"kind":"unbind"|"kind":"violation"/);

    const tree = await shell(guest, 'airlock list --tree', 60);
    t.diagnostic(tree);
    assert.match(tree, /0000:03:00\.0 +virtio net, PF with 2 of 2 VFs +virtio_net .*limited +card/);
    // The channel escapes what is not ASCII, so the branches of the tree.
    assert.match(
      tree,
      /\n {3}\S+ pci:0000:03:00\.1 +virtio net, VF 0 +virtio_net +eth\d .*hot-plugged +limited +first-part/,
    );
    assert.match(tree, /\n {3}\S+ pci:0000:03:00\.2 +virtio net, VF 1 +- .*hot-plugged +disconnected/);
    const status = await shell(guest, 'airlock status --json', 60);
    assert.match(
      status,
      /"property": ?"nothing binds by itself to virtual functions of 0000:03:00\.0",\s*"status": ?"enforced"/,
    );

    // They go and come again as others: nothing of the earlier ones is left.
    await shell(guest, `echo 0 > ${at(PHYSICAL)}/sriov_numvfs; sleep 1`, 60);
    assert.equal((await shell(guest, `ls -d ${at(FIRST)} ${at(SECOND)} 2>/dev/null; true`)).trim(), '');
    await shell(guest, `echo 1 > ${at(PHYSICAL)}/sriov_numvfs`, 60);
    await shell(guest, bound(FIRST), 90);
    assert.equal(await driver(FIRST), 'virtio-pci virtio-pci');

    // A physical function that loses its driver takes its virtual ones along.
    const denied = await shell(guest, `airlock block 03:00.0; ls -d ${at(FIRST)} 2>/dev/null; true`, 60);
    t.diagnostic(denied);
    assert.doesNotMatch(denied, /03:00\.1$/m);
    assert.doesNotMatch(guest.console(), /BUG:|WARNING:|Oops/);
  });
}

/** Waits until a function has a driver. */
function bound(address: string): string {
  return `tries=0
until [ -e /sys/bus/pci/devices/${address}/driver ]; do tries=$((tries + 1)); [ $tries -lt 60 ] || break; sleep 1; done`;
}
