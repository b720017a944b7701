import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const SPDM_ERRORS = {
  'signing-key-invalid': 'A file is no private key in PEM or PKCS #8.',
  // Messages and the state of a connection, DSP0274.
  'message-malformed': 'An SPDM message has another version, code or size than its place demands, or a reserved value.',
  'message-unexpected': 'An SPDM message is no answer to what was asked, or does not fit the state of the connection.',
  'message-too-large': 'An SPDM message is larger than the other side takes, or than Airlock reads.',
  'message-wrong-channel': 'A message came outside of the session that it belongs to, or within one that it does not.',
  'peer-error': 'The other side answered with ERROR; the message names its code.',
  'peer-busy': 'The other side was busy as often as it is asked.',
  'peer-not-ready': 'The other side was not ready in the time that it asked for, or asked for more than it is given.',
  'chunk-invalid': 'A large message did not come in consecutive chunks of the size that was announced.',
  'version-unacceptable': 'The responder speaks no version of SPDM that is accepted here.',
  'capability-missing': 'The other side lacks a capability that what was asked for needs.',
  'algorithms-unacceptable':
    'The responder selected an algorithm that was not offered, none where one is needed, or several.',
  'slot-empty': 'The certificate slot holds no chain.',
  'chain-digest-mismatch':
    'A certificate chain is not the one whose digest was told in DIGESTS or in a signed message.',
  'leaf-key-unsuitable': 'The leaf certificate’s key is none of the negotiated algorithm.',
  'signature-wrong': 'A signature does not verify over the messages that were exchanged.',
  'context-mismatch': 'A signed answer does not carry the requester’s context: it answers another request.',
  'slot-mismatch': 'A signed answer is of another certificate slot than was asked.',
  'verify-data-wrong': 'The MAC over the handshake does not verify: the two ends do not hold the same keys.',
  'exchange-data-invalid': 'The other side’s ExchangeData are no key of the negotiated group, or no ciphertext.',
  'measurements-invalid': 'A measurement record contradicts itself or what was asked for.',
  'state-wrong': 'Something was asked for before what it needs was done.',
  'session-refused': 'The other side asked for something in a session’s set-up that is not given.',
  // Transports: DOE, MCTP, TCP.
  'doe-object-invalid': 'Not a DOE data object: header, length or reserved bits are wrong (PCIe 6.1 §6.30.1).',
  'doe-object-too-large': 'A DOE data object is larger than what is read or than what the format can say.',
  'doe-discovery-invalid': 'The answer to DOE discovery contradicts itself or never ends (PCIe 6.1 §6.30.1.1).',
  'doe-unsupported': 'No DOE mailbox of this function offers the data object type.',
  'doe-cancelled': 'Whoever asked does not wait for the answer any more; the mailbox was aborted.',
  'doe-busy': 'The DOE mailbox stays busy: somebody else uses it, or the device is stuck.',
  'doe-error': 'The DOE mailbox reports an error and did not take or give the data object.',
  'doe-timeout': 'The DOE mailbox gave no answer within the time that it has.',
  'doe-gone': 'The function answers all ones: it was removed, is in reset, or is powered down.',
  'doe-answer-invalid': 'What came out of the DOE mailbox is no answer to what was put in.',
  'mctp-message-invalid': 'Not an MCTP message of a type that carries SPDM (DSP0275, DSP0276).',
  'tcp-message-invalid': 'Not a message of the SPDM over TCP binding (DSP0287).',
  'tcp-message-too-large':
    'A message does not fit into the TCP binding’s length field, or is larger than what is read.',
  'tcp-refused': 'The other side refused with an error message of the TCP binding (DSP0287).',
  'emulator-frame-invalid': 'Not a frame of the socket protocol that DMTF’s emulator and QEMU’s spdm_port speak.',
  // Secured messages.
  'record-invalid': 'Not a secured message: a length in it contradicts the bytes that are there (DSP0277 §9).',
  'record-too-large': 'The application data does not fit into one secured message.',
  'record-session-unknown': 'A secured message is of another session.',
  'record-out-of-order':
    'The sequence number of a secured message is not the next one: dropped, repeated or reordered.',
  'record-forged': 'A secured message does not verify: altered, out of order, or protected with other keys.',
  'record-exhausted': 'As many secured messages were protected with one key as may be (DSP0277, AEAD limit).',
  'session-closed': 'The session ended; nothing more is protected or believed in it.',
  'secured-opaque-invalid':
    'The opaque data of the key exchange does not select a version of secured messages (DSP0277 §8).',
  // Protocols of the PCI-SIG within a session.
  'pci-protocol-invalid': 'Not a vendor-defined message of the PCI-SIG (PCIe 6.1 §6.31.3).',
  'tdisp-message-invalid': 'Not a TDISP message, or its length or a reserved field is wrong (PCIe 6.1 §11.3).',
  'tdisp-version-unsupported': 'The device speaks no TDISP version that Airlock does.',
  'tdisp-unexpected': 'A TDISP answer is not the one that was asked for, or is for another interface.',
  'tdisp-refused': 'The device answered a TDISP request with TDISP_ERROR; the message names its code.',
  'tdisp-state': 'The TDISP interface is not in the state in which this can be done, or left it by itself.',
  'tdisp-in-use':
    'A driver uses the function, so its interface is not locked: the lock would break what the driver does.',
  'tdisp-report-invalid': 'Not a TDISP device interface report, or it contradicts itself (PCIe 6.1 §11.3.11).',
  'ide-km-message-invalid': 'Not an IDE_KM message, or its length is wrong (PCIe 6.1 §6.33.3).',
  'ide-km-unexpected':
    'An IDE_KM answer is not the one that was asked for: other stream, sub-stream, direction or port.',
  'ide-km-refused': 'The device did not take an IDE key; the message names its status.',
  // Links and evidence.
  'link-refused': 'Nobody listens at that address, or nobody lets us in.',
  'link-timeout': 'The other side did not answer within the time that SPDM allows and some more.',
  'link-cancelled': 'Whoever asked was interrupted and asks no more; what was locked is unlocked first.',
  'link-closed': 'The connection broke, was closed, or brought something that nobody asked for.',
  'nothing-signed': 'The device signs neither challenges nor measurements, so nothing about it can be proven.',
  'device-evidence-invalid':
    'Not evidence of a device as `airlock device attest --save` writes it, or its parts contradict each other.',
  'profile-invalid': 'The profile of a responder is not in the form that `airlock spdm respond --help` describes.',
  // Identity.
  'certificate-chain-invalid':
    'Not an SPDM certificate chain: its length, root digest or certificates are wrong (DSP0274, certificate chain format).',
  'reference-values-invalid': 'The reference values are not in the form that docs/evidence.md describes.',
} as const satisfies ErrorCatalogue;

export type SpdmErrorCode = keyof typeof SPDM_ERRORS;
