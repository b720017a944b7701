import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const POLICY = `version: 1
mode: enforce
default: disconnected
rules:
  - id: nic
    match: { bus: pci, class: network }
    level: limited
  - id: disk
    match: { bus: pci, class: nvme }
    level: disconnected
    grant: limited
`;

/** A machine with a network card and an NVMe drive as files: nothing in it answers back, writes only stay. */
function machine(t: TestContext): string {
  const root = mkdtempSync(join(tmpdir(), 'airlock-cli-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  write('proc/uptime', '100.00 1.00\n');
  write('proc/sys/kernel/random/boot_id', '11111111-2222-3333-4444-555555555555\n');
  write('proc/sys/kernel/osrelease', '7.2.0\n');
  write('proc/sys/kernel/modules_disabled', '0\n');
  write('proc/cmdline', '\n');
  write('sys/bus/pci/drivers_autoprobe', '0\n');
  mkdirSync(join(root, 'sys/bus/pci/devices'), { recursive: true });
  mkdirSync(join(root, 'sys/bus/pci/drivers/e1000e'), { recursive: true });
  for (const [slot, id, code] of [
    ['0000:00:03.0', '0x10d3', '0x020000'],
    ['0000:00:04.0', '0x0010', '0x010802'],
  ] as const) {
    const path = `sys/devices/pci0000:00/${slot}`;
    write(`${path}/vendor`, '0x8086\n');
    write(`${path}/device`, `${id}\n`);
    write(`${path}/class`, `${code}\n`);
    write(`${path}/revision`, '0x01\n');
    write(`${path}/subsystem_vendor`, '0x8086\n');
    write(`${path}/subsystem_device`, '0x0001\n');
    write(`${path}/driver_override`, 'none');
    symlinkSync(`../../../devices/pci0000:00/${slot}`, join(root, 'sys/bus/pci/devices', slot));
  }
  write('sys/devices/pci0000:00/0000:00:03.0/driver_override', '(null)\n');
  symlinkSync('../../../bus/pci/drivers/e1000e', join(root, 'sys/devices/pci0000:00/0000:00:03.0/driver'));
  write('policy.yaml', POLICY);
  return root;
}

async function airlock(...args: string[]) {
  const context = fakeContext();
  const code = await run(context, args);
  return { code, out: context.out(), err: context.err() };
}

/** An agent that runs until the test ends it. */
async function agent(root: string, ...more: string[]) {
  const stop = new AbortController();
  const context = fakeContext({ signal: stop.signal });
  const ended = run(context, ['agent', 'run', '--root', root, '--policy', join(root, 'policy.yaml'), ...more]);
  for (let i = 0; i < 500; i++) {
    const { code } = await airlock('allow', 'nothing', '--root', root);
    if (code !== 3) break;
    await sleep(10);
  }
  return {
    context,
    async end() {
      stop.abort('SIGTERM');
      return ended;
    },
  };
}

test('without an agent each verb says so, with exit code 3', async (t) => {
  const root = machine(t);
  for (const args of [['allow', 'x'], ['block', 'x'], ['reject', 'x'], ['watch'], ['allow', 'x', '--revoke']]) {
    const { code, err } = await airlock(...args, '--root', root);
    assert.equal(code, 3, args.join(' '));
    assert.match(err, /no agent runs/);
  }
});

test('status without gate and agent: nothing is enforced', async (t) => {
  const { code, out } = await airlock('status', '--root', machine(t));
  assert.equal(code, 1);
  assert.match(out, /^Nothing is enforced: no gate ran and no agent runs/);
});

test('agent run without any policy does not start', async (t) => {
  const { code, err } = await airlock('agent', 'run', '--once', '--root', machine(t));
  assert.equal(code, 3);
  assert.match(err, /no policy.*--policy FILE/);
});

test('a policy with errors does not start the agent, and every error is shown', async (t) => {
  const root = machine(t);
  writeFileSync(join(root, 'policy.yaml'), `${POLICY}    levle: tcb\nmood: enforce\n`);
  const { code, err } = await airlock(
    'agent',
    'run',
    '--enforce',
    '--root',
    root,
    '--policy',
    join(root, 'policy.yaml'),
  );
  assert.equal(code, 2);
  assert.match(err, /levle/);
  assert.match(err, /mood/);
  assert.match(err, /nothing was started/);
});

test('--once looks once, without --enforce changes nothing, and says what does not hold', async (t) => {
  const root = machine(t);
  const override = join(root, 'sys/devices/pci0000:00/0000:00:04.0/driver_override');
  writeFileSync(override, '');
  const policy = join(root, 'policy.yaml');
  const watched = await airlock('agent', 'run', '--once', '--root', root, '--policy', policy);
  assert.equal(watched.code, 1);
  assert.match(watched.out, /Only watching/);
  assert.match(watched.out, /pci:0000:00:04\.0.*NOT ENFORCED/);
  assert.match(watched.err, /without --enforce: it only watches/);
  assert.equal(readFileSync(override, 'utf8'), '');
  const enforced = await airlock('agent', 'run', '--once', '--enforce', '--json', '--root', root, '--policy', policy);
  assert.equal(readFileSync(override, 'utf8'), 'none');
  const status = JSON.parse(enforced.out);
  assert.equal(status.enforcing, true);
  assert.equal(status.devices.find((one: { device: string }) => one.device === 'pci:0000:00:04.0').status, 'enforced');
});

test('--enforce with a policy that is not in enforce mode only watches', async (t) => {
  const root = machine(t);
  writeFileSync(join(root, 'policy.yaml'), POLICY.replace('mode: enforce', 'mode: audit'));
  writeFileSync(join(root, 'sys/devices/pci0000:00/0000:00:04.0/driver_override'), '(null)\n');
  const { err } = await airlock(
    'agent',
    'run',
    '--once',
    '--enforce',
    '--root',
    root,
    '--policy',
    join(root, 'policy.yaml'),
  );
  assert.match(err, /mode is audit: the agent only watches/);
  assert.equal(readFileSync(join(root, 'sys/devices/pci0000:00/0000:00:04.0/driver_override'), 'utf8'), '(null)\n');
});

test('a running agent answers, refuses what the policy does not grant, and ends cleanly', async (t) => {
  const root = machine(t);
  const running = await agent(root, '--enforce');
  t.after(() => running.end());

  const stop = new AbortController();
  const watch = fakeContext({ signal: stop.signal });
  const watching = run(watch, ['watch', '--recent', '--json', '--root', root]);

  const status = await airlock('status', '--root', root);
  assert.match(status.out, /^Enforcing: policy .*policy\.yaml, kernel 7\.2\.0/);
  assert.match(status.out, /pci:0000:00:03\.0 .*limited +nic/);

  const refused = await airlock('allow', '00:03.0', '--root', root);
  assert.equal(refused.code, 0);
  assert.match(refused.out, /allowed by the policy itself[\s\S]*allowed by rule nic/);

  const unknown = await airlock('allow', '00:33.0', '--root', root);
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /did you mean 00:03\.0\?/);

  // Nothing in this machine binds: a grant is made, and that it does not hold is said.
  const granted = await airlock('allow', '00:04.0', '--for', '10m', '--root', root);
  assert.equal(granted.code, 1);
  assert.match(granted.out, /^does not hold: pci:0000:00:04\.0/);
  assert.match((await airlock('status', '--root', root)).out, /granted limited, 10m left/);
  const revoked = await airlock('allow', '00:04.0', '--revoke', '--json', '--root', root);
  assert.equal(JSON.parse(revoked.out).result, 'revoked');

  const second = await airlock('agent', 'run', '--root', root, '--policy', join(root, 'policy.yaml'));
  assert.equal(second.code, 3);
  assert.match(second.err, /another agent/);

  stop.abort();
  assert.equal(await watching, 0);
  const events = watch
    .out()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(events[0].kind, 'agent-started');
  assert.ok(events.some(({ kind, verb }) => kind === 'operator' && verb === 'allow'));
  assert.ok(events.every((event, i) => i === 0 || event.sequence > events[i - 1].sequence));

  assert.equal(await running.end(), 0);
  assert.match(running.context.out(), /agent +ended: SIGTERM\n$/);
  const log = readFileSync(join(root, 'run/airlock/events.ndjson'), 'utf8').trim().split('\n');
  assert.equal(JSON.parse(log.at(-1) ?? '').kind, 'agent-stopped');

  const left = await airlock('status', '--root', root);
  assert.equal(left.code, 1);
  assert.match(left.out, /^No agent runs: nobody watches/);
  assert.match(left.out, /pci:0000:00:03\.0 .*limited/);
});

const misuse: [string[], RegExp][] = [
  [['allow'], /which device/],
  [['allow', 'a', 'b'], /one device at a time/],
  [['allow', 'a b'], /no device has such a name/],
  [['allow', 'x', '--for', '10'], /10 has no unit/],
  [['allow', 'x', '--for', '1h', '--once'], /--once and --for exclude each other/],
  [['allow', 'x', '--four', '1h'], /did you mean --for\?/],
  [['block'], /which device/],
  [['reject', 'x', '--permanent'], /unknown option --permanent/],
  [['status', 'x'], /no argument expected/],
  [['watch', '--since', 'now'], /--since/],
  [['agent', 'run', 'x'], /no argument expected/],
];
for (const [args, message] of misuse) {
  test(`airlock ${args.join(' ')}: usage, exit 2`, async () => {
    const { code, err, out } = await airlock(...args);
    assert.equal(code, 2);
    assert.match(err, message);
    assert.equal(out, '');
  });
}
