import type { ErrorCatalogue } from '@airlock/core/result.ts';

/** Why bytes could not be read as what they claim to be. Whether evidence is good is told by checks (docs/checks.md). */
export const EVIDENCE_ERRORS = {
  'der-truncated': 'A DER element says that it is longer than what holds it (X.690 §8.1.3).',
  'der-not-canonical':
    'Encoded in a way that DER forbids: indefinite or overlong length, padded integer, loose boolean (X.690 §10, §11).',
  'der-unexpected-tag': 'A DER element is not of the type that stands there.',
  'der-trailing-bytes': 'Something follows where the structure ends.',
  'der-too-large': 'A DER structure is larger or nested deeper than Airlock reads.',
  'der-value-invalid': 'A DER value is outside of what its type or its place permits.',
  'pem-invalid': 'A PEM block is not closed, is not base64, or holds nothing.',
  'certificate-invalid': 'Not an X.509 version 3 certificate as RFC 5280 §4 describes it.',
  'crl-invalid': 'Not an X.509 version 2 revocation list as RFC 5280 §5 describes it.',
  'snp-report-invalid': 'Not an SEV-SNP attestation report (AMD 56860, ATTESTATION_REPORT).',
  'snp-certificate-table-invalid': 'The certificate table of an extended report contradicts itself (AMD 56421, GHCB).',
  'vcek-extension-invalid': 'A VCEK or VLEK lacks one of AMD’s extensions, or it has a wrong form (AMD 57230).',
  'tdx-quote-invalid':
    'Not a TDX quote of version 4 or 5, or its sizes contradict each other (Intel DCAP, Appendix A.3).',
  'pck-extension-invalid': 'A PCK certificate lacks Intel’s SGX extension, or it has a wrong form.',
  'collateral-invalid': 'Intel collateral (TCB info, QE identity, their wrapper) does not have the documented form.',
  'json-invalid': 'Not JSON, or nested too deep, or a name stands twice in one object.',
  'tpm-structure-invalid':
    'A TPM structure (TPMS_ATTEST, TPMT_SIGNATURE) ends too early or has a value that is not permitted.',
  'tpm-refused': 'The TPM answered a command with an error: the code is the TPM’s own (TPM 2.0 Part 2 §6.6).',
  'event-log-invalid': 'Not a TCG event log in the crypto agile format (TCG PC Client PFP §10.2).',
  'hcl-report-invalid': 'Not the report of Azure’s paravisor: marker, sizes or runtime data are wrong.',
  'quote-wrapper-invalid':
    'A file that wraps a TPM quote lacks a part, or a part is not in the form that it should be.',
  'nvidia-report-invalid':
    'Not an SPDM 1.1 measurement report of an NVIDIA device, or its sizes contradict each other (DSP0274 1.1.2 §10.11).',
  'rim-invalid': 'Not an NVIDIA reference integrity manifest (ISO/IEC 19770-2:2015, TCG RIM).',
  'xml-invalid':
    'Not XML in the plain form that manifests have: a DTD, an entity, a comment, a processing instruction, characters beyond ASCII, nested too deep.',
  'xml-signature-invalid':
    'Not one enveloped XML signature over the whole document, canonical XML 1.1, ECDSA (XMLDSig 1.1).',
  'ocsp-invalid': 'Not a basic OCSP response, or one that answers nothing (RFC 6960 §4.2).',
  'cbor-invalid': 'Not CBOR with definite lengths, or nested too deep, or a name stands twice in one map (RFC 8949).',
  'cose-invalid': 'Not a COSE_Sign1 with an algorithm that is accepted (RFC 9052 §4.2).',
  'se-exchange-invalid':
    'Not an answered IBM Secure Execution request in pvattest’s form, or its sizes contradict each other.',
  'se-header-invalid': 'Not the header of an IBM Secure Execution image.',
  'corim-invalid': 'Not a CoRIM, or a CoMID in it does not have the form of draft-ietf-rats-corim.',
  'references-invalid':
    'Reference values in the plain form have an unknown key, a wrong version, or a value that is not hex.',
  'cca-token-invalid': 'Not an Arm CCA token, or a claim is missing or has a wrong form (Arm RMM specification, A7.2).',
  'file-too-large': 'A file is larger than any evidence is.',
  'file-too-crowded':
    'A file holds more things, or more JSON members, than are looked at: what came after is not known.',
  'bundle-invalid':
    'Not the evidence of one machine in the form that `airlock evidence collect` writes (docs/evidence.md, Machines).',
  'collateral-bundle-invalid':
    'Not what `airlock collateral bundle` writes, or a file in it is not the one that its digest says.',
  'cmw-invalid':
    'Not a conceptual message wrapper: a record of type, value and indicator, or a collection of them (RFC 9999).',
  'ear-key-invalid': 'Not a private key that attestation results can be signed with.',
  'verifier-gone': 'A thread of a verifier pool ended, or the pool was closed, before it answered.',
  'file-not-recognised': 'The file is no evidence, certificate, revocation list or collateral that Airlock knows.',
} as const satisfies ErrorCatalogue;

export type EvidenceErrorCode = keyof typeof EVIDENCE_ERRORS;
