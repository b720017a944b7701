/** Every check that Airlock makes of evidence, from which docs/checks.md is generated. */

export interface CheckEntry {
  /** What must hold, in one sentence. */
  readonly rule: string;
  /** Where that is written. */
  readonly reference: string;
  /** What to do where it does not hold. */
  readonly hint?: string;
  /** May be allowed to fail (`airlock verify --allow ID`): a matter of policy, not of whether the evidence is genuine. */
  readonly waivable?: true;
}

const ENTRIES = {
  'chain.path': {
    rule: 'The certificates lead from the signer to a vendor root.',
    reference: 'RFC 5280 §6.1',
    hint: 'give the certificate that is missing as another file',
  },
  'chain.root': {
    rule: 'The last certificate holds one of the vendor’s root keys, whose SHA-384 digests are part of Airlock.',
    reference: 'docs/evidence.md, Roots',
    hint: 'a chain that ends elsewhere proves nothing about the vendor; take the chain from the vendor, not from the host',
  },
  'chain.signature': {
    rule: 'Each certificate is signed with the key of the next.',
    reference: 'RFC 5280 §6.1.3 (a)(1)',
    hint: 'the certificate was altered, or belongs to another issuer of the same name',
  },
  'chain.validity': {
    rule: 'Each certificate is valid on the date.',
    reference: 'RFC 5280 §6.1.3 (a)(2)',
    hint: 'check the date (--as-of), or fetch the certificate anew',
  },
  'chain.authority': {
    rule: 'Each issuer is allowed to issue certificates, at this depth of the chain.',
    reference: 'RFC 5280 §6.1.4 (k) to (n)',
  },
  'chain.extensions': {
    rule: 'No critical extension is unknown, and the signer’s key may sign.',
    reference: 'RFC 5280 §6.1.4 (o), §4.2.1.3',
  },
  'chain.revocation': {
    rule: 'No certificate of the chain is on its issuer’s revocation list.',
    reference: 'RFC 5280 §6.3',
    hint: 'give the issuer’s revocation list as another file',
  },
  'chain.revocation-list': {
    rule: 'The revocation list is signed by the issuer and current on the date.',
    reference: 'RFC 5280 §5, §6.3.3',
    hint: 'fetch a current list, or check the date (--as-of)',
  },
  'freshness.nonce': {
    rule: 'The evidence covers the nonce that the verifier chose.',
    reference: 'RFC 9334 §10',
    hint: 'without a nonce of your own, old evidence or another machine’s can be shown to you: give --nonce',
  },

  'launch.measurement': {
    rule: 'What was launched is what the verifier expects (SNP MEASUREMENT, TDX MRTD).',
    reference: 'RFC 9334 §8.3, reference values',
    hint: 'genuine hardware runs any guest: give the digest of yours with --measurement',
  },

  'snp.version': { rule: 'The report’s version is one of 2 to 5.', reference: 'AMD 56860, ATTESTATION_REPORT' },
  'snp.signer': {
    rule: 'The report says which key signed it, and the certificate is for that kind of key.',
    reference: 'AMD 56860, SIGNING_KEY, MASK_CHIP_KEY',
    hint: 'give the VCEK or VLEK certificate of this report as another file',
  },
  'snp.signature': {
    rule: 'The report is signed with the certificate’s key (ECDSA P-384, SHA-384, bytes 0 to 0x29f).',
    reference: 'AMD 56860, ATTESTATION_REPORT, SIGNATURE',
    hint: 'the report was altered, or the certificate belongs to another chip or another TCB',
  },
  'snp.product': {
    rule: 'Report, certificate and root are of the same product.',
    reference: 'AMD 57230, productName; AMD 56860, CPUID_FAM_ID',
  },
  'snp.chip-id': {
    rule: 'The certificate’s hardware id is the report’s CHIP_ID.',
    reference: 'AMD 57230, hwID',
    hint: 'the certificate is another chip’s: fetch that of this CHIP_ID',
  },
  'snp.tcb.certificate': {
    rule: 'The certificate is for the TCB that the report states (REPORTED_TCB).',
    reference: 'AMD 57230, SPL extensions',
    hint: 'fetch the certificate for this TCB',
  },
  'snp.tcb.order': {
    rule: 'REPORTED_TCB, COMMITTED_TCB and LAUNCH_TCB are not above CURRENT_TCB.',
    reference: 'AMD 56860, TCB_VERSION',
  },
  'snp.tcb.committed': {
    rule: 'The running firmware is committed: the host cannot go back to an older one.',
    reference: 'AMD 56860, SNP_COMMIT',
  },
  'snp.tcb.minimum': {
    rule: 'REPORTED_TCB is at least what the verifier asks for.',
    reference: 'docs/evidence.md, Requirements',
    hint: 'the machine’s firmware must be brought up to date by its owner',
    waivable: true,
  },
  'snp.policy.debug': {
    rule: 'The guest policy forbids the host to debug the guest.',
    reference: 'AMD 56860, POLICY bit 19',
    hint: 'with DEBUG the host reads and writes the guest’s memory: launch the guest without it',
    waivable: true,
  },
  'snp.policy.migration': {
    rule: 'The guest policy permits no migration agent.',
    reference: 'AMD 56860, POLICY bit 18',
    hint: 'a migration agent can move the guest’s secrets to another machine',
    waivable: true,
  },
  'snp.vmpl': {
    rule: 'The report was asked for from the privilege level that the verifier expects.',
    reference: 'AMD 56860, VMPL',
  },
  'snp.bits': {
    rule: 'Bits that this version of Airlock has no name for are zero.',
    reference: 'AMD 56860, POLICY, PLATFORM_INFO, reserved fields',
  },

  'tdx.header': {
    rule: 'The quote is of version 4 or 5, for a TD, signed with ECDSA P-256 by Intel’s quoting enclave.',
    reference: 'Intel DCAP, Appendix A.3.1',
  },
  'tdx.size': {
    rule: 'The quote ends where its size fields say.',
    reference: 'Intel DCAP, Appendix A.3',
  },
  'tdx.signature': {
    rule: 'Header and TD report are signed with the attestation key.',
    reference: 'Intel DCAP, Appendix A.3.8',
    hint: 'the quote was altered after it was made',
  },
  'tdx.attestation-key': {
    rule: 'The quoting enclave’s report vouches for the attestation key: REPORTDATA is SHA-256(key || authentication data).',
    reference: 'Intel DCAP, Appendix A.3.9',
  },
  'tdx.qe-signature': {
    rule: 'The quoting enclave’s report is signed with the platform’s PCK.',
    reference: 'Intel DCAP, Appendix A.3.9',
  },
  'tdx.collateral': {
    rule: 'TCB info and QE identity for this platform were given.',
    reference: 'Intel PCS API v4, /tcb and /qe/identity',
    hint: 'fetch the collateral of this FMSPC and give it as files, or with --collateral DIR',
    waivable: true,
  },
  'tdx.collateral-signature': {
    rule: 'TCB info and QE identity are signed by Intel’s TCB signing key.',
    reference: 'Intel PCS API v4',
    hint: 'the collateral was altered, or its signing chain is not the one given',
  },
  'tdx.collateral-date': {
    rule: 'TCB info and QE identity are current on the date.',
    reference: 'Intel PCS API v4, issueDate, nextUpdate',
    hint: 'fetch current collateral, or check the date (--as-of)',
  },
  'tdx.collateral-platform': {
    rule: 'TCB info is for TDX, for this FMSPC and PCE.',
    reference: 'Intel PCS API v4, fmspc, pceId',
    hint: 'fetch the TCB info of the quote’s own FMSPC',
  },
  'tdx.module': {
    rule: 'The TDX module is Intel’s, with the attributes that TCB info asks for.',
    reference: 'Intel PCS API v4, tdxModule, tdxModuleIdentities',
  },
  'tdx.qe-identity': {
    rule: 'The quoting enclave is the one that Intel’s identity describes.',
    reference: 'Intel PCS API v4, enclaveIdentity',
  },
  'tdx.tcb.level': {
    rule: 'A TCB level of TCB info matches the platform.',
    reference: 'Intel PCS API v4, Get TDX TCB Info, comparison of TCB levels',
    hint: 'the platform is older than everything Intel still describes, or TCB info is another platform’s',
  },
  'tdx.tcb.revoked': {
    rule: 'Neither platform, module nor quoting enclave is revoked.',
    reference: 'Intel PCS API v4, tcbStatus Revoked',
  },
  'tdx.tcb.status': {
    rule: 'Platform, module and quoting enclave are up to date.',
    reference: 'Intel PCS API v4, tcbStatus',
    hint: 'the machine’s owner must bring firmware, microcode or TDX module up to date',
    waivable: true,
  },
  'tdx.debug': {
    rule: 'The TD is not under debug.',
    reference: 'Intel TDX module, TDATTRIBUTES bit 0',
    hint: 'with DEBUG the host reads the TD’s memory: launch the TD without it',
    waivable: true,
  },
  'tdx.attributes': {
    rule: 'Bits of TDATTRIBUTES that weaken the TD, or that this version of Airlock has no name for, are zero.',
    reference: 'Intel TDX module, TDATTRIBUTES',
    waivable: true,
  },
  'tdx.event-log': {
    rule: 'Replaying the event log gives the quote’s RTMRs.',
    reference: 'Intel GHCI, CCEL; TCG PC Client PFP §10',
    hint: 'the log was altered, is not whole, or is another machine’s',
  },

  'nvidia.signature': {
    rule: 'The report is signed with the device’s key (ECDSA P-384, request and response).',
    reference: 'DSP0274 1.1.2 §10.11.1',
    hint: 'the report was altered, or the certificate chain is another device’s',
  },
  'nvidia.size': {
    rule: 'The report ends where its size fields say.',
    reference: 'DSP0274 1.1.2 §10.11.1',
  },
  'nvidia.fwid': {
    rule: 'The firmware that the certificate names is the one that the report states (FWID).',
    reference: 'TCG DICE, composite device id; NVIDIA attestation SDK',
    hint: 'the device runs other firmware than it was certified with',
  },
  'nvidia.distinct': {
    rule: 'No two reports are of one device.',
    reference: 'docs/evidence.md, NVIDIA',
    hint: 'one device is shown as several: ask each for evidence of its own',
  },
  'nvidia.reference': {
    rule: 'NVIDIA’s manifests (RIM) of the device’s driver and VBIOS were given; of a switch that of its BIOS.',
    reference: 'NVIDIA RIM; TCG Reference Integrity Manifest',
    hint: 'genuine devices run any firmware: fetch the manifests from NVIDIA’s RIM service and give them as files, or with --collateral DIR',
    waivable: true,
  },
  'nvidia.rim.signature': {
    rule: 'The manifest is signed as a whole (XMLDSig, canonical XML 1.1) by its signer, whose chain leads to NVIDIA’s root of manifests.',
    reference: 'W3C XMLDSig 1.1; NVIDIA RIM',
    hint: 'the manifest was altered: fetch it anew',
  },
  'nvidia.measurement': {
    rule: 'Every measurement that a manifest lists as active has one of the values that it lists.',
    reference: 'NVIDIA RIM, Payload; DSP0274 1.1.2 §10.11.1',
    hint: 'the device runs firmware or a driver that NVIDIA did not publish under this version, or is configured in another way',
  },

  'cca.platform-signature': {
    rule: 'The platform token is signed with the platform’s key (CPAK).',
    reference: 'Arm RMM specification, A7.2.3',
    hint: 'give the platform’s public key (JWK or PEM) with --platform-key',
  },
  'cca.key': {
    rule: 'The platform’s key is one that the verifier trusts.',
    reference: 'draft-ydb-rats-cca-endorsements',
    hint: 'give a key that you had from the platform’s maker yourself with --platform-key',
  },
  'cca.realm-signature': {
    rule: 'The realm token is signed with the key that it states (RAK).',
    reference: 'Arm RMM specification, A7.2.2',
  },
  'cca.binding': {
    rule: 'The platform vouches for the realm’s key: its challenge is the key’s digest.',
    reference: 'Arm RMM specification, A7.2.3.1',
    hint: 'platform and realm token are of different machines',
  },
  'cca.lifecycle': {
    rule: 'The platform is in its secured state: nobody debugs it.',
    reference: 'Arm RMM specification, A7.2.3.2, cca-platform-lifecycle',
  },

  'se.request': {
    rule: 'The response answers the verifier’s own request: it opens with the verifier’s request protection key.',
    reference: 's390-tools, pvattest; attestation request control block',
    hint: 'give the key that pvattest create wrote (--arpk) with --se-key; a response proves something only to who asked',
  },
  'se.host-key': {
    rule: 'Every key that the request was sealed for is that of a host key document of IBM’s: no other machine can open it.',
    reference: 's390-tools, pvattest create --host-key-document; attestation request control block, key slots',
    hint: 'give the host key documents that the request was made with, and the certificates and revocation lists that belong to them',
  },
  'se.host-key-signature': {
    rule: 'The host key document is signed by IBM’s key signing service.',
    reference: 's390-tools, host key documents',
    hint: 'give the certificate of IBM’s key signing service as another file',
  },
  'se.host-key-validity': {
    rule: 'The host key document is valid on the date.',
    reference: 'RFC 5280 §6.1.3 (a)(2)',
    hint: 'fetch the document of this machine anew, or check the date (--as-of)',
  },
  'se.host-key-revocation': {
    rule: 'Revocation lists of the key signing service and of its issuer were given, and are current.',
    reference: 'RFC 5280 §6.3; s390-tools, --crl',
    hint: 'fetch the lists that the certificates name, and give them as other files',
    waivable: true,
  },
  'se.host-key-revoked': {
    rule: 'The host key document is on no revocation list of IBM’s.',
    reference: 'RFC 5280 §6.3',
    hint: 'IBM withdrew this host key: do not trust the machine',
  },
  'se.host-key-answered': {
    rule: 'The machine that answered, where it says which it is, is one of the host key documents.',
    reference: 's390-tools, pvattest, additional data phkh-att',
    hint: 'another machine answered than one whose document was given',
  },
  'se.measurement': {
    rule: 'The measurement is the HMAC under the request’s key over the expected image, configuration id, user data, nonce and additional data.',
    reference: 's390-tools, attestation measurement',
    hint: 'give the header of the image that should run (pvextract-hdr) as another file; else the guest runs another image',
  },
  'se.additional': {
    rule: 'The additional data is what the request’s flags asked for.',
    reference: 's390-tools, attestation flags',
  },

  'tpm.attested': {
    rule: 'The quote was made by a TPM: its magic is TPM_GENERATED and its type a quote.',
    reference: 'TPM 2.0 Part 2 §10.12.8',
  },
  'tpm.signature': {
    rule: 'The quote is signed with the attestation key.',
    reference: 'TPM 2.0 Part 3 §18.4',
    hint: 'the quote was altered, or the key is another TPM’s',
  },
  'tpm.key': {
    rule: 'A trusted report vouches for the TPM’s attestation key, or the verifier trusts it.',
    reference: 'TCG EK Credential Profile; docs/evidence.md, TPM',
    hint: 'the key came with the quote: anybody can make such a pair; give the report that vouches for it, or a key that you know with --key',
  },
  'tpm.pcrs': {
    rule: 'The PCR values that were given are those that the quote covers.',
    reference: 'TPM 2.0 Part 2 §10.12.1, pcrDigest',
    hint: 'values were altered, or belong to another moment',
  },
  'tpm.event-data': {
    rule: 'Where an event’s digest is that of its data (variables, actions, separators, GRUB’s commands), it is. Told, and rejects nothing: digests are what is quoted.',
    reference: 'TCG PC Client PFP §10.4.1',
  },
  'tpm.event-log': {
    rule: 'Replaying the event log gives the quoted PCRs.',
    reference: 'TCG PC Client PFP §10',
    hint: 'the log was altered, is not whole, or is another machine’s',
  },
  'azure.runtime-data': {
    rule: 'REPORT_DATA of the SNP or TDX report is the digest of the runtime data, which holds the TPM’s key.',
    reference: 'Azure HCL report, HclRuntimeClaims',
    hint: 'the runtime data was altered, or belongs to another VM',
  },

  'spdm.version': {
    rule: 'The device speaks SPDM in the version that is asked for, or a later one.',
    reference: 'DSP0274 1.3, VERSION; what later versions sign is in docs/device-attestation.md',
    hint: 'its firmware is older than asked for, or somebody between took the later versions out of its answer',
  },
  'spdm.root-digest': {
    rule: 'The root digest in front of a slot’s chain is that of the root that the chain leads to.',
    reference: 'DSP0274 1.3, Certificate chain format, RootHash',
    hint: 'the chain was put together from parts of different slots or devices',
  },
  'spdm.chain-order': {
    rule: 'A slot’s chain goes from the root to the leaf, each certificate issued by the one before it.',
    reference: 'DSP0274 1.3, Certificate chain format, Certificates',
  },
  'spdm.leaf-key': {
    rule: 'The leaf certificate’s key is of the algorithm that was negotiated.',
    reference: 'DSP0274 1.3, Leaf certificate, subject public key info',
  },
  'spdm.leaf-usage': {
    rule: 'The leaf certificate is no authority and its key may make digital signatures.',
    reference: 'DSP0274 1.3, Leaf certificate, key usage and basic constraints',
  },
  'spdm.leaf-purpose': {
    rule: 'The leaf certificate’s extended key usage permits a responder to authenticate with it.',
    reference: 'DSP0274 1.3, Leaf certificate, id-DMTF-eku-responder-auth',
    hint: 'the certificate is for something else than the identity of a device',
    waivable: true,
  },
  'spdm.hardware-identity': {
    rule: 'The hardware identity stands where the chain’s model has it: in the leaf of a device chain, above an alias leaf.',
    reference: 'DSP0274 1.3, Identity provisioning, id-DMTF-hardware-identity',
  },
  'spdm.challenge': {
    rule: 'The device signed the challenge: CHALLENGE_AUTH verifies over everything that was exchanged.',
    reference: 'DSP0274 1.3 §10.9',
    hint: 'the answer was altered or replayed, or the device does not have the key of its certificate',
  },
  'spdm.measurements': {
    rule: 'The device signed its measurements, with the nonce of this request.',
    reference: 'DSP0274 1.3 §10.11',
    hint: 'the measurements were altered, are older than the request, or come from another device',
  },
  'cma.name': {
    rule: 'The leaf certificate names the PCI function that it is for.',
    reference: 'PCIe 6.1 §6.31.3, Subject Alternative Name',
    hint: 'without such a name a genuine device of the same maker can stand in for this one',
    waivable: true,
  },
  'cma.function': {
    rule: 'The PCI function that the leaf certificate names is the one that was asked.',
    reference: 'PCIe 6.1 §6.31.3, Subject Alternative Name',
    hint: 'the answer came from another device, or the function shows other ids than it has',
  },
  'measurement.value': {
    rule: 'A measurement has one of its reference values.',
    reference: 'RFC 9334 §8.3, reference values',
    hint: 'the device runs other firmware or another configuration than the reference describes',
  },
  'measurement.present': {
    rule: 'Every measurement that has a reference value was reported.',
    reference: 'RFC 9334 §8.3, reference values',
    hint: 'the device left out what it should have measured',
  },
  'measurement.listed': {
    rule: 'Every measurement that was reported has a reference value.',
    reference: 'RFC 9334 §8.3, reference values',
    hint: 'nobody vouches for this measurement: add its reference value, or say that others may stand there',
    waivable: true,
  },
  'measurement.references-used': {
    rule: 'Every reference value was compared with something.',
    reference: 'docs/device-attestation.md, Reference values',
    hint: 'the reference values are perhaps those of another device',
  },
  'measurement.device-mode': {
    rule: 'The device is in its normal mode and nobody debugs it.',
    reference: 'DSP0274 1.3 §10.11.1, device mode field of a measurement block',
    hint: 'who debugs the device reads what it is given',
    waivable: true,
  },
  'tdisp.answer': {
    rule: 'The device speaks TDISP in a session, and every answer is the one that was asked for.',
    reference: 'PCIe 6.1 §11.3; DSP0274 1.3, VENDOR_DEFINED_REQUEST',
    hint: 'see docs/device-attestation.md, Interfaces: in a VM the host’s TSM has the session, and the device may know the function by its address on the host',
  },
  'tdisp.session': {
    rule: 'The key that authenticated the session in which the interface answered is the one that signed the device’s evidence.',
    reference: 'PCIe 6.1 §11.3.1; docs/device-attestation.md, Interfaces',
    hint: 'one device says who it is, and another one is locked',
  },
  'tdisp.function': {
    rule: 'What was recorded is of the function that is asked about.',
    reference: 'PCIe 6.1 §11.3.2, FUNCTION_ID',
    hint: 'the report of another function says nothing about this one',
  },
  'tdisp.state': {
    rule: 'The interface goes through its states as it is led, and stays in none that it was not led to.',
    reference: 'PCIe 6.1 §11.2, TDI state machine',
    hint: 'a device in ERROR noticed that something of the lock was changed: stop it, see what the host does, and lock it anew',
  },
  'tdisp.nonce': {
    rule: 'Each lock of the interface is answered with another nonce.',
    reference: 'PCIe 6.1 §11.3.9, START_INTERFACE_NONCE',
    hint: 'a start for an earlier lock would pass for a later one',
  },
  'tdisp.stopped': {
    rule: 'An interface that was locked to be looked at is unlocked again.',
    reference: 'docs/device-attestation.md, Interfaces',
    hint: 'the device keeps the lock of a session that is over: reset the function',
  },
  'tdisp.record': {
    rule: 'The interface that a machine shows is the one that the device’s evidence records, with its state, nonce and report.',
    reference: 'docs/evidence.md, Machines',
    hint: 'two moments, or two devices, were put together: collect anew',
  },
  'tdisp.report': {
    rule: 'A locked interface gives its report, in the form of the standard.',
    reference: 'PCIe 6.1 §11.3.11, DEVICE_INTERFACE_REPORT',
  },
  'tdisp.ranges': {
    rule: 'Each range of the interface report lies within one memory BAR of the function.',
    reference: 'PCIe 6.1 §11.3.11, MMIO_RANGE',
    hint: 'the host moved the function’s registers elsewhere, or reports another function',
  },
  'tdisp.overlap': {
    rule: 'No two ranges of the interface report share a page.',
    reference: 'PCIe 6.1 §11.3.11, MMIO_RANGE',
  },
  'tdisp.coverage': {
    rule: 'Every page of the function’s memory BARs is in the interface report.',
    reference: 'PCIe 6.1 §11.3.11, MMIO_RANGE',
    hint: 'a driver must not use pages outside the report for anything secret',
    waivable: true,
  },
  'tdisp.non-tee': {
    rule: 'No range is open to accesses from outside the confidential VM.',
    reference: 'PCIe 6.1 §11.3.11, IS_NON_TEE_MEM',
    hint: 'the host can read and write these registers while the device runs',
    waivable: true,
  },
  'tdisp.msix': {
    rule: 'MSI-X table and PBA lie in ranges that are marked as such, and nothing else does.',
    reference: 'PCIe 6.1 §11.3.11, MSI-X table and PBA attributes, MSI_X_MESSAGE_CONTROL',
  },
  'tdisp.registers': {
    rule: 'LNR and TPH control of the report are those of the function.',
    reference: 'PCIe 6.1 §11.3.11, LNR_CONTROL, TPH_CONTROL',
  },
  'tdisp.features': {
    rule: 'The report announces only what the function has: PASID, ATS, page requests.',
    reference: 'PCIe 6.1 §11.3.11, INTERFACE_INFO',
  },
  'tdisp.no-update': {
    rule: 'The device’s firmware cannot be changed while the interface is locked.',
    reference: 'PCIe 6.1 §11.3.8, NO_FW_UPDATE',
    hint: 'firmware that is changed after the measurement was never measured',
    waivable: true,
  },
  'tdisp.config': {
    rule: 'The function’s configuration is the same after the lock as before.',
    reference: 'PCIe 6.1 §11.2.6, configuration that the lock holds',
  },

  'policy.platform': {
    rule: 'The evidence states what platform.attestation of the policy asks for.',
    reference: 'docs/policy.md, Platform',
    hint: 'the machine is not one that the policy accepts: another product, older firmware, or a guest launched otherwise',
  },

  'reference.present': {
    rule: 'Where reference values were given, some are for this kind of evidence.',
    reference: 'RFC 9334 §8.3; docs/evidence.md, Reference values',
    waivable: true,
  },
  'reference.used': {
    rule: 'Reference values for a kind of evidence that was not shown are told.',
    reference: 'RFC 9334 §8.3; docs/evidence.md, Reference values',
    hint: 'show evidence of that kind too, or leave the reference values out',
  },
  'reference.value': {
    rule: 'The evidence states every value of one set of its kind.',
    reference: 'RFC 9334 §8.3; docs/evidence.md, Reference values',
    hint: 'something else was launched or started than what the reference values are of',
  },
  'reference.endorsed': {
    rule: 'What an endorsement says of evidence like this is told. It decides nothing.',
    reference: 'draft-ietf-rats-corim, endorsed values, conditional endorsement series',
  },
  'reference.unread': {
    rule: 'Everything in a file of reference values is read. What is not is told.',
    reference: 'draft-ietf-rats-corim, triples and tags',
  },
  'reference.signature': {
    rule: 'A signed CoRIM is signed with a key that the verifier trusts.',
    reference: 'draft-ietf-rats-corim, signed-corim; RFC 9052 §4.2',
    hint: 'give the maker’s public key with --reference-key; without a key the file is believed because it was given',
  },
  'reference.validity': {
    rule: 'The reference values are valid on the date.',
    reference: 'draft-ietf-rats-corim, validity-map',
    hint: 'get current reference values, or check the date (--as-of)',
  },

  'machine.vm': {
    rule: 'The evidence of the VM itself is there and accepted.',
    reference: 'docs/evidence.md, Machines',
    hint: 'see what rejects it above',
  },
  'machine.binding': {
    rule: 'The VM’s evidence covers the nonce and the evidence of every device: REPORT_DATA, or the data of a TPM quote, is the digest over all of them.',
    reference: 'docs/evidence.md, Machines; RFC 9334 §3.2',
    hint: 'device evidence that the VM does not vouch for can be any machine’s: collect it all at once (airlock evidence collect --nonce)',
  },
  'machine.device': {
    rule: 'The evidence of each device is accepted.',
    reference: 'docs/evidence.md, Machines',
  },
  'machine.nonce': {
    rule: 'The evidence of each device covers the nonce that the verifier chose.',
    reference: 'docs/evidence.md, Machines; RFC 9334 §10',
    hint: 'the device was asked at another time, or by another: collect anew',
  },
  'machine.distinct': {
    rule: 'No device is shown under two names.',
    reference: 'docs/evidence.md, Machines',
    hint: 'one device is shown as several: ask each for evidence of its own',
  },
  'machine.relay': {
    rule: 'No other machine shows the device.',
    reference: 'docs/evidence.md, Machines',
    hint: 'one of the two machines passes on what the other’s device signs: trust neither with it until it is bound by TDISP',
  },
  'machine.lock': {
    rule: 'A locked interface was locked by the platform’s TSM, as the VM’s own kernel says.',
    reference: 'PCIe 6.1 §11.1, TSM; docs/evidence.md, Machines',
    hint: 'a session that the guest makes itself can be relayed, and lets no device into private memory',
  },
  'machine.launch': {
    rule: 'The VM that says so is a confidential one and runs what the verifier expects.',
    reference: 'docs/evidence.md, Machines',
    hint: 'any guest can write down that its device is locked: say what should run with --measurement or --reference',
  },
  'machine.tdisp': {
    rule: 'A device that is locked to this VM is started (TDISP RUN).',
    reference: 'PCIe 6.0 §11.2, TDI state machine',
  },
  'machine.interface': {
    rule: 'The interface report of a locked device fits the function that the VM sees.',
    reference: 'PCIe 6.0 §11.3.11, DEVICE_INTERFACE_REPORT',
  },
  'machine.tier': {
    rule: 'Each device’s identity is of the tier that the verifier asks for.',
    reference: 'docs/evidence.md, Machines',
    hint: 'what is said there keeps it from a higher tier',
    waivable: true,
  },
} as const satisfies Readonly<Record<string, CheckEntry>>;

export type CheckId = keyof typeof ENTRIES;

export const CHECKS: Readonly<Record<CheckId, CheckEntry>> = ENTRIES;
