/**
 * Milliseconds from the first message of a device's authentication to the last: version, capabilities, algorithms, digests,
 * chain, challenge, all measurements signed; SPDM 1.3 over loopback TCP, P-384. Our requester beside DMTF's, each asking
 * the same responder in turn: DMTF's, then ours. A relay in between takes the time and counts the messages, of both alike,
 * so that the start of a program counts for nobody. DMTF's programs send each message in two pieces without TCP_NODELAY, so
 * that TCP waits for an acknowledgement in each: the second column is without the time within messages. DMTF's programs are in the folder that AIRLOCK_SPDM_EMU names.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ok, type Result } from '@airlock/core/result.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { ALL_PREFERENCES } from '@airlock/spdm/negotiate.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive } from '@airlock/spdm/requester/procedure.ts';
import { EMULATOR_COMMAND } from '@airlock/spdm/tcp/emulator-frame.ts';
import { createEmulatorFramer } from '@airlock/spdm/tcp/framer.ts';
import { openSocketLink } from '@airlock/spdm/tcp/node-link.ts';
import { splitBundle } from '../packages/spdm/test/support/identities.ts';
import type { Bench, Prepared, Side } from './side-by-side.ts';

const FORM = 'emulator-tcp';
const HOST = '127.0.0.1';
const FOLDER = process.env['AIRLOCK_SPDM_EMU'] ?? '';
const AGREED = ['--ver', '1.3', '--asym', 'ECDSA_P384', '--hash', 'SHA_384', '--meas_hash', 'SHA_384'];
const NO_PQC = ['--pqc_asym', 'NONE', '--req_pqc_asym', 'NONE', '--kem', 'NONE'];
const ALONE = ['--mut_auth', 'NO', '--basic_mut_auth', 'NO'];

/** One requester's connection, as the relay saw it. */
interface Seen {
  readonly milliseconds: number;
  /** Of them between the first and the last byte of a message: TCP that waits for an acknowledgement. */
  readonly stalled: number;
  readonly messages: number;
}

interface Relay {
  readonly port: number;
  /** The next connection, once it is over. */
  next(): Promise<Seen>;
  close(): void;
}

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

async function relayTo(port: number): Promise<Relay> {
  let seen: (one: Seen) => void = () => undefined;
  const server = createServer({ noDelay: true }, (client) => {
    const other = connect({ host: HOST, port, noDelay: true });
    let began = 0;
    let ended = 0;
    let stalled = 0;
    let messages = 0;
    watch(client, (first, last) => {
      messages++;
      began ||= first;
      stalled += last - first;
    });
    watch(other, (first, last) => {
      ended = last;
      stalled += last - first;
    });
    client.pipe(other).pipe(client);
    for (const socket of [client, other]) socket.on('error', () => socket.destroy());
    client.once('close', () => {
      other.destroy();
      seen({ milliseconds: ended - began, stalled, messages });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    next: () => new Promise((resolve) => (seen = resolve)),
    close: () => void server.close(),
  };
}

/** Calls back for each SPDM message, with the times of its first and its last byte. */
function watch(socket: Socket, message: (first: number, last: number) => void): void {
  const framer = createEmulatorFramer();
  let first = 0;
  socket.on('data', (piece: Buffer) => {
    first ||= performance.now();
    for (const frame of must(framer.push(piece))) {
      if (frame[3] === EMULATOR_COMMAND.message) message(first, performance.now());
      first = 0;
    }
  });
}

interface Served {
  readonly port: number;
  stop(): void;
}

/** Until it listens, by the kernel’s word: a connection that says nothing ends the emulator. */
async function listening(child: ChildProcess, port: number): Promise<void> {
  const entry = `:${port.toString(16).toUpperCase().padStart(4, '0')} 00000000:0000 0A`;
  for (let attempt = 0; attempt < 200 && child.exitCode === null; attempt++) {
    if (readFileSync('/proc/net/tcp', 'latin1').includes(entry)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('the responder does not listen');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function theirResponder(folder: string): Promise<Served> {
  const port = await freePort();
  const args = ['--trans', 'TCP', '--ip', HOST, '--port', String(port), ...AGREED, ...NO_PQC, ...ALONE];
  const child = spawn(join(FOLDER, 'spdm_responder_emu'), args, { cwd: folder, stdio: 'ignore' });
  await listening(child, port);
  return { port, stop: () => void child.kill('SIGKILL') };
}

/** With the keys that DMTF's requester knows the root of. */
async function ourResponder(folder: string): Promise<Served> {
  const chain = splitBundle(readFileSync(join(FOLDER, 'ecp384/bundle_responder.certchain.der')))
    .map((der) => `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE-----\n`)
    .join('');
  writeFileSync(join(folder, 'chain.pem'), chain);
  const key = join(FOLDER, 'ecp384/end_responder.key');
  writeFileSync(join(folder, 'profile.json'), JSON.stringify({ version: 1, spdm: ['1.3'], chain: 'chain.pem', key }));
  const options = ['--tcp', `${HOST}:0`, '--transport', FORM, '--profile', 'profile.json', '--json'];
  const airlock = join(import.meta.dirname, '../airlock');
  const child = spawn(airlock, ['spdm', 'respond', ...options], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const port = await new Promise<number>((resolve, reject) => {
    let said = '';
    child.stdout.on('data', (piece) => {
      said += String(piece);
      const found = /"at":"tcp:\/\/[^"]*:(\d+)"/.exec(said)?.[1];
      if (found !== undefined) resolve(Number(found));
    });
    child.once('exit', () => reject(new Error(`airlock spdm respond ended: ${said}`)));
  });
  return { port, stop: () => void child.kill('SIGTERM') };
}

async function askOurselves(relay: Relay): Promise<Seen> {
  const seen = relay.next();
  const link = must(await openSocketLink({ host: HOST, port: relay.port, form: FORM }));
  const preferences = { ...ALL_PREFERENCES, versions: ['1.3'] as const, hashes: ['sha384'] as const };
  const connection = new Connection({
    ...{ crypto: nodeSpdmCrypto(), binding: link.binding, trust: () => ok(null), preferences },
  });
  const evidence = must(await drive(gatherEvidence(connection, { device: 'bench' }), link));
  if (evidence.statements.length !== 2 || evidence.version !== '1.3' || evidence.hash !== 'sha384')
    throw new Error(
      `asked otherwise: SPDM ${evidence.version}, ${evidence.hash}, ${evidence.statements.length} signed`,
    );
  await link.close();
  return seen;
}

async function askWithTheirs(relay: Relay, folder: string): Promise<Seen> {
  const seen = relay.next();
  const steps = ['--exe_conn', 'DIGEST,CERT,CHAL,MEAS', '--exe_session', 'NO_END', '--meas_op', 'ALL'];
  const place = ['--trans', 'TCP', '--ip', HOST, '--port', String(relay.port), '--exe_mode', 'CONTINUE'];
  const args = [...place, ...steps, ...AGREED, ...NO_PQC, ...ALONE];
  const child = spawn(join(FOLDER, 'spdm_requester_emu'), args, { cwd: folder });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (piece) => {
      output = (output + String(piece)).slice(-2000);
    });
  }
  const code = await new Promise((resolve) => child.once('exit', resolve));
  if (code !== 0) throw new Error(`spdm_requester_emu ended with ${String(code)}: ${output}`);
  return seen;
}

function sideOf(name: string, ask: () => Promise<Seen>): Side {
  let last: Seen = { milliseconds: 0, stalled: 0, messages: 0 };
  return {
    name,
    async run(times) {
      let taken = 0;
      for (let i = 0; i < times; i++) {
        last = await ask();
        taken += last.milliseconds;
      }
      return taken;
    },
    more: () => ({ 'ms without TCP waits': last.milliseconds - last.stalled, messages: last.messages }),
  };
}

async function prepare(serve: (folder: string) => Promise<Served>): Promise<Prepared | string> {
  if (FOLDER === '' || !existsSync(join(FOLDER, 'spdm_requester_emu')))
    return 'AIRLOCK_SPDM_EMU names no folder with spdm_requester_emu';
  const folder = mkdtempSync(join(tmpdir(), 'airlock-spdm-'));
  // The emulator reads its keys, and writes, where it runs.
  for (const name of readdirSync(FOLDER)) symlinkSync(join(FOLDER, name), join(folder, name));
  const responder = await serve(folder);
  const relay = await relayTo(responder.port);
  const ours = sideOf('airlock', () => askOurselves(relay));
  const theirs = sideOf('spdm_requester_emu', () => askWithTheirs(relay, folder));
  // Warm, and sure that both get through.
  for (const side of [ours, theirs, ours]) await side.run(1);
  return {
    ours: [ours],
    peers: [theirs],
    operations: 1,
    async close() {
      relay.close();
      responder.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const common = { unit: 'exchanges', show: 'time', turns: 31, turnLength: 0 } as const;

export const benches: readonly Bench[] = [
  {
    ...common,
    name: 'spdm-their-responder',
    title: 'a device authenticated over loopback TCP, SPDM 1.3, P-384, spdm_responder_emu answers',
    prepare: () => prepare(theirResponder),
  },
  {
    ...common,
    name: 'spdm-our-responder',
    title: 'the same, airlock spdm respond answers',
    prepare: () => prepare(ourResponder),
  },
];
