/**
 * DMTF's emulator as the other end: `spdm_responder_emu` over a socket of this machine. The programs are looked for in
 * the folder that AIRLOCK_SPDM_EMU names; nothing of them is kept here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { doeBinding } from '../../src/doe/binding.ts';
import { mctpBinding } from '../../src/mctp/binding.ts';
import type { Link } from '../../src/requester/procedure.ts';
import type { Binding } from '../../src/secured/binding.ts';
import { tcpBinding } from '../../src/tcp/binding.ts';
import {
  decodeEmulatorFrame,
  EMULATOR_COMMAND,
  EMULATOR_TRANSPORT,
  encodeEmulatorFrame,
} from '../../src/tcp/emulator-frame.ts';
import { createEmulatorFramer } from '../../src/tcp/framer.ts';

export const EMULATOR = process.env['AIRLOCK_SPDM_EMU'] ?? '';

/** The reason to skip, or false. */
export const withoutEmulator: string | false =
  EMULATOR !== '' && existsSync(join(EMULATOR, 'spdm_responder_emu'))
    ? false
    : 'AIRLOCK_SPDM_EMU names no folder with spdm_responder_emu';

export type EmulatorTransport = 'MCTP' | 'PCI_DOE' | 'TCP';
const BINDINGS: Readonly<Record<EmulatorTransport, Binding>> = {
  MCTP: mctpBinding,
  PCI_DOE: doeBinding,
  TCP: tcpBinding,
};

export interface Emulator {
  readonly link: Link;
  readonly binding: Binding;
  /** What the program printed. */
  output(): string;
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** A folder of its own with the emulator's sample keys, because it writes files where it runs. */
function workFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-spdm-'));
  for (const name of readdirSync(EMULATOR)) symlinkSync(join(EMULATOR, name), join(folder, name));
  return folder;
}

export async function startResponder(transport: EmulatorTransport, options: readonly string[]): Promise<Emulator> {
  const port = await freePort();
  const args = ['--trans', transport, '--ip', '127.0.0.1', '--port', String(port), ...options];
  const folder = workFolder();
  const child = spawn(join(EMULATOR, 'spdm_responder_emu'), args, { cwd: folder });
  let output = '';
  child.stdout.on('data', (piece) => {
    output += String(piece);
  });
  child.stderr.on('data', (piece) => {
    output += String(piece);
  });
  const socket = await connected(port, child, () => output);
  const frames = createFrames(socket);
  const code = EMULATOR_TRANSPORT[transport === 'MCTP' ? 'mctp' : transport === 'TCP' ? 'tcp' : 'doe'];
  return {
    binding: BINDINGS[transport],
    output: () => output,
    link: {
      async exchange(bytes) {
        const answer = await frames.exchange(EMULATOR_COMMAND.message, code, bytes);
        return answer.ok && answer.value.command !== EMULATOR_COMMAND.message
          ? fail('emulator-frame-invalid', `command 0x${answer.value.command.toString(16)}`)
          : answer.ok
            ? ok(answer.value.payload)
            : answer;
      },
      wait: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    },
    async stop() {
      if (child.exitCode !== null) return;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      await frames.exchange(EMULATOR_COMMAND.shutdown, code, new Uint8Array());
      socket.destroy();
      const timer = setTimeout(() => child.kill('SIGKILL'), 2000);
      await ended;
      clearTimeout(timer);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function connected(port: number, child: ChildProcess, output: () => string): Promise<Socket> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const socket = connectTcp({ port, host: '127.0.0.1', noDelay: true });
    const good = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (good) return socket;
    if (child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`spdm_responder_emu does not listen: ${output()}`);
}

function createFrames(socket: Socket) {
  const framer = createEmulatorFramer();
  type Frame = { command: number; transport: number; payload: Uint8Array };
  let waiting: ((frame: Result<Frame>) => void) | null = null;
  const settle = (frame: Result<Frame>) => {
    const resolve = waiting;
    waiting = null;
    resolve?.(frame);
  };
  socket.on('data', (piece) => {
    const whole = framer.push(piece);
    if (!whole.ok) return settle(whole);
    for (const bytes of whole.value) settle(decodeEmulatorFrame(bytes));
  });
  socket.on('error', () => settle(fail('emulator-frame-invalid', 'the connection broke')));
  socket.on('close', () => settle(fail('emulator-frame-invalid', 'the connection closed')));
  return {
    exchange(command: number, transport: number, payload: Uint8Array): Promise<Result<Frame>> {
      const frame = encodeEmulatorFrame({ command, transport, payload });
      if (!frame.ok) return Promise.resolve(frame);
      return new Promise((resolve) => {
        waiting = resolve;
        socket.write(frame.value);
      });
    },
  };
}
