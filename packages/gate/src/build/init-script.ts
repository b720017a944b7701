/**
 * The gate's /init: a few lines of shell that busybox runs, because QuickJS can neither mount nor replace itself by
 * another program. It holds no decision: what it does is the same on every machine.
 */
import type { Mode } from '@airlock/policy/policy.ts';

/** What the initramfs is made by, as far as the gate must know to hand over. */
export type InitramfsKind = 'initramfs-tools' | 'systemd' | 'other';

/** One mount(8) for all: each start of a program costs some 10 ms under emulation. */
export const MOUNT_TABLE = `proc /proc proc nosuid,nodev,noexec 0 0
sysfs /sys sysfs nosuid,nodev,noexec 0 0
tmpfs /run tmpfs nosuid,nodev,mode=0755 0 0
`;

export interface InitScriptOptions {
  readonly kind: InitramfsKind;
  /** `audit` and `learn` leave everything as it is. */
  readonly mode: Mode;
}

export function initScript(options: InitScriptOptions): string {
  const quiet =
    options.mode === 'enforce'
      ? `for bus in pci virtio vdpa usb; do
  [ ! -e /sys/bus/$bus/drivers_autoprobe ] || echo 0 >/sys/bus/$bus/drivers_autoprobe
done
`
      : '';
  return `#!/airlock/busybox sh
# Airlock's gate, before anything else in this machine. Made by "airlock gate initrd".
[ -e /proc/self ] || /airlock/busybox mount -a -T /airlock/mounts
${quiet}/airlock/gate "$@"
status=$?
if [ $status != 0 ]; then
  echo "airlock: !! the gate ended with $status: this machine is not started"
  echo "airlock: !! what it found is above; nothing was handed over"
  /airlock/busybox sleep 2
  /airlock/busybox poweroff -f
  while :; do /airlock/busybox sleep 3600; done
fi
[ ! -d /airlock/anchors ] || /airlock/busybox cp -R /airlock/anchors /run/airlock/
${HAND_OVER[options.kind]}exec /airlock/init "$@"
`;
}

/**
 * Before the real init runs. initramfs-tools mounts /proc, /sys and a new /run itself, which would complain about the
 * first two and hide the third: they are put out of its way, and AIRLOCK_INIT_TOP brings /run/airlock back.
 */
const HAND_OVER: Readonly<Record<InitramfsKind, string>> = {
  'initramfs-tools': `/airlock/busybox mkdir -p /airlock/run
/airlock/busybox mount --move /run /airlock/run
/airlock/busybox umount /sys /proc
`,
  systemd: '',
  other: '',
};

/** scripts/init-top/airlock of initramfs-tools, which runs once that /run is there. */
export const AIRLOCK_INIT_TOP = `#!/airlock/busybox sh
[ "$1" != prereqs ] || exit 0
/airlock/busybox mkdir -p /run/airlock
/airlock/busybox chmod 0700 /run/airlock
/airlock/busybox cp -a /airlock/run/airlock/. /run/airlock/
/airlock/busybox umount /airlock/run
`;

/** scripts/init-top/ORDER with the line above the others. */
export function withAirlockFirst(order: string): string {
  const ours = '/scripts/init-top/airlock "$@"\n';
  return order.startsWith(ours) ? order : `${ours}${order}`;
}
