import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

test('a kernel that is none of the three, an argument, a policy that is not there: usage', async () => {
  for (const [args, words] of [
    [['--kernel', '5.10'], /6\.1, 6\.12, 7\.2/],
    [['7.2'], /no argument/],
    [['--policy', '/nowhere/p.yaml'], /no such policy/],
    [['--interactive', '--json'], /do not go together/],
    [['--compere'], /did you mean --compare/],
  ] as const) {
    const context = fakeContext();
    assert.equal(await run(context, ['lab', 'up', ...args]), 2, args.join(' '));
    assert.match(context.err(), words);
    assert.equal(context.out(), '');
  }
});

const TYPES = /one of block, net, entropy/;

test('what is brought to the lab is read before anything boots: wrong words are named, with the nearest and the list', async () => {
  for (const [args, words] of [
    [['--device', 'bloc'], /--device bloc is no type, did you mean block\? one of block, net/],
    [['--device', ''], TYPES],
    [['--device', 'constructor'], TYPES],
    [
      ['--device', 'block,trasport=x'],
      /block: trasport is no option, did you mean transport\? one of transport, plain, file/,
    ],
    [['--device', 'entropy,toString'], /entropy: toString is no option/],
    [['--device', 'block,transport=vhostuser'], /did you mean vhost-user\?/],
    [['--device', 'block,transport='], /transport= needs a value/],
    [['--device', 'block,serial'], /serial= needs a value/],
    [['--device', 'block,read-only=1'], /read-only takes no value/],
    [['--device', 'block,serial=a,serial=b'], /serial stands twice/],
    [['--device', 'block,queues=65'], /block: queues=65: a whole number from 1 to 64/],
    [['--device', 'console,port=nam=x,,socket=y'], /console: port=nam=x,socket=y: nam=x means nothing here/],
    [['--device', 'net,plain,transport=vhost-user'], /plain means nothing to vhost-user/],
    [['--device', 'gpu,transport=vhost-user'], /gpu over vhost-user: .*transport=vfio-user takes it/],
    [['--device', 'rtc,transport=vduse'], /only block and net over VDUSE/],
    [['--kernel', '6.1', '--device', 'block,transport=vduse'], /6\.1 has no VDUSE/],
    [Array.from({ length: 9 }, () => ['--device', 'entropy']).flat(), /8 free slots, and 9 are wanted/],
    [['--allow'], /--allow is for what --device plugs in/],
    [['--nvme', 'honst'], /did you mean honest\? one of tour, honest, wrong-root/],
    [['--nvme', 'tour,revokd'], /--nvme revokd: did you mean revoked\?/],
    [['--nvme', 'mute'], /QEMU waits for its answer/],
    [['--compare', '--tpm'], /--compare is of the machine as it is/],
    [['--compare', '--nvme', 'tour'], /--compare is of the machine as it is/],
  ] as const) {
    const context = fakeContext();
    assert.equal(await run(context, ['lab', 'up', ...args]), 2, args.join(' '));
    assert.match(context.err(), words);
    assert.equal(context.out(), '');
  }
});

test('a policy with errors starts no guest and shows each error', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-lab-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const policy = join(folder, 'p.yaml');
  writeFileSync(policy, 'version: 1\nmode: enforce\nrules:\n  - id: a\n    mach: { bus: virtio }\n    level: limitd\n');
  const context = fakeContext();
  assert.equal(await run(context, ['lab', 'up', '--policy', policy]), 1);
  assert.match(context.err(), /p\.yaml:5:\d+: .*mach/);
  assert.match(context.err(), /p\.yaml:6:\d+: .*limited/);
  assert.match(context.err(), /no guest was started/);
  const json = fakeContext();
  assert.equal(await run(json, ['lab', 'up', '--json', '--policy', policy]), 1);
  assert.equal(JSON.parse(json.out()).kind, 'policy');
});
