/**
 * NVMe drives of QEMU that say who they are: responders for its `spdm_port`, all of one made-up maker, honest or not, and
 * what a verifier has to know of that maker.
 */
import { createHash, randomBytes } from 'node:crypto';
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import { MEASUREMENT_TYPES } from '@airlock/spdm/messages/measurements.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import { IDENTITY_LIES, type Lie, MESSAGE_LIES } from '@airlock/spdm/profile/hostile.ts';
import { makeProfileDevice, makeUpMaker, type ProfileDevice } from '@airlock/spdm/profile/node-device.ts';
import { pemBlock } from '@airlock/spdm/profile/node-pem.ts';
import { DEFAULT_PROFILE } from '@airlock/spdm/profile/profile.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive } from '@airlock/spdm/requester/procedure.ts';
import type { ResponderMeasurement } from '@airlock/spdm/responder/state.ts';
import { relayTo } from '@airlock/spdm/tcp/node-relay.ts';
import { type Answerer, type ServerEvent, serveSocket } from '@airlock/spdm/tcp/node-server.ts';

/** What QEMU’s NVMe controller is, as its configuration space shows it. */
export const NVME_FUNCTION = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';

/** How a drive behaves: `relay` is a host that has the drive's questions answered by a genuine one elsewhere. */
export const DRIVE_CONDUCTS = ['honest', ...IDENTITY_LIES, ...MESSAGE_LIES, 'relay'] as const;
export type DriveConduct = (typeof DRIVE_CONDUCTS)[number];

export interface DriveMaker {
  /** PEM of the root certificate, and of revocation lists where a drive that was asked for is on one. */
  readonly roots: string;
  /** Reference values of what the maker's drives measure: the plain form, YAML. */
  readonly reference: string;
  /** Codes: `link-refused`, `profile-invalid` for a conduct that was not asked for. */
  open(conduct: DriveConduct): Promise<Result<SpdmDrive>>;
}

export interface SpdmDrive {
  /** For QEMU's `spdm_port`. QEMU closes it when it takes the drive away. */
  readonly port: number;
  /** Requests that were answered so far. */
  answered(): number;
  /** From the next message on it is another drive. Codes: as `open`. */
  become(conduct: DriveConduct): Promise<Result<void>>;
  close(): Promise<void>;
}

const FORM = 'emulator-doe';
const HOST = '127.0.0.1';

/**
 * `conducts` are those that will be asked for: whose certificate is revoked has to be known beforehand. `now` in
 * milliseconds. Codes: those of `makeProfileDevice`.
 */
export function driveMaker(conducts: readonly DriveConduct[], now = Date.now()): Result<DriveMaker> {
  const maker = makeUpMaker(now);
  const devices = new Map<Lie | null, ProfileDevice>();
  for (const hostile of new Set(conducts.map(lieOf))) {
    const device = makeProfileDevice({ ...DEFAULT_PROFILE, name: NVME_FUNCTION, hostile }, now, null, maker);
    if (!device.ok) return device;
    devices.set(hostile, device.value);
  }
  const lists = devices.get('revoked')?.lists ?? [];
  return ok({
    roots: [pemBlock('CERTIFICATE', maker.certificates[0]), ...lists.map((list) => pemBlock('X509 CRL', list))].join(
      '',
    ),
    reference: referenceOf(DEFAULT_PROFILE.measurements),
    open: (conduct) => openDrive(devices, conduct),
  });
}

async function openDrive(
  devices: ReadonlyMap<Lie | null, ProfileDevice>,
  conduct: DriveConduct,
): Promise<Result<SpdmDrive>> {
  const closing: (() => Promise<void>)[] = [];
  let answer: Answerer = () => fail('link-closed', 'no drive yet');
  let answered = 0;

  async function become(next: DriveConduct): Promise<Result<void>> {
    const device = devices.get(lieOf(next));
    if (device === undefined) return fail('profile-invalid', `no ${next} drive was made`);
    if (next === 'replayed-signature') await rehearse(device);
    if (next !== 'relay') {
      answer = device.open(doeBinding);
      return ok(undefined);
    }
    const elsewhere = await serveSocket({ ...AT, open: () => device.open(doeBinding) });
    if (!elsewhere.ok) return elsewhere;
    const relay = relayTo({ host: HOST, port: elsewhere.value.port }, FORM);
    closing.push(
      () => relay.close(),
      () => elsewhere.value.close(),
    );
    answer = relay.open();
    return ok(undefined);
  }

  const begun = await become(conduct);
  const server = begun.ok ? await serveSocket({ ...AT, open: () => (message) => answer(message), onEvent }) : begun;
  function onEvent(event: ServerEvent): void {
    if (event.event === 'message' && event.answer !== null) answered++;
  }
  async function close(): Promise<void> {
    if (server.ok) await server.value.close();
    for (const end of closing) await end();
  }
  if (server.ok) return ok({ port: server.value.port, answered: () => answered, become, close });
  await close();
  return server;
}

const AT = { listen: { host: HOST, port: 0 }, form: FORM } as const;

/** Somebody has asked it before, and remembers what it signed. */
async function rehearse(device: ProfileDevice): Promise<void> {
  const connection = new Connection({ crypto: nodeSpdmCrypto(), binding: doeBinding, trust: () => ok(null) });
  const answer = device.open(doeBinding);
  const nonce = new Uint8Array(randomBytes(32));
  await drive(gatherEvidence(connection, { device: 'rehearsal', nonce }), {
    exchange: async (bytes) => answer(bytes),
    wait: async () => undefined,
  });
}

function lieOf(conduct: DriveConduct): Lie | null {
  return conduct === 'honest' || conduct === 'relay' ? null : conduct;
}

function referenceOf(measurements: readonly ResponderMeasurement[]): string {
  const lines = measurements.map(({ index, typeCode, raw, value }) => {
    const expected = raw
      ? `raw: "${hex(value)}"`
      : `digest: "sha384:${createHash('sha384').update(value).digest('hex')}"`;
    return `  - { index: ${index}, type: ${MEASUREMENT_TYPES[typeCode]}, ${expected} }\n`;
  });
  return `version: 1\nunlisted: refuse\nmeasurements:\n${lines.join('')}`;
}
