/**
 * Devices of ours in the lab's guest: each served by a process of its own in its sandbox, as `airlock device serve` does
 * it, and plugged in while the guest runs behind its policy. VDUSE ones are served within the guest.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fail, formatProblem, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES } from '@airlock/core/virtio.ts';
import { serveDevice } from '@airlock/device/serve.ts';
import { parseServeEvent, type ServeEvent } from '@airlock/device/serve-event.ts';
import { SERVED_TYPES } from '@airlock/device/serve-types.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { agentKnows } from './agent-word.ts';
import { GUEST_MEMORY, GUEST_USES } from './device-bench.ts';
import { type DeviceOrder, servedValues } from './device-order.ts';
import type { Exhibit, PluggedDevice, Stage } from './exhibit.ts';
import type { Guest } from './guest.ts';
import { lookInto } from './view.ts';

/** A process that is the device, outside of the guest. */
interface Served {
  readonly order: DeviceOrder;
  readonly socket: string;
  readonly listening: Listening;
  readonly complaints: string[];
  end(): Promise<void>;
}

type Listening = Extract<ServeEvent, { event: 'listening' }>;

/** `folder` is where relative paths of the orders begin; with `allow` there is a rule for each that lets it in. */
export function pluggedDevices(orders: readonly DeviceOrder[], folder: string, allow: boolean): Exhibit {
  const served: Served[] = [];
  let ports: readonly string[] = [];
  const outside = orders.filter(({ transport }) => transport !== 'vduse');
  return {
    step: 'devices',
    title: `the host plugs in: ${orders.map(({ type, transport }) => `${type} over ${transport}`).join(', ')}`,
    ports: outside.length,
    async prepare(own, privately) {
      ports = own;
      for (const [index, order] of outside.entries()) {
        const device = await startServing(order, folder, join(privately, `device${index}`));
        if (!device.ok) return device;
        served.push(device.value);
      }
      const rules = [...new Set(orders.map((order, index) => ruleFor(order, nameIn(order, index))))];
      const grows = orders.some(({ type }) => type === 'memory');
      return ok({
        machine: {
          ...(outside.length > 0 ? { sharedMemory: true } : {}),
          // The upper half is for the device to give.
          ...(grows ? { memory: GUEST_MEMORY, cmdline: `mem=${GUEST_USES}M` } : {}),
        },
        ...(allow ? { rules: rules.join('') } : {}),
      });
    },
    async show(stage) {
      const plugged: PluggedDevice[] = [];
      let next = 0;
      for (const [index, order] of orders.entries()) {
        const one = served[next];
        const result =
          order.transport === 'vduse' || one === undefined
            ? await plugVduse(stage, order, nameIn(order, index))
            : await plugSocket(stage, one, ports[next++] ?? '', `plugged${index}`);
        if (!result.ok) return result;
        plugged.push({ ...result.value, rule: ruleFor(order, nameIn(order, index)) });
      }
      const names = new Map(
        plugged.flatMap(({ id, type, transport }) => (id === null ? [] : [[id, `our ${type}, ${transport}`] as const])),
      );
      const known = await agentKnows(stage.guest, [...names.keys()], 30);
      return known.ok ? ok({ plugged, names }) : known;
    },
    async close() {
      await Promise.all(served.map((one) => one.end()));
    },
  };
}

/** VDUSE devices have names of this machine. */
function nameIn({ type }: DeviceOrder, index: number): string {
  return `lab-${type}-${index}`;
}

/** Drivers are given to what it is; that is all that is known of it before. */
function ruleFor({ type, transport }: DeviceOrder, name: string): string {
  const [id, match] =
    transport === 'vduse'
      ? [name, `bus: vdpa, location: ${name}`]
      : [`lab-plugged-${type}`, `bus: virtio, type: ${type}, hotplugged: true`];
  return `  - id: ${id}\n    match: { ${match} }\n    level: limited\n`;
}

async function startServing(order: DeviceOrder, folder: string, own: string): Promise<Result<Served>> {
  const { type, transport, plain } = order;
  mkdirSync(own);
  const values = await servedValues(order, own);
  if (!values.ok) return values;
  const load = SERVED_TYPES[type];
  const prepared = load === undefined ? fail('device-start', type) : (await load()).served.prepare(values.value);
  if (!prepared.ok) return prepared;
  const socket = join(own, 'device.sock');
  const ending = new AbortController();
  const complaints: string[] = [];
  let told: (event: Listening) => void = () => {};
  const listening = new Promise<Listening>((resolve) => {
    told = resolve;
  });
  const ended = serveDevice({
    request: {
      ...{ type, transport, socket, folder, values: withoutUndefined(values.value), plain },
      ...{ once: false, unsealedMemory: false, sandbox: true },
    },
    needs: prepared.value.needs,
    signal: ending.signal,
    told(event) {
      if (event.event === 'listening') told(event);
      else complaints.push(...complaintOf(event));
    },
  });
  const first = await Promise.race([listening, ended]);
  if (first === null || 'code' in first) {
    const why: Problem = first ?? { code: 'device-start', message: 'it ended' };
    return fail('device-start', `${type}: ${formatProblem(why)}`);
  }
  return ok({
    ...{ order, socket, listening: first, complaints },
    async end() {
      ending.abort();
      await ended;
    },
  });
}

function withoutUndefined(values: DeviceOrder['values']): DeviceOrder['values'] {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

/** How a front-end leaves when nothing is wrong. */
const IN_ORDER = ['vhost-user-closed', 'vfio-user-gone', 'vduse-reset'];

function complaintOf(event: ServeEvent): string[] {
  if (event.event === 'warning') return [event.text];
  if (event.event === 'problem' || event.event === 'failed') return [formatProblem(event.problem)];
  return event.event === 'disconnected' && !IN_ORDER.includes(event.why.code) ? [formatProblem(event.why)] : [];
}

type Plugged = Omit<PluggedDevice, 'rule'>;

/** What QEMU has a front-end of its own for; everything else goes through the one that takes any type. */
const FRONT_ENDS: Readonly<Record<string, string>> = {
  block: 'vhost-user-blk-pci',
  entropy: 'vhost-user-rng-pci',
  vsock: 'vhost-user-vsock-pci',
};

async function plugSocket({ guest }: Stage, served: Served, bus: string, id: string): Promise<Result<Plugged>> {
  const before = await functionsOf(guest);
  if (!before.ok) return before;
  const { order, socket, listening, complaints } = served;
  const added =
    order.transport === 'vhost-user'
      ? await addVhostUser(guest, served, bus, id)
      : await guest.qmp.execute('device_add', {
          ...{ driver: 'vfio-user-pci', socket: { type: 'unix', path: socket }, bus, id },
        });
  if (!added.ok) return added;
  const what = { type: order.type, transport: order.transport, what: listening.device, sandbox: listening.sandbox };
  for (let tries = 0; tries < 50; tries++) {
    const now = await functionsOf(guest);
    if (!now.ok) return now;
    const fresh = now.value.find((one) => !before.value.includes(one));
    if (fresh !== undefined) return ok({ ...what, id: fresh, complaints });
    await guest.run('sleep 0.2');
  }
  return ok({ ...what, id: null, complaints });
}

async function functionsOf(guest: Guest): Promise<Result<readonly string[]>> {
  const view = await lookInto(guest);
  return view.ok ? ok(view.value.pci.map((device) => device.id)) : view;
}

/** Codes: QMP's, those of `FrontEnd.connect`. */
async function addVhostUser(guest: Guest, served: Served, bus: string, id: string): Promise<Result<unknown>> {
  const { type } = served.order;
  const shape = FRONT_ENDS[type] === undefined && type !== 'net' ? await shapeOf(served.socket) : ok(null);
  if (!shape.ok) return shape;
  const line = `${id}-line`;
  const made = await guest.qmp.execute('chardev-add', {
    id: line,
    backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: served.socket } }, server: false } },
  });
  if (!made.ok) return made;
  const common = { bus, id, iommu_platform: true };
  if (type === 'net') {
    const net = await guest.qmp.execute('netdev_add', { type: 'vhost-user', id: `${id}-net`, chardev: line });
    if (!net.ok) return net;
    return guest.qmp.execute('device_add', {
      ...{ ...common, driver: 'virtio-net-pci', netdev: `${id}-net`, romfile: '', 'disable-legacy': 'on' },
    });
  }
  const driver = FRONT_ENDS[type];
  if (driver !== undefined) {
    const modern = driver === 'vhost-user-rng-pci' ? {} : { 'disable-legacy': 'on' };
    return guest.qmp.execute('device_add', { ...common, ...modern, driver, chardev: line });
  }
  return guest.qmp.execute('device_add', {
    ...{ ...common, driver: 'vhost-user-test-device-pci', chardev: line, 'virtio-id': VIRTIO_TYPES[type] },
    ...{ num_vqs: shape.value?.queues ?? 1, config_size: shape.value?.config ?? 0 },
  });
}

/** The most that VIRTIO configuration is asked for over vhost-user, in bytes. */
const CONFIG_LIMIT = 256;

/** What a VMM has to be told of a device that it does not know: asked of the device itself. */
async function shapeOf(socket: string): Promise<Result<{ readonly queues: number; readonly config: number }>> {
  const calls = await loadSystemCalls();
  if (!calls.ok) return calls;
  const front = FrontEnd.connect(socket, { calls: calls.value });
  if (!front.ok) return front;
  let config = front.value.has('CONFIG') ? CONFIG_LIMIT : 0;
  while (config > 0 && !front.value.readConfigBytes(config).ok) config--;
  const queues = front.value.offer.queues ?? 1;
  front.value.close();
  return ok({ queues, config });
}

/** Bytes of a disk in the guest's memory. */
const GUEST_DISK = '32M';
const START_SECONDS = 150;

/** Within the guest, for its own drivers. Codes: the guest's, `device-start`. */
async function plugVduse({ guest }: Stage, order: DeviceOrder, name: string): Promise<Result<Plugged>> {
  const disk = `/tmp/${name}.img`;
  const byDefault = order.type === 'block' ? [`--file=${disk}`] : ['--peer=user'];
  const given = Object.entries(order.values).flatMap(([key, value]) =>
    value === true ? [`--${key}`] : [value].flat().map((one) => `--${key}=${one}`),
  );
  const words = given.length === 0 ? byDefault : given;
  const log = `/run/lab/${name}.log`;
  const answer = await guest.run(
    `modprobe -a vduse virtio_vdpa
${given.length === 0 && order.type === 'block' ? `truncate -s ${GUEST_DISK} ${disk}` : ''}
(cd /tmp; airlock device serve ${order.type} --transport vduse --as ${name} --json ${words.map(quoted).join(' ')} >${log} 2>&1 </dev/null; echo ended >>${log}) &
tries=0
until [ -e /sys/bus/vdpa/devices/${name} ]; do
  tries=$((tries + 1)); [ $tries -lt ${START_SECONDS * 5} ] && ! tail -n 1 ${log} | grep -q '^ended' || { cat ${log}; exit 1; }
  sleep 0.2
done
cat ${log}`,
    START_SECONDS + 20,
  );
  if (!answer.ok) return answer;
  const { status, stdout } = answer.value;
  const lines = stdout.split('\n').filter((line) => line !== '' && line !== 'ended');
  if (status !== 0) return fail('device-start', `${order.type} over VDUSE: ${lines.at(-1) ?? 'it said nothing'}`);
  const events = lines.flatMap((line) => {
    const event = parseServeEvent(line);
    return event.ok ? [event.value] : [];
  });
  const listening = events.find((event) => event.event === 'listening');
  return ok({
    ...{ type: order.type, transport: order.transport, id: `vdpa:${name}` },
    ...{ what: listening?.device ?? '', sandbox: listening?.sandbox ?? [] },
    complaints: events.flatMap(complaintOf),
  });
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
