/**
 * An NVMe drive that has to prove who it is, in a slot of the guest, and what the host then puts in its place. The agent
 * asks each over its DOE mailbox; what it found out, what was decided, and what sysfs says of the driver is told.
 */
import type { Decision } from '@airlock/core/decision.ts';
import { isConnected } from '@airlock/core/level.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { readEnforcement } from './airlock-state.ts';
import type { DriveAct, Exhibit, Stage } from './exhibit.ts';
import type { Guest } from './guest.ts';
import { nullDrive } from './machine.ts';
import { DRIVE_CONDUCTS, type DriveConduct, type DriveMaker, driveMaker, type SpdmDrive } from './spdm-drive.ts';
import { lookInto, touchingDriver } from './view.ts';

/** What is shown when nothing is chosen. */
export const SHORT_TOUR: readonly DriveConduct[] = ['honest', 'wrong-measurement', 'relay'];

/** All but `mute`: QEMU waits for the answer of its `spdm_port`, and the whole machine stands still with it. */
export const TOUR_CONDUCTS: readonly DriveConduct[] = DRIVE_CONDUCTS.filter((one) => one !== 'mute');

const ROOTS = 'lab-maker.pem';
const REFERENCE = 'lab-drive.yaml';
/** Where the gate puts the files that rules name. */
const ANCHORS = '/run/airlock/anchors';

/** Private memory is for a drive that TDISP has locked to this VM; one that proves itself may be used, and no more. */
const RULES = `  - id: lab-drive-private
    match: { bus: pci, class: nvme, identity: bound }
    require: { identity: bound, roots: [${ROOTS}], measurements: [${REFERENCE}] }
    level: tcb
  - id: lab-drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [${ROOTS}], measurements: [${REFERENCE}] }
    level: limited
`;

/** Drives of these conducts, one after the other; the first is there at boot. Codes of it: those of `driveMaker`. */
export function driveTour(conducts: readonly DriveConduct[]): Result<Exhibit> {
  const [first = 'honest', ...others] = conducts;
  const made = driveMaker([first, ...others]);
  if (!made.ok) return made;
  const maker = made.value;
  const drives: SpdmDrive[] = [];
  let port = '';
  return ok({
    step: 'drive',
    title: `an NVMe drive that has to prove who it is: ${[first, ...others].join(', then ')}`,
    ports: 1,
    async prepare([own = '']) {
      port = own;
      const drive = await openDrive(maker, first, drives);
      if (!drive.ok) return drive;
      const device = { driver: 'nvme', bus: port, id: 'drive0', drive: 'drive0', serial: 'lab-drive' };
      return ok({
        machine: {
          parts: [{ device: { ...device, spdm_port: String(drive.value.port) }, backend: nullDrive('drive0') }],
        },
        rules: RULES,
        files: { [ROOTS]: maker.roots, [REFERENCE]: maker.reference },
      });
    },
    async show(stage) {
      const { guest, note } = stage;
      const id = await functionBehind(guest, port);
      if (!id.ok) return id;
      const acts: DriveAct[] = [];
      for (const [index, conduct] of [first, ...others].entries()) {
        note(`the drive: ${conduct}`);
        const known = await lastAttested(guest, id.value);
        if (!known.ok) return known;
        if (index > 0) {
          const replaced = await replace(guest, maker, conduct, drives, index, port);
          if (!replaced.ok) return replaced;
        }
        const after = index === 0 ? -1 : (known.value?.sequence ?? -1);
        const act = await observe(stage, id.value, conduct, after, drives);
        if (!act.ok) return act;
        acts.push(act.value);
      }
      return ok({ names: new Map([[id.value, 'NVMe drive with SPDM']]), drive: { id: id.value, acts } });
    },
    async close() {
      for (const drive of drives) await drive.close();
    },
  });
}

async function openDrive(maker: DriveMaker, conduct: DriveConduct, drives: SpdmDrive[]): Promise<Result<SpdmDrive>> {
  const drive = await maker.open(conduct);
  if (drive.ok) drives.push(drive.value);
  return drive;
}

/** Takes the drive away and puts another one in its place, as a host can at any time. Codes: QMP's, `link-refused`. */
async function replace(
  guest: Guest,
  maker: DriveMaker,
  conduct: DriveConduct,
  drives: SpdmDrive[],
  index: number,
  bus: string,
): Promise<Result<unknown>> {
  const before = `drive${index - 1}`;
  const gone = guest.qmp.event(({ event, data }) => event === 'DEVICE_DELETED' && data['device'] === before, 60);
  const asked = await guest.qmp.execute('device_del', { id: before });
  if (!asked.ok) return asked;
  const left = await gone;
  if (!left.ok) return left;
  const drive = await openDrive(maker, conduct, drives);
  if (!drive.ok) return drive;
  const id = `drive${index}`;
  const medium = { driver: 'null-co', 'node-name': id, size: 64 << 20, 'read-zeroes': true };
  const added = await guest.qmp.execute('blockdev-add', medium);
  if (!added.ok) return added;
  return guest.qmp.execute('device_add', {
    ...{ driver: 'nvme', bus, id, drive: id, serial: 'lab-drive', spdm_port: drive.value.port },
  });
}

/** Airlock's id of the function behind a port of the machine. Code: `guest-answer`. */
async function functionBehind(guest: Guest, port: string): Promise<Result<string>> {
  const buses = await guest.qmp.execute('query-pci');
  if (!buses.ok) return buses;
  const found = bridgeOf(buses.value, port);
  if (found === null) return fail('guest-answer', `QEMU shows no port ${port} with a bus behind it`);
  return ok(`pci:0000:${found.toString(16).padStart(2, '0')}:00.0`);
}

/** The number of the bus behind the bridge of that QEMU id. */
function bridgeOf(value: unknown, id: string): number | null {
  for (const bus of Array.isArray(value) ? value : []) {
    for (const device of recordsIn(bus, 'devices')) {
      const bridge = recordIn(recordIn(device, 'pci_bridge'), 'bus');
      if (device['qdev_id'] === id && typeof bridge?.['secondary'] === 'number') return bridge['secondary'];
    }
  }
  return null;
}

function recordIn(value: unknown, key: string): Record<string, unknown> | undefined {
  const inner: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
  return isRecord(inner) ? inner : undefined;
}

function recordsIn(value: unknown, key: string): Record<string, unknown>[] {
  const inner: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
  return Array.isArray(inner) ? inner.filter(isRecord) : [];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

interface Attested {
  readonly sequence: number;
  readonly tier: string;
  readonly because: string;
  readonly milliseconds: number;
}

/** The agent's last word on who the device is. Codes: the guest's, `guest-answer`. */
async function lastAttested(guest: Guest, id: string): Promise<Result<Attested | null>> {
  const answer = await guest.run(
    `cat /run/airlock/events.1.ndjson /run/airlock/events.ndjson 2>/dev/null | grep '"kind":"attested"' | grep -F '"${id}"' | tail -n 1`,
  );
  if (!answer.ok) return answer;
  const line = answer.value.stdout.trim();
  if (line === '') return ok(null);
  const event = jsonOf(line);
  const { sequence, tier, because, milliseconds } = isRecord(event) ? event : {};
  if (typeof sequence !== 'number' || typeof tier !== 'string' || typeof because !== 'string')
    return fail('guest-answer', `not an event of the agent: ${line.slice(0, 120)}`);
  return ok({ sequence, tier, because, milliseconds: typeof milliseconds === 'number' ? milliseconds : 0 });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Seconds; the agent gives a device ten, and on a busy machine asks again after a minute. */
const PATIENCE = 180;

async function observe(
  { guest }: Stage,
  id: string,
  conduct: DriveConduct,
  after: number,
  drives: readonly SpdmDrive[],
): Promise<Result<DriveAct>> {
  const honest = conduct === 'honest' || conduct === 'relay';
  const until = performance.now() + PATIENCE * 1000;
  let attested: Attested | null = null;
  let seen: Result<Pick<DriveAct, 'decision' | 'driver'>>;
  // Found out is not yet decided, and decided is not yet done.
  do {
    const last = await lastAttested(guest, id);
    if (!last.ok) return last;
    if (last.value !== null && last.value.sequence > after) attested = last.value;
    seen = await stateOf(guest, id);
    if (!seen.ok) return seen;
    if (attested !== null && isDone(seen.value, honest)) break;
    await guest.run('sleep 0.5');
  } while (performance.now() < until);
  if (attested === null) return fail('guest-timeout', `the agent did not say who ${id} is`);
  const { tier, because, milliseconds } = attested;
  const answered = drives.at(-1)?.answered() ?? 0;
  const failed = honest ? ok([]) : await failedChecks(guest, id);
  if (!failed.ok) return failed;
  const { decision, driver } = seen.value;
  return ok({
    ...{ conduct, tier, because, milliseconds, answered, failed: failed.value, decision, driver },
    asExpected: honest
      ? driver === 'nvme' && decision.level === 'limited'
      : driver === null && decision.level === 'disconnected',
  });
}

function isDone({ decision, driver }: Pick<DriveAct, 'decision' | 'driver'>, used: boolean): boolean {
  return (driver !== null) === used && isConnected(decision.level) === used;
}

async function stateOf(guest: Guest, id: string): Promise<Result<Pick<DriveAct, 'decision' | 'driver'>>> {
  const [enforcement, view] = [await readEnforcement(guest), await lookInto(guest)];
  if (!enforcement.ok) return enforcement;
  if (!view.ok) return view;
  const found: Decision | undefined = enforcement.value.find(({ decision }) => decision.device === id)?.decision;
  const device = view.value.pci.find((one) => one.id === id);
  return ok({
    decision:
      found === undefined
        ? { level: 'disconnected', reason: 'default', detail: 'nothing was decided', rule: null }
        : { level: found.level, reason: found.reason, detail: found.detail, rule: found.rule?.id ?? null },
    driver: device === undefined ? null : touchingDriver(device),
  });
}

/** Which checks fail when the device is asked once more, by hand. Where it did not even answer, its complaint. */
async function failedChecks(guest: Guest, id: string): Promise<Result<DriveAct['failed']>> {
  const answer = await guest.run(
    `airlock device attest ${id} --roots ${ANCHORS}/${ROOTS} --reference ${ANCHORS}/${REFERENCE} --json >/tmp/told 2>/tmp/said
base64 /tmp/told; head -c 2000 /tmp/said >&2`,
    90,
  );
  if (!answer.ok) return answer;
  const { stdout, stderr } = answer.value;
  // The channel carries ASCII.
  const report = jsonOf(Buffer.from(stdout.replaceAll('\n', ''), 'base64').toString('utf8'));
  const checks = recordsIn(report, 'appraisals').flatMap((appraisal) => recordsIn(appraisal, 'checks'));
  const failed = checks
    .filter(({ status }) => status === 'failed')
    .map(({ id: check, subject, expected, found }) => ({
      id: String(check),
      subject: typeof subject === 'string' ? subject : null,
      ...{ expected: String(expected), found: String(found) },
    }));
  if (report !== undefined) return ok(failed);
  const [, said = stderr.trim(), code = 'no-answer'] =
    /^airlock device attest: (.*) \[([a-z-]+)\]\s*$/m.exec(stderr) ?? [];
  return ok([{ id: code, subject: null, expected: 'an exchange as SPDM has it', found: said }]);
}
