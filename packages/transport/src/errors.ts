import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const TRANSPORT_ERRORS = {
  'netlink-timeout': 'The kernel did not answer a question over netlink in time.',
  'uevent-malformed':
    'A message on the uevent socket does not have the form `ACTION@PATH\\0KEY=VALUE\\0…`; it was dropped.',
  'uevent-too-large': 'A message on the uevent socket is longer than the kernel ever sends; it was dropped.',
  'system-calls-missing': 'System calls are out of reach (koffi is not installed for this platform, or not Linux).',
  'system-call-failed': 'The kernel refused a system call; the message names the call and the errno.',
  'socket-path-invalid': 'The path of a Unix socket is empty, longer than 107 bytes, or holds a NUL.',
  'socket-path-taken': 'Where a Unix socket was to be made there is something else, or a socket that is in use.',
  'socket-refused': 'Nobody listens on the Unix socket.',
  'socket-wrong-type': 'The Unix socket is of another type (stream, seqpacket) than was asked for.',
  'socket-busy': 'Too many connections already wait on the Unix socket.',
  'socket-closed': 'The other end of the Unix socket is gone.',
  'descriptors-exhausted': 'This process has no file descriptor left.',
  'descriptors-cut':
    'A message carried more descriptors than agreed, or than this process has room for; all were closed.',
  'control-malformed': 'A message carried control data that is not descriptors with bytes; all were closed.',
  'message-cut': 'A message on a packet socket is longer than agreed; it was dropped.',
  'message-too-large': 'A message to be sent has more bytes or descriptors than one message can carry.',
  'memory-not-sealed':
    'A peer shares memory that it could shrink while it is in use, which would kill this process; it is not mapped.',
  'memory-size-invalid': 'A stretch of shared memory is not within its file, or its size is no size.',
  'reactor-running': 'A reactor was started by one of its own handlers.',
  'reactor-stuck': 'A reactor of a test has nothing left to do, and was not stopped.',
  'vfio-user-header-invalid':
    'A vfio-user message has a length, type or flag that no message has; the connection ends.',
  'vfio-user-body-invalid':
    'The body of a vfio-user message has a wrong size or contradicts itself; the connection ends.',
  'vfio-user-version-invalid': 'A vfio-user client speaks another major version, or its version message is malformed.',
  'vfio-user-out-of-order': 'A vfio-user message came before VERSION, VERSION came twice, or a reply answers nothing.',
  'vfio-user-descriptors': 'A vfio-user message came with more, or fewer, file descriptors than it may have.',
  'vfio-user-cut-off': 'A vfio-user client went away within a message.',
  'vfio-user-gone': 'The vfio-user client is gone.',
  'vfio-user-not-reading': 'A vfio-user client does not read what it is sent.',
  'vfio-user-not-offered': 'A vfio-user client asked for a command that the server does not offer.',
  'vfio-user-no-such-region':
    'A vfio-user client asked for a region, interrupt or place that the function does not have.',
  'vfio-user-dma-refused': 'A range of DMA memory, or a transfer by message, was refused.',
  'vfio-user-stealth-unsure':
    'A vfio-user client does not read configuration space as QEMU 11 does: it may emulate what the function owns.',
  'uring-unavailable': 'io_uring is switched off, forbidden, or not in this kernel; I/O has to go another way.',
  'sandbox-handshake': 'A device process and the process that started it did not agree on closing the sandbox.',
  'vduse-missing': 'The kernel offers no VDUSE here: no /dev/vduse/control, or no right to open it.',
  'vduse-name-invalid': 'The name of a VDUSE device is empty, too long, or has letters that no file name should have.',
  'vduse-refused': 'The kernel refused a VDUSE device, or a call of one; the message names it and the errno.',
  'vduse-broken':
    'The kernel gave a VDUSE device up because a request was not answered in time; only a new device helps.',
  'vdpa-refused':
    'The kernel did not attach a device to the vdpa bus, or did not take it off; the message has its errno.',
  'vduse-type-unknown': 'VDUSE needs a device type that VIRTIO numbers.',
  'notify-refused': 'The service manager did not take the message that NOTIFY_SOCKET asks for.',
} as const satisfies ErrorCatalogue;

/** What a vhost-user front-end or back-end got wrong. */
export const VHOST_USER_ERRORS = {
  'vhost-user-closed': 'The other side ended the connection between two messages.',
  'vhost-user-cut-off': 'The other side went away within a message.',
  'vhost-user-version': 'A header has another protocol version than 1; the connection ends.',
  'vhost-user-flags': 'A header has flags that mean nothing, or says that a request is a reply; the connection ends.',
  'vhost-user-too-large': 'A header announces a payload that no message has; the connection ends.',
  'vhost-user-not-reading': 'The other side does not read what it is sent; the connection ends.',
  'vhost-user-unknown': 'The number of a request is that of no message.',
  'vhost-user-unsupported': 'The message asks for something that this side does not do and did not offer.',
  'vhost-user-not-negotiated': 'The message needs a protocol feature that was not agreed on.',
  'vhost-user-protocol-features': 'Protocol features were accepted that are not on offer.',
  'vhost-user-payload-size': 'A payload does not have the size of its message.',
  'vhost-user-payload-invalid': 'A payload has a value that its message forbids.',
  'vhost-user-descriptors': 'A message came with more or fewer descriptors than belong to it, or with others.',
  'vhost-user-no-queue': 'A message names a queue that the device does not have.',
  'vhost-user-order': 'A message came at a time when it must not: a queue runs, or something is not known yet.',
  'vhost-user-inflight-invalid': 'The record of requests in flight does not fit the queues, or contradicts itself.',
  'vhost-user-too-many-problems': 'A front-end gets so much wrong that no more of it is told.',
  'vhost-user-kick-broken':
    'The descriptor by which the driver wakes a queue failed; the queue is looked at at intervals.',
  'vhost-user-reply-late': 'The back-end did not answer in time; it is not asked again.',
  'vhost-user-reply-invalid': 'An answer is not the one that was asked for, or has a value that no answer has.',
  'vhost-user-refused': 'The back-end says that it could not do what it was told.',
  'vhost-user-reconnect-loses':
    'The back-end died with requests in flight, and no record of them was kept; going on would lose them.',
  'vhost-user-queue-broken': 'The back-end says that a queue is broken.',
  'driver-pool-empty': 'A driver’s bounce pool has no free slice for a request.',
  'driver-request-invalid': 'A driver’s request does not fit its queue.',
  'driver-request-failed': 'The device answered a request with an error.',
  'driver-reply-short': 'The device says that a request succeeded, and wrote less than the answer has.',
  'driver-timeout': 'The device did not complete a request in time.',
  'driver-queue-broken': 'A queue broke a rule and takes no more requests.',
  'vhost-user-call-broken': 'The descriptor by which the driver is woken failed; it gets no notifications.',
} as const satisfies ErrorCatalogue;
