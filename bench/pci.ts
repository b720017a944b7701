/** PCI functions of ours in a guest under emulation: plugging one in and out, binding its driver anew, a disk as one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Result } from '@airlock/core/result.ts';
import { childWords } from '@airlock/lab/child-words.ts';
import { type DeviceProcess, startDevice } from '@airlock/lab/device-process.ts';
import { bootDriverGuest, prepareDriverGuest, vhostUserPart } from '@airlock/lab/driver-guest.ts';
import type { Guest } from '@airlock/lab/guest.ts';
import type { Part } from '@airlock/lab/qemu.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { connectUnix, receive, send } from '@airlock/transport/unix-socket.ts';
import { pollWait } from '@airlock/transport/vhost-user/wait.ts';
import type { Bench, Prepared, Side } from './side-by-side.ts';

const SERIES = '7.2';

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

const PORTS: readonly Part[] = [1, 2].map((n) => ({
  device: { driver: 'pcie-root-port', id: `port${n}`, chassis: String(n), slot: String(n), addr: `1${n}.0` },
}));

async function boot(parts: readonly Part[], backends: readonly string[] = []): Promise<Guest> {
  const images = must(await prepareDriverGuest(SERIES));
  const guest = must(await bootDriverGuest(images, { parts: [...PORTS, ...parts], backends }));
  // The drivers are there: what stands in for udev, and starts a shell for each event, would be what is measured.
  must(
    await guest.run(
      'modprobe virtio_rng; modprobe virtio_blk; killall uevent; echo 0 >/proc/sys/kernel/printk; sleep 1',
    ),
  );
  return guest;
}

async function shell(guest: Guest, script: string, seconds = 60): Promise<string> {
  const answer = must(await guest.run(`set -e\n${script}`, seconds));
  if (answer.status !== 0) throw new Error(`${script}: ${answer.stderr}`);
  return answer.stdout;
}

function plug(guest: Guest, id: string, port: string, socket: string): Promise<Result<unknown>> {
  return guest.qmp.execute('device_add', {
    id,
    driver: 'vfio-user-pci',
    bus: port,
    socket: { type: 'unix', path: socket },
  });
}

function startServer(file: string, socket: string): ChildProcess {
  return spawn(process.execPath, [join(import.meta.dirname, 'support', file), socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** Gives entropy to QEMU's `rng-egd`, and says when it was asked for. */
async function serveEntropy(path: string): Promise<{ asked(): Promise<void>; close(): void }> {
  let told = () => {};
  const server = createServer((socket) => {
    socket.on('error', () => {});
    // A request is two bytes: 2, and how many.
    socket.on('data', (bytes: Buffer) => {
      for (let i = 1; i < bytes.length; i += 2) socket.write(Buffer.alloc(bytes[i] ?? 0, 7));
      told();
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    asked: () =>
      new Promise((resolve) => {
        told = resolve;
      }),
    close: () => server.close(),
  };
}

const CYCLES = 50;

/** A message of vfio-user from its words of 32 bits, behind the header. */
function message(command: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(2, command, true);
  view.setUint32(4, bytes.length, true);
  bytes.set(body, 16);
  return bytes;
}

const MESSAGES = 5000;

const messages: Bench = {
  name: 'pci-message',
  title: 'a register of configuration space read over vfio-user, by a client that sleeps until each answer',
  unit: 'messages',
  show: 'time',
  turns: 9,
  turnLength: 0,
  async prepare(): Promise<Prepared> {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-message-'));
    const calls = must(await loadSystemCalls());
    const wait = pollWait(calls);
    const room = new Uint8Array(4096);
    const children: ChildProcess[] = [];
    const connect = async (file: string) => {
      const socket = join(folder, file);
      const child = startServer(file, socket);
      children.push(child);
      await childWords(child)('listening');
      const fd = must(connectUnix(calls, socket));
      const ask = (bytes: Uint8Array, answer: number) => {
        must(send(calls, fd, bytes));
        for (let have = 0; have < answer; ) {
          wait([fd], -1, 1000);
          const { length, closed } = must(receive(calls, fd, room, 0));
          if (closed) throw new Error(`${file} ended the connection`);
          have += length;
        }
      };
      // The processor time of its first thread, in nanoseconds.
      const used = () => Number(readFileSync(`/proc/${child.pid}/schedstat`, 'latin1').split(' ')[0]);
      return { ask, used };
    };
    const text = '{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}\0';
    const served = await connect('plug-server.ts');
    const echo = await connect('echo-server.ts');
    served.ask(message(1, Uint8Array.of(0, 0, 0, 0, ...Buffer.from(text))), 20);
    const read = message(9, new Uint8Array(Uint32Array.of(0, 0, 7, 4).buffer));
    const side = (name: string, { ask, used }: Awaited<ReturnType<typeof connect>>, answer: number): Side => {
      let spent = 0;
      return {
        name,
        run() {
          const before = used();
          for (let i = 0; i < MESSAGES; i++) ask(read, answer);
          spent = (used() - before) / 1000 / MESSAGES;
        },
        more: () => ({ 'server µs': spent }),
      };
    };
    return {
      ours: [side('vfio-user server', served, 36)],
      peers: [side('a process that gives bytes back', echo, 32)],
      operations: MESSAGES,
      async close() {
        for (const child of children) child.kill();
        rmSync(folder, { recursive: true, force: true });
      },
    };
  },
};

const plugging: Bench = {
  name: 'pci-plug',
  title: `an entropy device plugged by QMP, probed by Linux ${SERIES}, used, unplugged, gone`,
  unit: 'cycles',
  show: 'rate',
  turns: 5,
  turnLength: 0,
  async prepare(): Promise<Prepared> {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-plug-'));
    const socket = join(folder, 's');
    const server = startServer('plug-server.ts', socket);
    const hear = childWords(server);
    await hear('listening');
    const entropy = await serveEntropy(join(folder, 'egd'));
    const guest = await boot(
      [],
      ['-chardev', `socket,id=egd,path=${join(folder, 'egd')}`, '-object', 'rng-egd,id=random,chardev=egd'],
    );
    let cycle = 0;
    const unplug = async (id: string) => {
      must(await guest.qmp.execute('device_del', { id }));
      must(await guest.qmp.event(({ event, data }) => event === 'DEVICE_DELETED' && data['device'] === id, 20));
    };
    const ours = async () => {
      const id = `cycle${cycle++}`;
      must(await plug(guest, id, 'port1', socket));
      await hear('used');
      await unplug(id);
      await hear('gone');
    };
    const theirs = async () => {
      const id = `cycle${cycle++}`;
      const used = entropy.asked();
      const own = { driver: 'virtio-rng-pci', 'disable-legacy': 'on', rng: 'random', bus: 'port1' };
      must(await guest.qmp.execute('device_add', { id, ...own }));
      await used;
      await unplug(id);
    };
    const side = (name: string, once: () => Promise<void>): Side => ({
      name,
      async run(times) {
        for (let i = 0; i < CYCLES * times; i++) await once();
      },
    });
    for (let i = 0; i < 5; i++) {
      await ours();
      await theirs();
    }
    return {
      ours: [side('vfio-user, all of the function ours', ours)],
      peers: [side('QEMU’s own virtio-rng', theirs)],
      operations: CYCLES,
      async close() {
        await guest.end();
        server.kill();
        entropy.close();
        rmSync(folder, { recursive: true, force: true });
      },
    };
  },
};

const binding: Bench = {
  name: 'pci-rebind',
  title: `unbind and bind virtio_rng of Linux ${SERIES}, and read 64 bytes each time, in a loop within the guest`,
  unit: 'cycles',
  show: 'rate',
  turns: 5,
  turnLength: 0,
  async prepare(): Promise<Prepared> {
    const device = must(await startDevice('entropy', ['--transport', 'vfio-user']));
    const guest = await boot([
      {
        backend: ['-object', 'rng-random,id=r0,filename=/dev/urandom'],
        device: { driver: 'virtio-rng-pci', rng: 'r0', bus: 'port2', 'disable-legacy': 'on' },
      },
    ]);
    must(await plug(guest, 'mine', 'port1', device.socket));
    const found = await shell(
      guest,
      'sleep 2; for d in /sys/bus/virtio/devices/*; do echo $(readlink -f $d | cut -d/ -f6) $(basename $d); done',
    );
    const named = (address: string) =>
      found
        .split('\n')
        .find((line) => line.startsWith(address))
        ?.split(' ')[1] ?? '';
    const [ours, theirs] = [named('0000:01:00.0'), named('0000:02:00.0')];
    if (ours === '' || theirs === '') throw new Error(`the guest has: ${found}`);
    const side = (name: string, node: string): Side => ({
      name,
      async run() {
        const other = node === ours ? theirs : ours;
        const took = await shell(
          guest,
          `cd /sys/bus/virtio/drivers/virtio_rng
echo ${other} >unbind 2>/dev/null || true; [ -e ${node} ] || echo ${node} >bind
before=$(cut -d' ' -f1 /proc/uptime)
for n in $(seq 60); do echo ${node} >unbind; echo ${node} >bind; dd if=/dev/hwrng of=/dev/null bs=64 count=1 2>/dev/null; done
echo $before $(cut -d' ' -f1 /proc/uptime)`,
        );
        const [before = 0, after = 0] = took.trim().split(' ').map(Number);
        return (after - before) * 1000;
      },
    });
    return {
      ours: [side('vfio-user', ours)],
      peers: [side('QEMU’s own virtio-rng', theirs)],
      operations: 60,
      async close() {
        await guest.end();
        await device.end();
      },
    };
  },
};

const disk: Bench = {
  name: 'pci-block',
  title: `the same back-end and file as a disk of one Linux ${SERIES} guest: 4 KiB direct reads, one at a time`,
  unit: 'reads',
  show: 'rate',
  turns: 5,
  turnLength: 0,
  async prepare(): Promise<Prepared> {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-disk-'));
    const devices: DeviceProcess[] = [];
    for (const transport of ['vfio-user', 'vhost-user']) {
      const file = join(folder, transport);
      writeFileSync(file, new Uint8Array(32 << 20).fill(7));
      devices.push(must(await startDevice('block', ['--transport', transport, '--file', file, '--serial', transport])));
    }
    const [function_, backEnd] = devices;
    if (function_ === undefined || backEnd === undefined) throw new Error('no devices');
    const guest = await boot([vhostUserPart('disk', 'vhost-user-blk-pci', backEnd.socket)]);
    must(await plug(guest, 'mine', 'port1', function_.socket));
    await shell(guest, 'sleep 2');
    const READS = 4000;
    const side = (name: string, serial: string): Side => ({
      name,
      async run() {
        const took = await shell(
          guest,
          `for d in /sys/block/vd*; do [ "$(cat $d/serial)" = ${serial} ] && disk=/dev/$(basename $d); done
before=$(cut -d' ' -f1 /proc/uptime); dd if=$disk of=/dev/null bs=4k count=${READS} iflag=direct 2>/dev/null
echo $before $(cut -d' ' -f1 /proc/uptime)`,
        );
        const [before = 0, after = 0] = took.trim().split(' ').map(Number);
        return (after - before) * 1000;
      },
    });
    return {
      ours: [side('over vfio-user', 'vfio-user')],
      peers: [side('over vhost-user', 'vhost-user')],
      operations: READS,
      async close() {
        await guest.end();
        for (const device of devices) await device.end();
        rmSync(folder, { recursive: true, force: true });
      },
    };
  },
};

export const benches: readonly Bench[] = [messages, plugging, binding, disk];
