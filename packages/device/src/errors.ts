import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const DEVICE_MODEL_ERRORS = {
  'device-option-invalid': 'An option of `airlock device serve` has a value that the type of device cannot use.',
  'disk-not-usable': 'What is to be served as a disk is no regular file or block device that can be opened.',
  'disk-size-invalid': 'The size of a disk is not a multiple of its block size, or it is empty.',
  'disk-block-size-invalid': 'The file behind a disk cannot be read in blocks as small as was asked for.',
  'disk-in-use': 'Another program has the image open as a disk, and two of them would destroy it.',
  'disk-stuck': 'The disk did not end its requests within the time that the end of a queue waits for it.',
  'pci-bar-invalid':
    'A BAR of a PCI function has a size that is no power of two, or stands where another does (PCIe 6.0 §7.5.1.2.1).',
  'pci-capability-misplaced':
    'A capability of a PCI function does not fit where it is to stand, or lacks one that it needs (PCIe 6.0 §7.5, §7.6).',
  'pci-virtual-functions-invalid':
    'More SR-IOV virtual functions than there can be, or a virtual function that is to have some of its own (PCIe 6.0 §9.3).',
  'sriov-not-placed':
    'A guest enabled virtual functions whose memory is elsewhere than where the firmware put it and the VMM has it: they do not answer.',
  'serve-event-invalid': 'A device process told something that is no event; the line was dropped.',
  'device-process-died': 'A device process ended by a signal or with an error of its own.',
  'sandbox-failed':
    'A layer of the sandbox that this machine permits did not come about; the device is not served without it.',
  'device-control-invalid':
    'A word on the control socket of a device that it does not know, or that it cannot follow now.',
  'device-defect': 'A device process met a state that its code should have made impossible.',
  'share-not-usable': 'What is to be shared is no folder, or none that this process can read.',
  'net-tap-refused':
    'The kernel does not give the TAP: there is none of that name for this user, or another process uses it.',
} as const satisfies ErrorCatalogue;
