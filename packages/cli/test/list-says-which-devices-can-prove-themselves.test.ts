import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Planted, plant } from '../../linux/test/plant.ts';
import { vectorFiles } from '../../linux/test/vector-files.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const FUNCTION = '/sys/devices/pci0000:00/0000:00:03.0';

async function airlock(tree: Planted, ...args: readonly string[]) {
  const context = fakeContext();
  const code = await run(context, [...args, '--root', tree.root]);
  return { code, out: context.out(), err: context.err() };
}

function planted(more: Readonly<Record<string, string>>): Planted {
  const files = vectorFiles('q35-7.2-bound');
  for (const [path, text] of Object.entries(more)) files.tree.set(path, text);
  return plant(files);
}

test('a function with a mailbox for SPDM is shown as one that can be asked', async () => {
  const tree = planted({ [`${FUNCTION}/doe_features/0001:01`]: '' });
  try {
    const { out } = await airlock(tree, 'list');
    assert.match(out, /PROVES ITSELF/);
    assert.match(out, /^pci:0000:00:03\.0 .* SPDM$/m);
    assert.match(
      (await airlock(tree, 'info', '0000:00:03.0')).out,
      /identity +can be asked over SPDM: airlock device attest/,
    );
    const other = await airlock(tree, 'info', '0000:01:00.0');
    assert.match(other.out, /identity +cannot be asked|identity +only root sees/);
    assert.match(other.out, /tsm +this kernel has none/);
  } finally {
    tree.remove();
  }
});

test('what the kernel’s TSM says of each function is shown, and that others have no part in it', async () => {
  const tree = planted({
    '/sys/class/tsm/tsm0/pci_mode': 'devsec\n',
    [`${FUNCTION}/tsm/lock`]: 'tsm0\n',
    [`${FUNCTION}/tsm/accept`]: '1\n',
  });
  try {
    const { out } = await airlock(tree, 'list');
    assert.match(out, /^pci:0000:00:03\.0 .* tsm0: locked, accepted$/m);
    assert.match(out, /TSM tsm0 \(locks devices for this VM\)/);
    assert.match((await airlock(tree, 'info', '0000:00:03.0')).out, /tsm +tsm0: locked, accepted\n +here: tsm0/);
    assert.match((await airlock(tree, 'info', '0000:01:00.0')).out, /tsm +has no part in it/);
    const json = JSON.parse((await airlock(tree, 'list', '--json')).out) as { readonly tsms: unknown };
    assert.deepEqual(json.tsms, [{ name: 'tsm0', mode: 'devsec' }]);
  } finally {
    tree.remove();
  }
});

test('a state that cannot be is a fault of the device, on the line below it', async () => {
  const tree = planted({
    '/sys/class/tsm/tsm0/uevent': '',
    [`${FUNCTION}/tsm/lock`]: '\n',
    [`${FUNCTION}/tsm/accept`]: '1\n',
  });
  try {
    const { out } = await airlock(tree, 'list');
    assert.match(out, /! accepted, and locked by no TSM \[attribute-contradiction\]/);
  } finally {
    tree.remove();
  }
});

test('a function without a mailbox is said not to be askable, plainly', async () => {
  const tree = planted({});
  try {
    const { code, err } = await airlock(tree, 'device', 'attest', '0000:00:03.0');
    assert.equal(code, 3);
    assert.match(err, /no DOE mailbox, so it cannot be asked who it is|run it as root|config/);
  } finally {
    tree.remove();
  }
});
