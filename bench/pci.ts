/** PCI functions of ours in a guest under emulation: plugging one in and out, binding its driver anew, a disk as one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Result } from '@airlock/core/result.ts';
import { type DeviceProcess, startDevice } from '@airlock/lab/device-process.ts';
import { bootDriverGuest, prepareDriverGuest, vhostUserPart } from '@airlock/lab/driver-guest.ts';
import type { Guest } from '@airlock/lab/guest.ts';
import type { Part } from '@airlock/lab/qemu.ts';
import type { Bench, Prepared, Side } from './side-by-side.ts';

const SERIES = '7.2';

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

const PORTS: readonly Part[] = [1, 2].map((n) => ({
  device: { driver: 'pcie-root-port', id: `port${n}`, chassis: String(n), slot: String(n), addr: `1${n}.0` },
}));

async function boot(parts: readonly Part[]): Promise<Guest> {
  const images = must(await prepareDriverGuest(SERIES));
  const guest = must(await bootDriverGuest(images, { parts: [...PORTS, ...parts] }));
  must(await guest.run('modprobe virtio_rng; modprobe virtio_blk; echo 0 >/proc/sys/kernel/printk; sleep 1'));
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

/** Lines that a child says, waited for one by one. */
function hearing(child: ChildProcess): (word: string) => Promise<void> {
  let said = '';
  let look = () => {};
  child.stdout?.on('data', (bytes: Buffer) => {
    said += bytes.toString('latin1');
    look();
  });
  return (word) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the device did not say ${word}`)), 30_000);
      look = () => {
        const at = said.indexOf(`${word}\n`);
        if (at < 0) return;
        said = said.slice(at + word.length + 1);
        look = () => {};
        clearTimeout(timer);
        resolve();
      };
      look();
    });
}

const plugging: Bench = {
  name: 'pci-plug',
  title: `an entropy device over vfio-user: plugged by QMP, probed by Linux ${SERIES}, used, unplugged, gone`,
  unit: 'cycles',
  show: 'rate',
  turns: 5,
  turnLength: 0,
  async prepare(): Promise<Prepared> {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-plug-'));
    const socket = join(folder, 's');
    const server = spawn(process.execPath, [join(import.meta.dirname, 'support/plug-server.ts'), socket], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const hear = hearing(server);
    await hear('listening');
    const guest = await boot([]);
    let cycle = 0;
    const once = async () => {
      const id = `cycle${cycle++}`;
      must(await plug(guest, id, 'port1', socket));
      await hear('used');
      must(await guest.qmp.execute('device_del', { id }));
      must(await guest.qmp.event(({ event, data }) => event === 'DEVICE_DELETED' && data['device'] === id, 20));
      await hear('gone');
    };
    await once();
    const side: Side = {
      name: 'vfio-user, all of the function ours',
      async run(times) {
        for (let i = 0; i < 50 * times; i++) await once();
      },
    };
    return {
      ours: [side],
      peers: [],
      operations: 50,
      async close() {
        await guest.end();
        server.kill();
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

export const benches: readonly Bench[] = [plugging, binding, disk];
