import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const LAB_ERRORS = {
  'lab-unsupported': 'The lab boots x86-64 guests and needs an x86-64 Linux machine with QEMU in the cache.',
  'lab-cache': 'A part of the cache (tools, a kernel) is missing and could not be fetched.',
  'lab-build': 'A guest image (initramfs, root disk) could not be built; the message holds what the program said.',
  'lab-interrupted': 'The run was interrupted; its guests are gone.',
  'device-start': 'A device server of the lab did not begin to listen; the message holds its last words.',
  'guest-start': 'QEMU did not start; the message holds its first complaint.',
  'guest-exited': 'QEMU ended while the guest was still needed.',
  'guest-panic': "The guest's kernel panicked; the message holds the line.",
  'guest-timeout': 'The guest did not become ready, or a command in it did not end, in time.',
  'guest-command': 'A command that the lab needs failed in the guest.',
  'guest-answer': 'The guest answered with something that is not what was asked for.',
  'channel-command': 'The command is too long for the channel, or holds a NUL.',
  'channel-closed': "The guest's command channel is closed.",
  'qmp-closed': "QEMU's control socket is closed.",
  'qmp-malformed': 'QEMU sent something that is not QMP.',
  'qmp-refused': 'QEMU refused a QMP command; the message holds its class and words.',
  'qmp-timeout': 'QEMU did not answer a QMP command, or did not send an event, in time.',
  'device-bench-failed':
    'A device that was plugged into a guest of the lab was not bound, or what was done with it did not come out right.',
} as const satisfies ErrorCatalogue;
