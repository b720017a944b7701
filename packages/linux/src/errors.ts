import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const LINUX_ERRORS = {
  'file-missing': 'The file or directory is not there (ENOENT, ENOTDIR, or ENODEV on read: the device has gone).',
  'file-denied': 'The kernel refused access (EACCES, EPERM).',
  'file-refused': 'The kernel refused the value written; the message holds the errno (ENODEV, EBUSY, EINVAL, …).',
  'file-too-large': 'The file is longer than this attribute can be; nothing of it was used.',
  'file-timeout': 'The read or write did not end in time: the device or the kernel holds it.',
  'file-not-regular': 'A pipe, socket or device node stands where a file belongs; it was not opened for reading.',
  'file-io': 'Any other error of reading or writing; the message holds the errno.',
  'write-forbidden':
    'This program may not write there: only the gate (process 1) or an agent with --enforce may change /sys and /proc.',
  'attribute-malformed': 'The attribute does not hold what the kernel documents for it.',
  'attribute-contradiction': 'Two attributes of one device cannot both be true.',
  'name-malformed': 'The kernel gives no device such a name; the device is shown and nothing of it was read.',
  'sysfs-missing': 'There is no /sys/bus: sysfs is not mounted, or this is not Linux.',
  'bus-unreadable': 'The devices of a bus could not be listed, so the inventory would hide some.',
  'inventory-too-large': 'A bus has more devices than any known machine; the inventory was given up, not cut short.',
  'probe-no-window':
    'The virtio function has no window into its registers (a legacy one, or a wrong one), so what it offers is unknown until it is bound.',
  'probe-malformed': 'The virtio capabilities in configuration space cannot be; the device was not probed.',
  'probe-lied': 'The device does not give back what was written through its window; nothing that it said was used.',
  'config-too-short': 'Configuration space ends before the register: it is shown whole to CAP_SYS_ADMIN only.',
  'config-locked-down': 'The kernel is locked down and forbids writes to PCI configuration space, also to root.',
  'doe-absent': 'The function has no DOE mailbox, so it cannot be asked who it is over PCI Express.',
  'device-unknown': 'No device of this machine has that id, address, kernel name or interface.',
  'device-ambiguous': 'More than one device goes by that name; use the id.',
  'tsm-report-refused': 'configfs-tsm gave no report, or answers in a form that its documentation does not have.',
  'tsm-report-raced': 'Somebody else wrote to the same configfs-tsm entry, so that the report may be of other data.',
  'command-missing': 'There is no such program on this machine, or it cannot be run.',
  'command-timeout': 'The program did not end in time and was killed.',
  'command-too-loud': 'The program wrote more than it may and was killed.',
} as const satisfies ErrorCatalogue;
