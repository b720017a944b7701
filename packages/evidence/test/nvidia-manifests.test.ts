import assert from 'node:assert/strict';
import { createHash, sign } from 'node:crypto';
import { test } from 'node:test';
import { nodeCrypto } from '../src/node-crypto.ts';
import { biosVersion, readNvidiaReport } from '../src/nvidia/report.ts';
import { type Rim, readRim } from '../src/nvidia/rim.ts';
import { type NvidiaInput, verifyNvidia } from '../src/nvidia/verify.ts';
import { recognise } from '../src/recognise.ts';
import { issue, must, rootOf, signer } from './support/authority.ts';
import { integer, join, octets, oid, sequence } from './support/der.ts';
import { type RimOptions, rimRoots, rimText } from './support/rim-maker.ts';

const crypto = nodeCrypto();
const root = signer('NVIDIA Device Identity CA');
const device = signer('GH100 A01 GSP FMC LF');
const firmware = createHash('sha384').update('firmware').digest();
const leaf = issue({
  subject: device,
  issuer: root,
  keyUsage: 0x80,
  extensions: [
    {
      oid: '2.23.133.5.4.1',
      value: sequence(
        integer(0),
        device.spki,
        sequence(oid('2.16.840.1.101.3.4.2.2'), octets(new Uint8Array(firmware))),
      ),
    },
  ],
});
const rootCertificate = issue({ subject: root, issuer: root, authority: {}, keyUsage: 6 });
const u16 = (value: number) => Uint8Array.of(value & 0xff, value >> 8);
const of = (byte: number) => new Uint8Array(48).fill(byte);
const block = (index: number, value: Uint8Array) =>
  join(Uint8Array.of(index, 1), u16(value.length + 3), Uint8Array.of(1), u16(value.length), value);
const field = (number: number, value: Uint8Array) => join(u16(number), u16(value.length), value);
const VBIOS = Uint8Array.of(0x00, 0x74, 0x00, 0x96, 0x20, 0, 0, 0);
const GPU = join(field(3, Buffer.from('550.1\0')), field(6, VBIOS), field(20, new Uint8Array(firmware)));

function reportOf(values: readonly Uint8Array[], opaque = GPU) {
  const record = join(...values.map((value, i) => block(i + 1, value)));
  const signed = join(
    ...[Uint8Array.of(0x11, 0xe0, 1, 0xff), new Uint8Array(32).fill(9), Uint8Array.of(0)],
    ...[Uint8Array.of(0x11, 0x60, 0, 0, values.length), u16(record.length), Uint8Array.of(0), record],
    ...[new Uint8Array(32), u16(opaque.length), opaque],
  );
  const signature = new Uint8Array(sign('sha384', signed, { key: device.key, dsaEncoding: 'ieee-p1363' }));
  return must(readNvidiaReport(join(signed, signature)));
}
const rim = (options: RimOptions = {}): Rim => must(readRim(Buffer.from(rimText(options))));
const DRIVER = rim({ measurements: [{ index: 0, values: [of(1)] }] });
const BIOS = rim({ version: '96.00.74.00.20', measurements: [{ index: 1, values: [of(7), of(2)] }] });

function verify(rims: readonly Rim[], more: Partial<NvidiaInput> = {}) {
  const appraisal = verifyNvidia({
    crypto,
    report: reportOf([of(1), of(2)]),
    certificates: [rootCertificate, leaf],
    asOf: Date.parse('2026-01-01'),
    roots: [rootOf(root)],
    rims,
    rimRoots,
    ...more,
  });
  const failed = appraisal.checks.filter(({ status }) => status === 'failed');
  return { ...appraisal, failed: failed.map(({ id }) => id), found: failed.map(({ found }) => found).join('; ') };
}

test('driver and VBIOS manifests that fit accept a device', () => {
  assert.deepEqual(verify([DRIVER, BIOS]).failed, []);
  assert.equal(verify([DRIVER, BIOS]).verdict, 'accepted');
});

test('without a manifest, or with that of another version or chip, nothing says that the firmware is NVIDIA’s', () => {
  assert.deepEqual(verify([]).failed, ['nvidia.reference']);
  assert.match(verify([DRIVER]).found, /not given: VBIOS 96\.00\.74\.00\.20/);
  assert.deepEqual(verify([DRIVER, rim({ version: '96.00.74.00.21' })]).failed, ['nvidia.reference']);
  assert.deepEqual(verify([DRIVER, rim({ version: '96.00.74.00.20', product: 'GB100' })]).failed, ['nvidia.reference']);
});

test('a GPU that states no driver is no switch: its driver’s manifest is missed', () => {
  const silent = reportOf([of(1), of(2)], join(field(6, VBIOS), field(20, new Uint8Array(firmware))));
  const judged = verify([DRIVER, BIOS], { report: silent });
  assert.deepEqual([judged.verdict, judged.failed, judged.kind], ['rejected', ['nvidia.reference'], 'nvidia-gpu']);
  assert.match(judged.found, /driver \?/);
});

test('names of algorithms are those of algorithms only', () => {
  for (const name of ['constructor', 'toString', '__proto__'])
    for (const method of [/xmldsig-more#sha384/, /xmldsig-more#ecdsa-sha384/]) {
      const text = rimText({ signedInfo: (xml) => xml.replace(new RegExp(`"[^"]*${method.source}"`), `"${name}"`) });
      const read = readRim(Buffer.from(text));
      assert.equal(read.ok ? 'ok' : read.error.code, 'xml-signature-invalid');
    }
});

test('a measurement that no alternative has is refused, also where its block is not there', () => {
  const other = verify([DRIVER, BIOS], { report: reportOf([of(1), of(3)]) });
  assert.deepEqual(other.failed, ['nvidia.measurement']);
  assert.match(other.found, /1 \(VBIOS, Measurement_1\): 0303.*none of 2/);
  assert.deepEqual(verify([DRIVER, BIOS], { report: reportOf([of(1)]) }).failed, ['nvidia.measurement']);
  const allowed = verify([DRIVER, BIOS], {
    report: reportOf([of(1), of(3)]),
    allowed: new Set(['nvidia.measurement']),
  });
  assert.equal(allowed.verdict, 'rejected');
});

test('what is not active is not compared; what two manifests claim is refused', () => {
  const idle = rim({
    version: '96.00.74.00.20',
    measurements: [
      { index: 1, values: [of(2)] },
      { index: 0, active: false, values: [of(9)] },
    ],
  });
  assert.deepEqual(verify([DRIVER, idle]).failed, []);
  const both = rim({ version: '96.00.74.00.20', measurements: [{ index: 0, values: [of(1)] }] });
  assert.match(verify([DRIVER, both]).found, /0 stands in both manifests/);
});

test('measurement 35 is left out only when the report says that the video decoder is off', () => {
  const values = Array.from({ length: 36 }, (_, i) => of(i + 1));
  const wanted = rim({
    measurements: [
      { index: 0, values: [of(1)] },
      { index: 35, values: [of(99)] },
    ],
  });
  const withStatus = (status: number) => reportOf(values, join(GPU, field(11, Uint8Array.of(status))));
  assert.deepEqual(verify([wanted, BIOS], { report: withStatus(0x55) }).failed, []);
  assert.deepEqual(verify([wanted, BIOS], { report: withStatus(0xaa) }).failed, ['nvidia.measurement']);
  assert.deepEqual(verify([wanted, BIOS], { report: reportOf(values) }).failed, ['nvidia.measurement']);
});

test('measurements that no manifest lists are told', () => {
  const appraisal = verify([DRIVER, BIOS], { report: reportOf([of(1), of(2), of(3), of(0), of(5)]) });
  const noted = appraisal.checks.filter(({ id, status }) => id === 'nvidia.measurement' && status === 'noted');
  assert.match(noted[0]?.found ?? '', /measurements 2, 4,/);
  assert.deepEqual(appraisal.failed, []);
});

test('a switch needs the manifest of its BIOS alone', () => {
  const ls10 = signer('LS_10 A01 FSP FMC LF');
  const certificate = issue({ subject: ls10, issuer: root, keyUsage: 0x80 });
  const opaque = join(field(6, Buffer.from('96.10.55.00.01\0')), field(22, of(1).subarray(0, 8)));
  const report = reportOf([of(1)], opaque);
  const appraisal = verify([rim({ product: 'LS10', version: '96.10.55.00.01' })], {
    report,
    certificates: [rootCertificate, certificate],
  });
  // The report is signed by the other device here: what matters is which manifests are asked for.
  assert.deepEqual(appraisal.failed, ['nvidia.signature']);
  assert.equal(appraisal.kind, 'nvidia-switch');
  assert.deepEqual(appraisal.claims['switch-pdi'], ['01'.repeat(8)]);
});

test('versions are told as manifests name them', () => {
  assert.equal(biosVersion(VBIOS), '96.00.74.00.20');
  assert.equal(biosVersion(Buffer.from('96.10.5e.00.01\0')), '96.10.5E.00.01');
  assert.equal(biosVersion(Uint8Array.of(1, 2)), null);
});

test('manifests of another root, out of date, or whose signer is revoked, are refused', () => {
  assert.deepEqual(verify([DRIVER, BIOS], { rimRoots: [rootOf(root)] }).failed, ['chain.root', 'chain.root']);
  assert.ok(verify([DRIVER, BIOS], { asOf: Date.parse('2035-01-01') }).failed.includes('chain.validity'));
});

const text = rimText();
const attack = (edit: (xml: string) => string): Rim | null => {
  const read = readRim(Buffer.from(edit(text)));
  return read.ok ? read.value : null;
};
/** Not read, or read and then not believed. */
function isRefused(edit: (xml: string) => string): boolean {
  assert.notEqual(edit(text), text, 'the attack changes nothing');
  const found = attack(edit);
  return found === null || verify([found, BIOS]).failed.some((id) => id.startsWith('nvidia.'));
}

test('nothing of a manifest can change', () => {
  assert.equal(verify([must(readRim(Buffer.from(text))), BIOS]).verdict, 'accepted');
  assert.ok(isRefused((xml) => xml.replace('ns2:Hash0="01', 'ns2:Hash0="02')));
  assert.ok(isRefused((xml) => xml.replace('active="True"', 'active="False"')));
  assert.ok(isRefused((xml) => xml.replace('tagId="1234"', 'tagId="1235"')));
  for (let at = 0; at < text.length; at += 13) {
    const letter = text.charCodeAt(at);
    const edit = (xml: string) => xml.slice(0, at) + String.fromCharCode(letter ^ 1) + xml.slice(at + 1);
    // Of certificates behind the first, and of blanks within base64, nothing depends on the manifest’s signature.
    const read = attack(edit);
    if (read === null) continue;
    const appraisal = verify([read, BIOS]);
    const certificates = text.indexOf('<ds:X509Data>');
    if (at < certificates)
      assert.equal(appraisal.verdict, 'rejected', `character ${at}: ${edit(text).slice(at - 20, at + 20)}`);
  }
});

test('signatures are not wrapped: the signed element is the one that is read', () => {
  const signature = /<ds:Signature .*<\/ds:Signature>/s.exec(text)?.[0] ?? '';
  const payload = /<ns0:Payload>.*<\/ns0:Payload>/s.exec(text)?.[0] ?? '';
  const evil = payload.replaceAll('01', '05');
  const whole = text;
  const attacks: readonly ((xml: string) => string)[] = [
    // A second payload before or behind the signed one.
    (xml) => xml.replace(payload, `${evil}${payload}`),
    (xml) => xml.replace(payload, `${payload}${evil}`),
    // The signed document kept inside another, whose payload is read.
    () => `<SoftwareIdentity${whole.slice(17, whole.indexOf('>') + 1)}${evil}${whole}</SoftwareIdentity>`,
    // The signature moved to where another element is its parent.
    (xml) => xml.replace(signature, '').replace('</ns0:Payload>', `${signature}</ns0:Payload>`),
    // Two signatures, one of which is good.
    (xml) => xml.replace(signature, `${signature}${signature}`),
    (xml) => xml.replace('</ds:KeyInfo>', `</ds:KeyInfo><ds:Object>${evil}</ds:Object>`),
    (xml) => xml.replace('<ds:KeyInfo>', `<ds:KeyInfo>${signature}`),
    // Content smuggled in where the signature is left out of the digest.
    (xml) => xml.replace('</ds:Signature>', `${evil}</ds:Signature>`),
    (xml) => xml.replace('<ds:SignatureValue>', `${evil}<ds:SignatureValue>`),
    // The reference leads elsewhere.
    (xml) => xml.replace('URI=""', 'URI="#x"'),
    (xml) => xml.replace(' URI=""', ''),
    (xml) => xml.replace('URI=""', 'URI="" Type="x"'),
    // Weaker algorithms, more transforms, parameters.
    (xml) => xml.replace('xmldsig-more#ecdsa-sha384', 'xmldsig-more#hmac-sha384'),
    (xml) => xml.replace('2001/04/xmldsig-more#sha384', '2000/09/xmldsig#sha1'),
    (xml) => xml.replace('2006/12/xml-c14n11', 'TR/2001/REC-xml-c14n-20010315'),
    (xml) =>
      xml.replace(
        '</ds:Transforms>',
        '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/></ds:Transforms>',
      ),
    (xml) => xml.replace('<ds:KeyInfo>', '<ds:KeyInfo><ds:KeyValue/>'),
    // A default namespace that makes other names of the same letters.
    (xml) => xml.replace('<ns0:Payload>', '<ns0:Payload xmlns:ns0="urn:other">'),
    (xml) =>
      xml.replace(
        '<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">',
        '<ds:Signature xmlns:ds="urn:other">',
      ),
    // Entities and comments.
    (xml) => `<!DOCTYPE x [<!ENTITY e "05">]>${xml.replace('ns2:Hash0="01', 'ns2:Hash0="&e;')}`,
    (xml) => xml.replace('</ns0:Payload>', '<!-- --></ns0:Payload>'),
    (xml) => xml.replace('<ds:DigestValue>', '<ds:DigestValue><!-- -->'),
  ];
  for (const [i, edit] of attacks.entries()) assert.ok(isRefused(edit), `attack ${i}`);
});

test('a manifest that its signer made with another form is refused, though the signature is good', () => {
  for (const options of [
    { edit: (xml: string) => xml.replace('index="0"', 'index="256"') },
    { edit: (xml: string) => xml.replace('active="True"', 'active="true"') },
    { edit: (xml: string) => xml.replace('alternatives="1"', 'alternatives="2"') },
    { edit: (xml: string) => xml.replace('size="48"', 'size="32"') },
    { edit: (xml: string) => xml.replace('<ns0:Meta', '<ns0:Other') },
    { edit: (xml: string) => xml.replace('colloquialVersion="550.1"', '') },
    { edit: (xml: string) => xml.replace('active="True"', 'active="False"') },
    {
      measurements: [
        { index: 0, values: [of(1)] },
        { index: 0, values: [of(2)] },
      ],
    },
  ])
    assert.equal(readRim(Buffer.from(rimText(options))).ok, false);
  const elsewhere = rimText({ signedInfo: (xml) => xml.replace('URI=""', 'URI="#a"') });
  assert.equal(readRim(Buffer.from(elsewhere)).ok, false);
});

test('manifests are found out by what they hold, also in the JSON of the service', () => {
  const kinds = (text: string) => recognise('x', Buffer.from(text)).found.map(({ item }) => item.kind);
  assert.deepEqual(kinds(text), ['rim']);
  assert.deepEqual(kinds(JSON.stringify({ id: 'x', rim: Buffer.from(text).toString('base64') })), ['rim']);
  assert.equal(recognise('x', Buffer.from(text.slice(0, -20))).problems[0]?.code, 'xml-invalid');
});
