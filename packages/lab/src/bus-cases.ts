/** What buses, lines and clocks are used for in a guest. */
import { ok } from '@airlock/core/result.ts';
import { fact, NONE, until, wrong } from './case-steps.ts';
import type { DeviceCase } from './device-bench.ts';

export const i2c: DeviceCase = {
  ...{ type: 'i2c', driver: 'i2c_virtio', option: 'I2C_VIRTIO' },
  shape: { queues: 1, config: 0 },
  frontEnd: { driver: 'vhost-user-i2c-pci' },
  options: () => [],
  async use(bench) {
    const done = await bench.shell(
      `modprobe i2c_dev
bus=$(grep -l '^i2c_virtio' /sys/class/i2c-dev/*/name | sed 's,.*i2c-\\([0-9]*\\)/name,\\1,')
i2cdetect -y $bus | grep '^50:' >&2
[ "$(i2cdetect -y $bus | grep -c ' 50 ')" = 1 ]
i2cset -y $bus 0x50 0x10 0x5a
[ "$(i2cget -y $bus 0x50 0x10)" = 0x5a ]
[ "$(i2cget -y $bus 0x50 0x11)" = 0xff ]
i2ctransfer -y $bus w5@0x50 0x20 1 2 3 4
[ "$(i2ctransfer -y $bus w1@0x50 0x20 r4 | tr -d '\\n')" = '0x01 0x02 0x03 0x04' ]
! i2cget -y $bus 0x51 0x10 2>/dev/null`,
    );
    if (!done.ok) return done;
    if ((await fact(bench, 'written')) !== 5) return wrong('bytes', await bench.ask('facts'));
    return ok('a scan finds the EEPROM and nothing else; bytes written and read back');
  },
};

export const gpio: DeviceCase = {
  ...{ type: 'gpio', driver: 'gpio_virtio', option: 'GPIO_VIRTIO' },
  shape: { queues: 2, config: 8 },
  frontEnd: { driver: 'vhost-user-gpio-pci' },
  options: () => ['--lines', 'in,out,spare'],
  async use(bench) {
    const taken = await bench.shell(
      `cd /sys/class/gpio
chip=$(for c in gpiochip*; do [ "$(cat $c/ngpio)" = 3 ] && echo $c; done)
first=$(cat $chip/base)
mkdir -p /run/debug && mount -t debugfs debug /run/debug
[ "$(grep -cE 'gpio-0 +\\(in |gpio-1 +\\(out |gpio-2 +\\(spare ' /run/debug/gpio)" = 3 ]
umount /run/debug
echo $first >export && echo $((first + 1)) >export
ln -s /sys/class/gpio/gpio$first /run/in && ln -s /sys/class/gpio/gpio$((first + 1)) /run/out
cd /run
echo in >in/direction # Linux says "in" of a line before it has told the device
[ "$(cat in/direction)" = in ] && [ "$(cat in/value)" = 0 ]
echo high >out/direction
[ "$(cat out/value)" = 1 ]
echo both >in/edge
grep -c gpiolib /proc/interrupts`,
    );
    if (!taken.ok) return taken;
    const facts = await bench.ask('facts');
    const { lines } = (facts.ok ? facts.value : {}) as { lines?: readonly Record<string, number>[] };
    if (JSON.stringify(lines?.[1]) !== JSON.stringify({ direction: 1, value: 1, irq: 0 })) return wrong('out', facts);
    for (const value of [1, 0]) {
      const moved = await bench.ask(`set 0 ${value}`);
      if (!moved.ok) return moved;
      const seen = await until(async () => {
        const counted = await bench.shell(
          `[ "$(cat /run/in/value)" = ${value} ] && awk '/gpiolib/ { print $2 }' /proc/interrupts`,
        );
        return counted.ok && Number(counted.value) === 2 - value;
      });
      if (!seen) return wrong(`interrupts after ${value}`, await bench.ask('facts'));
    }
    const given = await bench.shell(
      `cd /sys/class/gpio
echo none >/run/in/edge
rm /run/in /run/out
chip=$(for c in gpiochip*; do [ "$(cat $c/ngpio)" = 3 ] && echo $c; done)
first=$(cat $chip/base)
echo $first >unexport && echo $((first + 1)) >unexport`,
    );
    if (!given.ok) return given;
    if ((await fact(bench, 'interrupts')) !== 2) return wrong('interrupts', await bench.ask('facts'));
    return ok('lines by name: an output set, an input read, an interrupt at each of its edges');
  },
};

export const rtc: DeviceCase = {
  ...{ type: 'rtc', driver: 'virtio_rtc', option: 'VIRTIO_RTC' },
  shape: { queues: 1, config: 0 },
  frontEnd: 'QEMU’s wants a queue for alarms, which this clock has not',
  options: () => [],
  async use(bench) {
    const before = Date.now();
    const done = await bench.shell(
      `cd /sys/class/ptp
for type in 4 2; do
  clock=$(basename $(dirname $(grep -l "^Virtio PTP type $type/" */clock_name)))
  ask-device clock /dev/$clock
  ask-device clock /dev/$clock
done`,
    );
    const after = Date.now();
    if (!done.ok) return done;
    const [utc = 0n, later = 0n, ran = 0n, on = 0n] = done.value.trim().split('\n').map(BigInt);
    const within = utc >= BigInt(before) * 1_000_000n && later < BigInt(after + 1) * 1_000_000n;
    if (!within || later < utc || ran === 0n || on <= ran) return wrong('clocks', { ...done, before, after });
    if ((await fact(bench, 'reads')) !== 4) return wrong('reads', await bench.ask('facts'));
    return ok('both clocks read as /dev/ptp: this machine’s time, and one that only goes forward');
  },
};

/** A socket of CAN_RAW for socat: family 29, type 3, protocol 1, and the address behind the family: interface and ids. */
const CAN_SOCKET = `n=$(printf '%08x' $(cat /sys/class/net/can0/ifindex) | sed 's/\\(..\\)\\(..\\)\\(..\\)\\(..\\)/\\4\\3\\2\\1/')
address=x0000\${n}0000000000000000`;

export const can: DeviceCase = {
  ...{ type: 'can', driver: 'virtio_can', option: 'CAN_VIRTIO_CAN' },
  shape: { queues: 3, config: 2 },
  frontEnd: NONE,
  options: () => [],
  async use(bench) {
    const sent = await bench.shell(
      `modprobe can_raw
ip link set can0 up
${CAN_SOCKET}
echo -ne '\\x23\\x01\\x00\\x00\\x04\\x00\\x00\\x00\\xde\\xad\\xbe\\xef\\x00\\x00\\x00\\x00' >/tmp/frame
( timeout 20 socat -u -b 16 SOCKET-DATAGRAM:29:3:1:$address,bind=$address - >/tmp/heard & )
sleep 1
socat -u -b 16 -t 3 /tmp/frame SOCKET-DATAGRAM:29:3:1:$address,bind=$address
for i in $(seq 50); do [ $(wc -c </tmp/heard) -ge 32 ] && break; sleep 0.2; done
hexdump -v -e '16/1 "%02x" "\\n"' /tmp/heard
cat /sys/class/net/can0/statistics/tx_packets /sys/class/net/can0/statistics/rx_packets`,
      90,
    );
    if (!sent.ok) return sent;
    // What this machine sent comes back once it is on the bus, and then what the other node repeats.
    const frame = '2301000004000000deadbeef00000000';
    if (sent.value !== `${frame}\n${frame}\n1\n1\n`)
      return wrong('frames', { ...sent, facts: await bench.ask('facts') });
    const heard = await bench.ask('hear 7ff 0102');
    if (!heard.ok) return heard;
    const third = await bench.shell(
      `for i in $(seq 50); do [ $(wc -c </tmp/heard) -ge 48 ] && break; sleep 0.2; done
tail -c 16 /tmp/heard | hexdump -v -e '16/1 "%02x" "\\n"'
ip link set can0 down && ip link set can0 up && ip link set can0 down
rm /tmp/heard /tmp/frame`,
    );
    if (!third.ok) return third;
    if (third.value !== 'ff070000020000000102000000000000\n') return wrong('frame', third);
    if ((await fact(bench, 'refused')) !== 0) return wrong('refused', await bench.ask('facts'));
    return ok('a frame sent and repeated by another node, one heard; the controller stopped and started');
  },
};

export const spi: DeviceCase = {
  ...{ type: 'spi', driver: 'spi_virtio', option: 'SPI_VIRTIO' },
  shape: { queues: 1, config: 32 },
  frontEnd: { driver: 'vhost-user-spi-pci' },
  stays: 'spi_virtio has no remove: Linux 7.2 follows a null pointer when its device is let go or unplugged',
  options: () => [],
  async use(bench) {
    const done = await bench.shell(
      `modprobe chip-on-spi
cd /sys/bus/spi
chip=$(ls devices | grep '\\.0$')
echo spidev >devices/$chip/driver_override
echo $chip >drivers/spidev/bind
ask-device spi /dev/spidev\${chip#spi}
echo -n 12345678 >/dev/spidev\${chip#spi}
rmmod chip-on-spi`,
    );
    if (!done.ok) return done;
    if (done.value !== '256\n') return wrong('transfer', done.value);
    if ((await fact(bench, 'bytes')) !== 264) return wrong('bytes', await bench.ask('facts'));
    return ok('a chip on the bus: 256 bytes each way at once through spidev, the same; 8 one way');
  },
};
