import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const GATE_ERRORS = {
  'policy-missing': 'The initramfs holds no policy for the gate, or it cannot be read; the built-in fallback applies.',
  'policy-unusable': 'The policy in the initramfs has errors; the built-in fallback applies.',
  'sysfs-missing': 'There is no /sys: nothing can be decided, bound or read back, and the gate does not hand over.',
  'inventory-failed': 'The devices of this machine could not be listed.',
  'state-unwritable':
    'What the gate decided cannot be kept in /run/airlock, so only the boot-critical devices are connected.',
  'modprobe-missing': 'There is no modprobe that runs; only drivers that the kernel already has can be bound.',
  'modprobe-failed': 'modprobe did not load everything that was asked of it.',
  'enforcement-unsettled': 'Decisions and devices still differed after the last round; what differs is disconnected.',
  'gate-crashed': 'The gate itself failed; everything but boot-critical devices is disconnected.',
  'bind-refused': 'The kernel did not bind the driver that the decision asks for.',
  'cpio-malformed': 'The archive is not a well-formed cpio archive in the newc format.',
  'cpio-too-large': 'The archive, or one file or name in it, is larger than an initramfs can reasonably be.',
  'initrd-malformed': 'The initramfs is not a sequence of cpio archives, compressed or not.',
  'initrd-compression': 'The initramfs is compressed in a way that is not known, or its tool is missing.',
  'initrd-without-init': 'The initramfs has no /init that the gate could hand over to.',
  'initrd-anchor-missing': 'A file that a rule names in `roots` or `measurements` does not lie beside the policy.',
  'kernel-missing': 'There is no kernel of that version or at that path, or its modules are missing.',
  'module-missing': 'The kernel has no such module.',
  'policy-refused': 'The policy has errors, so no initramfs was made.',
  'build-tool-missing': 'qjsc, libquickjs.a, busybox or a C compiler is missing.',
  'build-failed': 'The gate could not be bundled, compiled or linked.',
} as const satisfies ErrorCatalogue;

export { AGENT_ERRORS } from './agent/errors.ts';
