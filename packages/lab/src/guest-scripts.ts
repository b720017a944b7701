/** The shell scripts that make the lab's guest: ordinary busybox, so that what it sees owes nothing to Airlock. */
import { CHANNEL_SCRIPT } from './channel.ts';
import { VIEW_SCRIPT } from './view.ts';

/**
 * The first program of the initramfs (with the gate: the second). Where no gate ran it does what any distribution's
 * does: loads a driver for everything it finds. Then the root disk, found by its serial number.
 */
export const INITRAMFS_INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin
mounted() { grep -q " $1 " /proc/mounts; }
[ -e /proc/mounts ] || { mkdir -p /proc; mount -t proc proc /proc; }
mounted /sys || { mkdir -p /sys; mount -t sysfs sysfs /sys; }
mounted /dev || { mkdir -p /dev; mount -t devtmpfs devtmpfs /dev; }
mounted /run || { mkdir -p /run; mount -t tmpfs -o mode=0755 tmpfs /run; }
if [ ! -e /run/airlock/gate.json ]; then
  # Twice: devices on the virtio bus appear once their PCI function has its driver.
  for round in 1 2; do
    find /sys/devices -name modalias | xargs cat | sort -u | xargs modprobe -a -q -b
  done
fi
modprobe -q ext4
tries=0
while :; do
  for disk in /sys/block/vd*; do
    [ "$(cat $disk/serial 2>/dev/null)" = root ] && root=/dev/\${disk##*/}
  done
  [ -n "$root" ] && break
  tries=$((tries + 1))
  [ $tries -lt 100 ] || { echo 'lab: no root disk' >/dev/console; poweroff -f; }
  sleep 0.1
done
mkdir -p /root
mount -t ext4 -o ro,noload $root /root || { echo 'lab: root disk not mounted' >/dev/console; poweroff -f; }
for folder in proc sys dev run; do mount --move /$folder /root/$folder; done
exec switch_root /root /sbin/init
`;

/** The guest's init, on the root disk. */
export const GUEST_INIT = `#!/bin/busybox sh
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root TERM=linux
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /var
mkdir -p /var/lib /var/log
mount -t securityfs securityfs /sys/kernel/security # the firmware's event log is there
hostname lab
if [ -e /run/airlock/gate.json ]; then
  # That it ended, and how, is seen from outside. A device that was too slow for a busy machine is asked again.
  grep -q lab.agent=off /proc/cmdline ||
    (airlock agent run --enforce --every 1m >/run/agent.log 2>&1; echo $? >/run/agent.exit) &
else
  # What udev does on any machine: a driver for whatever appears.
  uevent /etc/lab/on-uevent &
fi
# A shell for a person, on a line of its own.
(
  stty -F /dev/ttyS2 sane 115200
  while :; do
    setsid sh -c 'exec sh -l <>/dev/ttyS2 >&0 2>&1'
    sleep 1
  done
) &
# The channel lives in memory: what it says must not depend on the root disk.
mkdir -p /run/lab/bin
cp /bin/busybox /etc/lab/channel /etc/lab/view /run/lab/
for name in $(/run/lab/busybox --list); do ln -s ../busybox /run/lab/bin/$name; done
export PATH=/run/lab/bin:$PATH
# Not process 1 itself: that hears of every orphan's end, and busybox's read starts over when it does.
exec /run/lab/busybox sh -c 'sh /run/lab/channel & wait $!; poweroff -f'
`;

export const ON_UEVENT = `#!/bin/busybox sh
[ "$ACTION" = add ] && [ -n "$MODALIAS" ] && exec /sbin/modprobe -q -b "$MODALIAS"
exit 0
`;

export const PROFILE = `export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root
PS1='lab:\\w# '
`;

export { CHANNEL_SCRIPT };

/** The view as a program of the guest. */
export const VIEW_PROGRAM = `#!/bin/busybox sh${VIEW_SCRIPT}`;
