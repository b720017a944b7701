/** Our responder behind the socket protocol of DMTF's emulator, for `spdm_requester_emu` and its like. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeDiscoveryRequest, encodeDiscoveryResponse } from '../../src/doe/discovery.ts';
import { DOE_TYPE, decodeDoeObject, encodeDoeObject, PCI_SIG } from '../../src/doe/object.ts';
import type { Responder } from '../../src/responder/responder.ts';
import { decodeEmulatorFrame, EMULATOR_COMMAND, encodeEmulatorFrame } from '../../src/tcp/emulator-frame.ts';
import { createEmulatorFramer } from '../../src/tcp/framer.ts';
import { EMULATOR } from './emulator.ts';

/** What `spdm_requester_emu` and others print at their end, and what they end with. */
export interface Outcome {
  readonly code: number | null;
  readonly output: string;
  /** Messages that were answered, by request code. */
  readonly requests: readonly number[];
}

const TYPES = [DOE_TYPE.discovery, DOE_TYPE.spdm, DOE_TYPE.securedSpdm];

function answerDiscovery(payload: Uint8Array): Uint8Array | undefined {
  const object = decodeDoeObject(payload);
  if (!object.ok || object.value.vendor !== PCI_SIG || object.value.type !== DOE_TYPE.discovery) return undefined;
  const request = decodeDiscoveryRequest(object.value.payload);
  const index = request.ok ? request.value.index : 0;
  const next = index + 1 < TYPES.length ? index + 1 : 0;
  const response = encodeDiscoveryResponse({ vendor: PCI_SIG, type: TYPES[index] ?? 0xff, next });
  const encoded = encodeDoeObject(PCI_SIG, DOE_TYPE.discovery, response);
  return encoded.ok ? encoded.value : undefined;
}

/** Serves one client after the other until the program ends; `inspect` sees the folder that it ran in. */
export async function runAgainst(
  responder: Responder,
  program: string,
  options: readonly string[],
  inspect: (folder: string) => void = () => {},
): Promise<Outcome> {
  const requests: number[] = [];
  const server = createServer({ noDelay: true }, (socket) => {
    const framer = createEmulatorFramer();
    const send = (command: number, transport: number, payload: Uint8Array) => {
      const frame = encodeEmulatorFrame({ command, transport, payload });
      if (frame.ok) socket.write(frame.value);
    };
    socket.on('error', () => socket.destroy());
    socket.on('data', (piece) => {
      const frames = framer.push(piece);
      if (!frames.ok) {
        socket.destroy();
        return;
      }
      for (const bytes of frames.value) {
        const frame = decodeEmulatorFrame(bytes);
        if (!frame.ok) {
          socket.destroy();
          return;
        }
        const { command, transport, payload } = frame.value;
        if (command === EMULATOR_COMMAND.hello) send(command, transport, Buffer.from('Server Hello!\0'));
        else if (command !== EMULATOR_COMMAND.message) send(command, transport, new Uint8Array());
        else {
          const discovery = answerDiscovery(payload);
          const answer = discovery === undefined ? responder.answer(payload) : { ok: true as const, value: discovery };
          requests.push(payload[transport === 2 ? 9 : 2] ?? 0);
          send(command, transport, answer.ok ? answer.value : new Uint8Array());
        }
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const folder = mkdtempSync(join(tmpdir(), 'airlock-spdm-'));
  for (const name of readdirSync(EMULATOR)) symlinkSync(join(EMULATOR, name), join(folder, name));
  const child = spawn(join(EMULATOR, program), ['--ip', '127.0.0.1', '--port', String(port), ...options], {
    cwd: folder,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (piece) => {
      output += String(piece);
    });
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), 120_000);
  const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  clearTimeout(timer);
  await new Promise((resolve) => server.close(resolve));
  inspect(folder);
  rmSync(folder, { recursive: true, force: true });
  return { code, output, requests };
}
