/** Linux's own network stack at the other end of a TAP, talking to our user-mode network: two TCPs that share no code. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

const bridge = join(import.meta.dirname, 'support', 'tap-bridge.ts');
/** A network namespace of our own: nothing here touches an interface of this machine. */
const ways = [['-Urn'], ['-n']];
const way = ways.find(
  (flags) => spawnSync('unshare', [...flags, 'ip', 'tuntap', 'add', 'probe0', 'mode', 'tap']).status === 0,
);
const skip = way === undefined ? 'needs unshare(1), ip(8) and a network namespace with a TAP' : false;

function run(...args: readonly string[]) {
  const done = spawnSync('unshare', [...(way ?? []), process.execPath, bridge, ...args], { encoding: 'utf8' });
  const [client, wire] = done.stdout.trim().split('\n');
  assert.ok(client !== undefined && wire !== undefined, done.stderr);
  return { client: JSON.parse(client), wire: JSON.parse(wire) };
}

test('with offloads: joined frames and undone checksums both ways, every byte right', { skip }, () => {
  const { client, wire } = run('0', '5000000', 'offloads');
  assert.equal(client.udp, true);
  assert.equal(client.echo, true);
  assert.ok(client.discard >= 0);
  assert.equal(client.chargen.right, true);
  assert.equal(client.refused, 'ECONNREFUSED');
  assert.ok(wire.bridge.joinedIn > 10 && wire.bridge.joinedOut > 10);
  assert.deepEqual([wire.user.malformed, wire.tap.malformed, wire.tap.refused], [0, 0, 0]);
  assert.equal(wire.user.tcpRetransmitted, 0);
});

test('without offloads: complete frames whose checksums Linux checks', { skip }, () => {
  const { client, wire } = run('0', '1000000', 'plain');
  assert.deepEqual([client.udp, client.echo, client.chargen.right, client.refused], [true, true, true, 'ECONNREFUSED']);
  assert.deepEqual([wire.bridge.joinedIn, wire.bridge.joinedOut, wire.user.malformed], [0, 0, 0]);
});

test('over a wire that loses every seventeenth frame, everything still arrives', { skip }, () => {
  const { client, wire } = run('17', '150000', 'offloads');
  assert.deepEqual([client.udp, client.echo, client.chargen.right], [true, true, true]);
  assert.ok(wire.bridge.lost > 0);
});
