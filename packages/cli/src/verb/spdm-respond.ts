/** `airlock spdm respond`: is a device that speaks SPDM, honest or hostile, until it is told to end. */
import { rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { formatProblem, type Result } from '@airlock/core/result.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { answerDiscoveryObject } from '@airlock/spdm/doe/discovery.ts';
import { nameOfCode } from '@airlock/spdm/messages/codes.ts';
import { IDENTITY_LIES, MESSAGE_LIES, TDISP_LIES } from '@airlock/spdm/profile/hostile.ts';
import { makeProfileDevice, type ProfileDevice } from '@airlock/spdm/profile/node-device.ts';
import { pemBlock } from '@airlock/spdm/profile/node-pem.ts';
import { DEFAULT_PROFILE, type Profile, readProfile } from '@airlock/spdm/profile/profile.ts';
import { type Relay, relayTo } from '@airlock/spdm/tcp/node-relay.ts';
import { type ServerEvent, serveSocket } from '@airlock/spdm/tcp/node-server.ts';
import { SOCKET_FORM, SOCKET_FORMS, type SocketForm } from '@airlock/spdm/tcp/socket-form.ts';
import { readUserFile } from '../device-appraisal.ts';
import { readPlainYaml } from '../plain-yaml.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'spdm respond',
  summary: 'be a device that speaks SPDM, honest or hostile, for tests and for QEMU’s spdm_port',
  usage: '--tcp HOST:PORT | --socket PATH [--transport FORM] [--profile FILE] [--write-root FILE] [--json]',
  help: `
Without a profile it is an honest device of a made-up maker, whose root certificate --write-root keeps.

  --tcp HOST:PORT     where to listen; HOST is 127.0.0.1 for others on this machine; port 0 takes a free one and tells it
  --socket PATH       a Unix socket in place of it, made with the rights of this user only
  --transport FORM    ${SOCKET_FORMS.join(', ')} (default: ${SOCKET_FORMS[0]}, DSP0287; QEMU wants emulator-doe)
  --profile FILE      what to be (YAML or JSON), see below; - is none
  --write-root FILE   the root certificate that a verifier of this device would trust (PEM)
  --write-crl FILE    the made-up maker's revocation lists (PEM)
  --json              what happens as one JSON object a line

  version: 1
  spdm: ['1.2', '1.3']                    # versions; all four when not given
  name: Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100    # PCI function in the made-up certificate
  chain: chain.pem                        # or a chain, root first, and its key
  key: key.pem
  measurements: [{ index: 1, type: immutable-rom, text: ROM 1.0 }, { index: 16, type: secure-version-number, hex: '07', raw: true }]
  tdisp: [0xbeef]                         # functions that speak TDISP in a session; IDE_KM comes with them; or
    # - { function: 0x20, msix: 65, ranges: [{ id: 0, page: 0xfe000, pages: 2 }, { id: 0, page: 0xfe002, pages: 1, is: [msix-table] }] }
  hostile: stale-nonce                    # ${IDENTITY_LIES.join(', ')},
                                          # ${MESSAGE_LIES.slice(0, 4).join(', ')},
                                          # ${MESSAGE_LIES.slice(4).join(', ')},
                                          # ${TDISP_LIES.slice(0, 3).join(', ')},
                                          # ${TDISP_LIES.slice(3).join(', ')}
  relay: tcp://HOST:PORT                  # everything is answered by the responder there, in the same transport

Exit codes: 0 told to end, 2 usage, 3 it could not begin.

  airlock spdm respond --tcp 127.0.0.1:2323 --transport emulator-doe --write-root maker.pem
  qemu-system-x86_64 ... -device nvme,drive=d0,serial=1,spdm_port=2323
`,
  options: {
    tcp: { type: 'string' },
    socket: { type: 'string' },
    transport: { type: 'string' },
    profile: { type: 'string' },
    'write-root': { type: 'string' },
    'write-crl': { type: 'string' },
    json: { type: 'boolean' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`${printable(positionals[0] ?? '')}: no arguments are taken`);
  const form = formOf(values);
  const listen = listenOf(context, values);
  const { profile, folder } = await profileOf(context, values);
  const device = await deviceOf(context, profile, folder);
  if (!device.ok) throw new UsageError(`--profile: ${formatProblem(device.error)}`);
  await keep(context, values, 'write-root', [pemBlock('CERTIFICATE', device.value.root)]);
  await keep(
    context,
    values,
    'write-crl',
    device.value.lists.map((list) => pemBlock('X509 CRL', list)),
  );

  const tell = teller(context, values['json'] === true, form);
  const relay = profile.relay === null ? null : relayAt(profile.relay, form);
  const server = await serveSocket({
    listen,
    form,
    open: () => relay?.open() ?? device.value.open(SOCKET_FORM[form].binding),
    onEvent: tell,
  });
  if (!server.ok) {
    context.stderr(`airlock spdm respond: ${printable(formatProblem(server.error))}\n`);
    return EXIT.environment;
  }
  const where = 'path' in listen ? listen.path : `tcp://${listen.host}:${server.value.port}`;
  const what = profile.hostile ?? (profile.relay === null ? 'honest' : `relay to ${profile.relay}`);
  if (values['json'] === true)
    context.stdout(`${JSON.stringify({ event: 'listening', at: where, form, profile: what })}\n`);
  else context.stdout(`listening at ${printable(where)}, ${form}, ${printable(what)}\n`);
  const stop = () => void server.value.close();
  if (context.signal.aborted) stop();
  else context.signal.addEventListener('abort', stop, { once: true });
  await server.value.closed;
  context.signal.removeEventListener('abort', stop);
  await relay?.close();
  if ('path' in listen) rmSync(listen.path, { force: true });
  return EXIT.fine;
}

function formOf(values: Values): SocketForm {
  const given = values['transport'] ?? SOCKET_FORMS[0];
  const form = SOCKET_FORMS.find((one) => one === given);
  if (form === undefined)
    throw new UsageError(`--transport ${printable(String(given))}: one of ${SOCKET_FORMS.join(', ')}`);
  return form;
}

function listenOf(
  context: Context,
  values: Values,
): { readonly host: string; readonly port: number } | { readonly path: string } {
  const { tcp, socket } = values;
  if (typeof tcp === 'string' && typeof socket === 'string') throw new UsageError('--tcp or --socket, not both');
  if (typeof socket === 'string') return { path: resolve(context.cwd, socket) };
  if (typeof tcp !== 'string') throw new UsageError('--tcp HOST:PORT or --socket PATH is needed');
  const match = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(tcp);
  const port = Number(match?.[2]);
  if (match === null || port > 65535) throw new UsageError(`--tcp ${printable(tcp)}: HOST:PORT is the form`);
  return { host: (match[1] ?? '').replace(/^\[|\]$/g, ''), port };
}

async function profileOf(
  context: Context,
  values: Values,
): Promise<{ readonly profile: Profile; readonly folder: string }> {
  const path = values['profile'];
  if (typeof path !== 'string' || path === '-') return { profile: DEFAULT_PROFILE, folder: context.cwd };
  const bytes = await readUserFile(context, '--profile', path);
  const plain = readPlainYaml(new TextDecoder().decode(bytes), printable(path), 'profile-invalid');
  const profile = plain.ok ? readProfile(plain.value, printable(path)) : plain;
  if (!profile.ok) throw new UsageError(`--profile ${formatProblem(profile.error)}`);
  return { profile: profile.value, folder: dirname(resolve(context.cwd, path)) };
}

async function deviceOf(context: Context, profile: Profile, folder: string): Promise<Result<ProfileDevice>> {
  if (profile.files === null) return makeProfileDevice(profile, Date.now(), null);
  const chainBytes = await readUserFile(context, '--profile, chain', resolve(folder, profile.files.chain));
  const key = await readUserFile(context, '--profile, key', resolve(folder, profile.files.key));
  const chain = recognise(profile.files.chain, chainBytes).found.flatMap(({ item }) =>
    item.kind === 'certificate' ? [item.certificate.der] : [],
  );
  return makeProfileDevice(profile, Date.now(), { chain, key });
}

async function keep(context: Context, values: Values, option: string, blocks: readonly string[]): Promise<void> {
  const path = values[option];
  if (typeof path !== 'string') return;
  if (blocks.length === 0) throw new UsageError(`--${option}: a chain out of files has none`);
  try {
    await writeFile(resolve(context.cwd, path), blocks.join(''));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    throw new UsageError(`--${option} ${printable(path)}: ${code}`);
  }
}

function relayAt(place: string, form: SocketForm): Relay {
  const match = /^tcp:\/\/([A-Za-z0-9.-]+):(\d{1,5})$/.exec(place);
  return relayTo({ host: match?.[1] ?? '', port: Number(match?.[2]) }, form);
}

/** SPDM code of a message, in the clear or not. */
function codeName(form: SocketForm, bytes: Uint8Array): string {
  const unwrapped = SOCKET_FORM[form].binding.unwrap(bytes);
  if (!unwrapped.ok)
    return form === 'emulator-doe' && answerDiscoveryObject(bytes) !== undefined ? 'DOE discovery' : 'not SPDM';
  return unwrapped.value.kind === 'secured' ? 'record of a session' : nameOfCode(unwrapped.value.message[1] ?? 0);
}

function teller(context: Context, json: boolean, form: SocketForm): (event: ServerEvent) => void {
  return (event) => {
    if (event.event === 'message') {
      const request = codeName(form, event.request);
      const answer = event.answer === null ? null : codeName(form, event.answer);
      const sizes = { requestBytes: event.request.length, answerBytes: event.answer?.length ?? 0 };
      if (json) context.stdout(`${JSON.stringify({ event: 'message', request, answer, ...sizes })}\n`);
      else context.stdout(`  ${request.padEnd(24)} ${answer ?? 'nothing'} (${sizes.answerBytes} bytes)\n`);
    } else if (json) context.stdout(`${JSON.stringify(event)}\n`);
    else
      context.stdout(
        event.event === 'refused' ? `  refused: ${printable(event.message)} [${event.code}]\n` : `${event.event}\n`,
      );
  };
}
