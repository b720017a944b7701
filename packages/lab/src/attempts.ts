/**
 * What a root shell in the guest tries against the gate: an operator's slip, or somebody who has become root. Each
 * attempt is one script over all devices that should be without a driver.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Guest } from './guest.ts';
import type { SeenDevice } from './view.ts';

export interface Attempt {
  readonly id: string;
  /** For a person: what is tried. */
  readonly title: string;
  readonly script: (denied: readonly SeenDevice[]) => string;
}

/** PCI ids and classes of the lab's machine → the driver that Linux has for them. */
const DRIVERS: readonly {
  readonly fits: (ids: SeenDevice['ids']) => boolean;
  readonly driver: string;
  module: string;
}[] = [
  { fits: ({ vendor }) => vendor === 0x1af4, driver: 'virtio-pci', module: 'virtio_pci' },
  { fits: (ids) => ids.class === 0x010802, driver: 'nvme', module: 'nvme' },
  { fits: (ids) => ids.class === 0x010601, driver: 'ahci', module: 'ahci' },
  { fits: (ids) => ids.class === 0x0c0500, driver: 'i801_smbus', module: 'i2c_i801' },
  { fits: (ids) => ids.class === 0x060100, driver: 'lpc_ich', module: 'lpc_ich' },
];

const VIRTIO_DRIVERS =
  'virtio_blk virtio_net virtio_console virtio_rng virtio_balloon 9pnet_virtio virtio_gpu virtio_input';
const VIRTIO_MODULES = ['virtio_net', 'virtio_console', 'virtio_rng', 'virtio_balloon', 'virtio_gpu', 'virtio_input'];

const name = (device: SeenDevice) => device.id.slice('pci:'.length);
const driverFor = (device: SeenDevice) => DRIVERS.find(({ fits }) => fits(device.ids));
/** A few lines for each device, and a look after each: the agent may be quicker than the end of the script. */
const each = (devices: readonly SeenDevice[], lines: (device: SeenDevice) => string) =>
  devices.map((device) => `${lines(device)}\nlook`).join('\n');
/** Once a function has a driver, whatever appears below it on the virtio bus is tried as well. */
const bindBelow = (device: SeenDevice) => `for v in /sys/bus/pci/devices/${name(device)}/virtio*; do
  [ -e $v ] && for d in ${VIRTIO_DRIVERS}; do echo \${v##*/} >/sys/bus/virtio/drivers/$d/bind; done
done`;
const bindByHand = (device: SeenDevice) => {
  const known = driverFor(device);
  return known
    ? `echo ${name(device)} >/sys/bus/pci/drivers/${known.driver}/bind\nlook\n${bindBelow(device)}`
    : bindBelow(device);
};

export const ATTEMPTS: readonly Attempt[] = [
  {
    id: 'rescan',
    title: 'rescan the PCI bus',
    script: () => 'echo 1 >/sys/bus/pci/rescan',
  },
  {
    id: 'probe',
    title: 'ask the kernel to probe each',
    script: (denied) =>
      each(denied, (device) =>
        device.nodes.map((node) => `echo ${node.name} >/sys/bus/${node.bus}/drivers_probe`).join('\n'),
      ),
  },
  {
    id: 'bind',
    title: 'load the drivers, bind by hand',
    script: (denied) => {
      const modules = new Set(denied.map((device) => driverFor(device)?.module).filter((found) => found !== undefined));
      return `modprobe -a ${[...modules, ...VIRTIO_MODULES].join(' ')}\n${each(denied, bindByHand)}`;
    },
  },
  {
    id: 'override',
    title: 'clear driver_override, bind again',
    script: (denied) =>
      each(denied, (device) => `echo >/sys/bus/pci/devices/${name(device)}/driver_override\n${bindByHand(device)}`),
  },
  {
    id: 'readd',
    title: 'remove them, rescan: they come back new',
    script: (denied) =>
      `${denied.map((device) => `echo 1 >/sys/bus/pci/devices/${name(device)}/remove`).join('\n')}
echo 1 >/sys/bus/pci/rescan
look
${each(denied, bindBelow)}`,
  },
];

export interface AttemptResult {
  readonly id: string;
  readonly title: string;
  /** How many devices it was tried on. */
  readonly tried: number;
  /** Devices that had any driver at any look, by Airlock's id. */
  readonly bound: readonly string[];
  /** Of these, what still had one when the agent had had its time. */
  readonly left: readonly string[];
  /** From the end of the attempt until nothing was left; guest time. */
  readonly settledMilliseconds: number | null;
}

/** How long the agent may take to undo what root did, under emulation. */
const SETTLE_TENTHS = 300;

/** Runs one attempt in the guest and looks at sysfs with the shell's own words (no fork between two looks). */
export async function makeAttempt(
  guest: Guest,
  attempt: Attempt,
  denied: readonly SeenDevice[],
): Promise<Result<AttemptResult>> {
  const script = `
denied="${denied.map(name).join(' ')}"
seen=
look() {
  stray=
  for d in $denied; do
    for l in /sys/bus/pci/devices/$d/driver /sys/bus/pci/devices/$d/virtio*/driver; do
      [ -e $l ] && { stray="$stray $d"; break; }
    done
  done
  seen="$seen$stray"
}
centiseconds() { read -r up rest </proc/uptime; up=\${up%.*}\${up#*.}; }
exec 2>/dev/null
${attempt.script(denied)}
centiseconds; start=$up
look
tries=0
while [ -n "$stray" ] && [ $tries -lt ${SETTLE_TENTHS} ]; do
  sleep 0.1
  tries=$((tries + 1))
  look
done
centiseconds
echo "seen$seen"
echo "left$stray"
echo "time $((up - start))"
`;
  const answer = await guest.run(script, 120);
  if (!answer.ok) return answer;
  const found = /^seen((?: [0-9a-f:.]+)*)\nleft((?: [0-9a-f:.]+)*)\ntime (\d{1,6})\n$/.exec(answer.value.stdout);
  if (!found) return fail('guest-answer', `attempt ${attempt.id}: ${answer.value.stdout.slice(0, 200)}`);
  const ids = (words: string | undefined) =>
    [...new Set((words ?? '').split(' ').filter((word) => word !== ''))].map((word) => `pci:${word}`);
  const left = ids(found[2]);
  return ok({
    id: attempt.id,
    title: attempt.title,
    tried: denied.length,
    bound: ids(found[1]),
    left,
    settledMilliseconds: left.length > 0 ? null : Number(found[3]) * 10,
  });
}
