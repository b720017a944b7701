/** SR-IOV in an inventory: what both functions' links say is a fact, what only one of them says is a fault. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { fail } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { readInventory } from '../src/inventory.ts';
import { describeConfig } from '../src/pci-details.ts';
import { vectorFiles } from './vector-files.ts';

type Tree = Readonly<Record<string, FakeNode>>;

const PORT = '/sys/devices/pci0000:00/0000:00:01.0';
const PHYSICAL = '0000:01:00.0';

/** A function as the kernel shows it. */
function pci(address: string, more: Tree = {}): Tree {
  const at = `${PORT}/${address}`;
  return {
    [`/sys/bus/pci/devices/${address}`]: { link: `../../../devices/pci0000:00/0000:00:01.0/${address}` },
    [`${at}/modalias`]: 'pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00\n',
    [`${at}/revision`]: '0x01\n',
    ...Object.fromEntries(Object.entries(more).map(([name, node]) => [`${at}/${name}`, node])),
  };
}

const linkTo = (address: string): FakeNode => ({ link: `../${address}` });

/** Two virtual functions as Linux 7.2 shows them behind QEMU’s virtio-net-pci with `sriov-pf`. */
const TWO: Tree = {
  ...pci(PHYSICAL, {
    sriov_totalvfs: '2\n',
    sriov_numvfs: '2\n',
    sriov_drivers_autoprobe: '0\n',
    virtfn0: linkTo('0000:01:00.1'),
    virtfn1: linkTo('0000:01:00.2'),
  }),
  ...pci('0000:01:00.1', { physfn: linkTo(PHYSICAL) }),
  ...pci('0000:01:00.2', { physfn: linkTo(PHYSICAL) }),
};

async function devicesOf(tree: Tree, detail: 'full' | 'decision' = 'full'): Promise<ReadonlyMap<string, Device>> {
  const inventory = await readInventory(fakeFiles(tree), { detail });
  assert.ok(inventory.ok, JSON.stringify(inventory));
  return new Map(inventory.value.devices.map((device) => [device.location, device]));
}

const faultsOf = (devices: ReadonlyMap<string, Device>) =>
  [...devices.values()].flatMap(({ location, faults }) => faults.map(({ message }) => `${location} ${message}`));

for (const detail of ['full', 'decision'] as const) {
  test(`a physical function and its virtual ones, each an interface of its own (${detail})`, async () => {
    const devices = await devicesOf(TWO, detail);
    assert.deepEqual(faultsOf(devices), []);
    assert.deepEqual(
      [...devices.values()].map(({ id, sriov }) => [id, sriov]),
      [
        ['pci:0000:01:00.0', { role: 'physical', enabled: 2, total: 2, autoprobe: false }],
        ['pci:0000:01:00.1', { role: 'virtual', physical: 'pci:0000:01:00.0', index: 0 }],
        ['pci:0000:01:00.2', { role: 'virtual', physical: 'pci:0000:01:00.0', index: 1 }],
      ],
    );
  });
}

test('real kernels: no function of the recorded machines has a fault for its links', async () => {
  for (const series of ['6.1', '6.12', '7.2']) {
    const inventory = await readInventory(vectorFiles(`q35-${series}-bound`));
    assert.ok(inventory.ok);
    const functions = inventory.value.devices.filter(({ sriov }) => sriov);
    assert.deepEqual(
      functions.map(({ location, sriov, faults }) => [location, sriov?.index, faults.length]),
      [
        ['0000:02:00.0', undefined, 0],
        ['0000:02:10.0', 0, 0],
        ['0000:02:10.2', 1, 0],
      ],
      series,
    );
  }
});

/** A tree in which one virtual function’s claim does not hold: it stays a virtual function, and nobody’s. */
const NOBODYS: readonly (readonly [string, Tree, RegExp])[] = [
  ['whose physical function is gone', pci('0000:01:00.1', { physfn: linkTo(PHYSICAL) }), /01:00\.0, which is not here/],
  ['of itself', pci('0000:01:00.1', { physfn: linkTo('0000:01:00.1') }), /the function itself/],
  [
    'of one that has none',
    { ...pci(PHYSICAL), ...pci('0000:01:00.1', { physfn: linkTo(PHYSICAL) }) },
    /no physical function/,
  ],
  [
    'of one that does not count it',
    {
      ...pci(PHYSICAL, { sriov_totalvfs: '4\n', sriov_numvfs: '1\n', virtfn0: linkTo('0000:01:00.2') }),
      ...pci('0000:01:00.1', { physfn: linkTo(PHYSICAL) }),
      ...pci('0000:01:00.2', { physfn: linkTo(PHYSICAL) }),
    },
    /does not count it/,
  ],
  [
    'of one with none on',
    {
      ...pci(PHYSICAL, { sriov_totalvfs: '4\n', sriov_numvfs: '0\n' }),
      ...pci('0000:01:00.1', { physfn: linkTo(PHYSICAL) }),
    },
    /does not count it/,
  ],
  [
    'in a circle of virtual functions',
    {
      ...pci('0000:01:00.1', { physfn: linkTo('0000:01:00.2'), virtfn0: linkTo('0000:01:00.2') }),
      ...pci('0000:01:00.2', { physfn: linkTo('0000:01:00.1'), virtfn0: linkTo('0000:01:00.1') }),
    },
    /no physical function/,
  ],
];

for (const [what, tree, words] of NOBODYS) {
  test(`a virtual function ${what} is nobody’s, and says so`, async () => {
    const devices = await devicesOf(tree);
    const device = devices.get('0000:01:00.1');
    assert.deepEqual(device?.sriov, { role: 'virtual' });
    const fault = device?.faults.find(({ attribute }) => attribute === 'physfn');
    assert.equal(fault?.code, 'attribute-contradiction');
    assert.match(fault?.message ?? '', words);
  });
}

for (const numvfs of ['2\n', 'unreadable'] as const) {
  test(`one that is shown before the kernel has made its link is none that is known to be no virtual one (sriov_numvfs: ${numvfs.trim()})`, async () => {
    const files = fakeFiles(TWO);
    const late = '/0000:01:00.2/physfn';
    let look = () => {};
    const looked = new Promise<void>((resolve) => {
      look = resolve;
    });
    let made = false;
    const inventory = await readInventory({
      ...files,
      async link(path) {
        if (made || !path.endsWith(late)) return files.link(path);
        look();
        return fail('file-missing', `${path}: ENOENT`);
      },
      // The kernel holds this read until they are all there.
      async read(path, limit) {
        if (path.endsWith('/sriov_numvfs')) {
          await looked;
          made = true;
          if (numvfs === 'unreadable') return fail('file-io', `${path}: EIO`);
        }
        return files.read(path, limit);
      },
    });
    assert.ok(inventory.ok);
    const device = inventory.value.devices.find(({ location }) => location === '0000:01:00.2');
    assert.deepEqual(device?.sriov, { role: 'virtual', physical: 'pci:0000:01:00.0', index: 1 });
  });
}

test('a physical function that counts more than it shows, or than it can have, has a fault and keeps what it shows', async () => {
  const physical = (numbers: Tree): Tree => ({ ...TWO, ...pci(PHYSICAL, { sriov_totalvfs: '2\n', ...numbers }) });
  const links = { virtfn0: linkTo('0000:01:00.1'), virtfn1: linkTo('0000:01:00.2') };
  const more = await devicesOf(physical({ sriov_numvfs: '7\n', ...links }));
  assert.deepEqual(
    more.get(PHYSICAL)?.faults.map(({ attribute, message }) => `${attribute} ${message}`),
    ['sriov_numvfs 7 virtual functions on, of 2', 'sriov_numvfs 7 virtual functions on, and 2 links to them'],
  );
  assert.equal(more.get('0000:01:00.2')?.sriov?.index, 1);
  const twice = await devicesOf(
    physical({ sriov_numvfs: '2\n', virtfn0: linkTo('0000:01:00.1'), virtfn1: linkTo('0000:01:00.1') }),
  );
  assert.match(faultsOf(twice).join('\n'), /01:00\.0 links to 0000:01:00\.1, which cannot be/);
  assert.equal(twice.get('0000:01:00.1')?.sriov?.index, 0);
  assert.deepEqual(twice.get('0000:01:00.2')?.sriov, { role: 'virtual' });
  const strange = await devicesOf(
    physical({ sriov_numvfs: 'many\n', virtfn0: { link: '../../../etc/\x1b[2J' }, virtfn1: linkTo(PHYSICAL) }),
  );
  assert.deepEqual(strange.get(PHYSICAL)?.sriov, { role: 'physical', total: 2, autoprobe: false });
  assert.ok(faultsOf(strange).every((text) => /^[\x20-\x7e]*$/.test(text)));
  assert.deepEqual(strange.get('0000:01:00.1')?.sriov, { role: 'virtual' });
});

test('a physical function with far more links than any has is not followed to the end', async () => {
  const links = Object.fromEntries(Array.from({ length: 9000 }, (_, i) => [`virtfn${i}`, linkTo('0000:01:00.1')]));
  const files = fakeFiles({ ...TWO, ...pci(PHYSICAL, { sriov_totalvfs: '2\n', sriov_numvfs: '2\n', ...links }) });
  let asked = 0;
  const link = (path: string) => {
    if (path.includes('virtfn')) asked++;
    return files.link(path);
  };
  const inventory = await readInventory({ ...files, link });
  assert.ok(inventory.ok);
  assert.ok(asked <= 4096, `${asked}`);
  assert.ok((inventory.value.devices.find(({ location }) => location === PHYSICAL)?.faults.length ?? 0) <= 32);
});

test('whatever the links say: every function is listed once, and a number is one that the physical function gave', async () => {
  const addresses = ['0000:01:00.0', '0000:01:00.1', '0000:01:00.2', '0000:01:00.3'];
  const anyAddress = fc.constantFrom(...addresses, '0000:09:00.0', 'virtio0', '\x1b[2J');
  const anyFunction = fc.record({
    physfn: fc.option(anyAddress, { nil: undefined }),
    total: fc.option(fc.constantFrom('0', '2', '65535', 'x'), { nil: undefined }),
    enabled: fc.option(fc.constantFrom('0', '1', '2', '99999'), { nil: undefined }),
    links: fc.array(anyAddress, { maxLength: 4 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(anyFunction, { minLength: 4, maxLength: 4 }), async (functions) => {
      const tree: Record<string, FakeNode> = {};
      functions.forEach(({ physfn, total, enabled, links }, i) => {
        const more: Record<string, FakeNode> = {};
        if (physfn !== undefined) more['physfn'] = { link: `../${physfn}` };
        if (total !== undefined) more['sriov_totalvfs'] = `${total}\n`;
        if (enabled !== undefined) more['sriov_numvfs'] = `${enabled}\n`;
        links.forEach((to, n) => {
          more[`virtfn${n}`] = { link: `../${to}` };
        });
        Object.assign(tree, pci(addresses[i] ?? '', more));
      });
      const devices = await devicesOf(tree);
      assert.equal(devices.size, 4);
      for (const { id, sriov } of devices.values()) {
        if (sriov?.role !== 'virtual') continue;
        assert.equal(sriov.physical === undefined, sriov.index === undefined);
        if (sriov.physical === undefined) continue;
        const physical = functions[addresses.indexOf(sriov.physical.slice(4))];
        assert.equal(`pci:${physical?.links[sriov.index ?? -1]}`, id);
        assert.equal(devices.get(sriov.physical.slice(4))?.sriov?.role, 'physical');
      }
    }),
    { numRuns: 300 },
  );
});

test('what a virtual function’s configuration space says is read by the vendor that the kernel knows', async () => {
  const files = vectorFiles('q35-7.2-bound');
  const config = await files.read('/sys/bus/pci/devices/0000:00:03.0/config', 4096);
  assert.ok(config.ok);
  const own = config.value.slice();
  own.fill(0xff, 0, 4);
  assert.deepEqual(describeConfig(own).virtio, []);
  assert.equal(describeConfig(own, 0x1af4).virtio.length, 5);
  assert.deepEqual(describeConfig(own, 0x1af4).virtio, describeConfig(config.value).virtio);
});
