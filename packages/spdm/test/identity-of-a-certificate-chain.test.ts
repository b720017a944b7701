import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Check, createChecklist, verdictOf } from '@airlock/evidence/check.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { readTime } from '@airlock/evidence/time.ts';
import { readCertificate } from '@airlock/evidence/x509/certificate.ts';
import fc from 'fast-check';
import { revoke } from '../../evidence/test/support/authority.ts';
import { encodeCertificateChain, readCertificateChain } from '../src/certificate-chain.ts';
import { OID, readDeviceNames, readDmtfExtension, readPurposes } from '../src/identity/extensions.ts';
import { checkIdentity, type IdentityInput } from '../src/identity/identity.ts';
import { type PciIdentity, parsePciName, pciNameDifferences, pciNameText } from '../src/identity/pci-name.ts';
import {
  cmaName,
  cmaPart,
  type Device,
  deviceInfo,
  dmtf,
  makeDevice,
  names,
  octets,
  purposes,
  sequence,
  signer,
  spdmCrypto,
  uriPart,
} from './support/device-chain.ts';
import { evidencePath, missing } from './support/dump.ts';
import { codeOf, must } from './support/must.ts';

const x509 = nodeCrypto();
const asOf = readTime('2026-06-01') ?? 0;
const nvme: PciIdentity = {
  vendor: 0x1b36,
  device: 0x0010,
  class: 0x010802,
  revision: 2,
  subsystem: { vendor: 0x1af4, device: 0x1100 },
  serial: null,
};
const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';

const appraise = (device: Device, given: Partial<IdentityInput> = {}) => {
  const list = createChecklist();
  const identity = checkIdentity(list, {
    x509,
    spdm: spdmCrypto,
    chain: device.chain,
    hash: 'sha384',
    signature: 'ecdsa-p384',
    roots: [device.rootCertificate],
    asOf,
    revocation: { lists: [], required: false },
    model: 'device',
    function: nvme,
    ...given,
  });
  return { identity, checks: list.checks };
};
const failures = (checks: readonly Check[]) => checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
const statusOf = (checks: readonly Check[], id: string) => checks.find((check) => check.id === id)?.status;

test('a device with a whole chain, and one whose root is not in it', () => {
  for (const rootless of [false, true]) {
    const device = makeDevice({
      rootless,
      leaf: [cmaName(NAME), purposes(OID.responderAuth), dmtf(OID.hardwareIdentity)],
    });
    const { identity, checks } = appraise(device);
    assert.deepEqual(failures(checks), []);
    assert.equal(verdictOf(checks), 'accepted');
    assert.equal(must(identity).root?.name, 'Maker Root');
    assert.equal(must(identity).functionName, NAME);
    for (const id of ['spdm.leaf-purpose', 'spdm.hardware-identity', 'cma.function'])
      assert.equal(statusOf(checks, id), 'passed', id);
  }
});

test('older leaves without purposes, or with those of TLS beside what says that they are a device’s, are told and not refused', () => {
  const tls = purposes('1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2');
  for (const leaf of [
    [cmaName(NAME)],
    [cmaName(NAME), tls],
    [names(uriPart(NAME)), tls],
    [names(deviceInfo('ACME:WIDGET:1')), tls],
    [dmtf(OID.hardwareIdentity), tls],
  ]) {
    const { checks } = appraise(makeDevice({ leaf }), { function: null });
    assert.equal(statusOf(checks, 'spdm.leaf-purpose'), 'noted');
    assert.equal(verdictOf(checks), 'accepted');
  }
  const both = appraise(makeDevice({ leaf: [cmaName(NAME), purposes(OID.requesterAuth, OID.responderAuth)] }));
  assert.equal(statusOf(both.checks, 'spdm.leaf-purpose'), 'passed');
});

test('what only one device has is known by its certificates, whatever their keys', () => {
  const marks = (options: Parameters<typeof makeDevice>[0]) =>
    must(appraise(makeDevice(options), { function: null, model: null }).identity).marks;
  assert.deepEqual(marks({ leaf: [cmaName(NAME)] }), []);
  assert.deepEqual(marks({ leaf: [cmaName(`${NAME}:00aabbccddeeff01`)] }), [
    'the serial number 00aabbccddeeff01 of vendor 1b36',
  ]);
  assert.deepEqual(marks({ leaf: [names(deviceInfo('ACME:WIDGET:7'), deviceInfo('ACME:WIDGET'))] }), [
    'the name ACME:WIDGET:7',
  ]);
  const [hardware = ''] = marks({ leaf: [], middle: [dmtf(OID.hardwareIdentity)] });
  assert.match(hardware, /^the hardware identity [0-9a-f]{96}$/);
});

const hostile: readonly {
  readonly what: string;
  readonly device: () => Device;
  readonly given?: Partial<IdentityInput>;
  readonly fails: readonly string[];
}[] = [
  {
    what: 'leads to another root',
    device: () => makeDevice({ leaf: [cmaName(NAME)] }),
    given: { roots: [makeDevice().rootCertificate] },
    fails: ['chain.root'],
  },
  {
    what: 'leads to no root at all',
    device: () => makeDevice({ leaf: [cmaName(NAME)], rootless: true }),
    given: { roots: [] },
    fails: ['chain.path', 'spdm.root-digest'],
  },
  {
    what: 'has another root’s digest in front',
    device: () => makeDevice({ leaf: [cmaName(NAME)], digestOf: Uint8Array.of(1, 2, 3) }),
    fails: ['spdm.root-digest'],
  },
  {
    what: 'goes from the leaf to the root',
    device: () => {
      const straight = makeDevice({ leaf: [cmaName(NAME)] });
      const certificates = [...straight.chain.certificates];
      const [root = new Uint8Array(), middle = new Uint8Array()] = certificates;
      const bytes = encodeCertificateChain(spdmCrypto, '1.2', 'sha384', root, [middle, root, certificates[2] ?? root]);
      return { ...straight, chain: must(readCertificateChain(bytes, '1.2', 'sha384')) };
    },
    fails: ['spdm.chain-order'],
  },
  {
    what: 'has a certificate in it that belongs to nobody',
    device: () => {
      const other = makeDevice();
      return makeDevice({
        leaf: [cmaName(NAME)],
        arrange: ([a, b, c]) => [a, other.chain.certificates[1], b, c].filter((one) => one !== undefined),
      });
    },
    fails: ['spdm.chain-order'],
  },
  {
    what: 'expired',
    device: () => makeDevice({ leaf: [cmaName(NAME)], from: '2020-01-01', to: '2025-01-01' }),
    fails: ['chain.validity'],
  },
  {
    what: 'is not valid yet',
    device: () => makeDevice({ leaf: [cmaName(NAME)], from: '2027-01-01' }),
    fails: ['chain.validity'],
  },
  {
    what: 'ends in an authority',
    device: () => makeDevice({ leaf: [cmaName(NAME)], leafAuthority: true }),
    fails: ['spdm.leaf-usage'],
  },
  {
    what: 'ends in a key that may not sign',
    device: () => makeDevice({ leaf: [cmaName(NAME)], leafUsage: 0x20 }),
    fails: ['chain.extensions', 'spdm.leaf-usage'],
  },
  {
    what: 'is for requesters',
    device: () => makeDevice({ leaf: [cmaName(NAME), purposes(OID.requesterAuth)] }),
    fails: ['spdm.leaf-purpose'],
  },
  {
    what: 'is a web server’s, and says nothing of a device',
    device: () => makeDevice({ leaf: [purposes('1.3.6.1.5.5.7.3.1')] }),
    given: { function: null },
    fails: ['spdm.leaf-purpose'],
  },
  {
    what: 'is for any purpose, and says nothing of a device',
    device: () => makeDevice({ leaf: [purposes('2.5.29.37.0', '1.3.6.1.5.5.7.3.2')] }),
    given: { function: null },
    fails: ['spdm.leaf-purpose'],
  },
  {
    what: 'has a key of another algorithm than negotiated',
    device: () => makeDevice({ leaf: [cmaName(NAME)] }),
    given: { signature: 'ecdsa-p256' },
    fails: ['spdm.leaf-key'],
  },
  {
    what: 'puts the hardware identity into an alias',
    device: () => makeDevice({ leaf: [cmaName(NAME), dmtf(OID.hardwareIdentity)] }),
    given: { model: 'alias' },
    fails: ['spdm.hardware-identity'],
  },
  {
    what: 'has two hardware identities',
    device: () =>
      makeDevice({ leaf: [cmaName(NAME), dmtf(OID.hardwareIdentity)], middle: [dmtf(OID.hardwareIdentity)] }),
    fails: ['spdm.hardware-identity'],
  },
  {
    what: 'calls the hardware identity mutable',
    device: () => makeDevice({ leaf: [cmaName(NAME), dmtf(OID.hardwareIdentity, OID.mutable)] }),
    fails: ['spdm.hardware-identity'],
  },
  {
    what: 'has the hardware identity above the leaf without being an alias chain',
    device: () => makeDevice({ leaf: [cmaName(NAME)], middle: [dmtf(OID.hardwareIdentity)] }),
    fails: ['spdm.hardware-identity'],
  },
  {
    what: 'is another device’s',
    device: () => makeDevice({ leaf: [cmaName(NAME.replace('Device=0010', 'Device=0011'))] }),
    fails: ['cma.function'],
  },
  {
    what: 'is one particular device’s, and the function is not that one',
    device: () => makeDevice({ leaf: [cmaName(`${NAME}:0123456789abcdef`)] }),
    fails: ['cma.function'],
  },
  { what: 'names no function', device: () => makeDevice(), fails: ['cma.name'] },
  {
    what: 'names a function in words that are no name',
    device: () => makeDevice({ leaf: [cmaName(`${NAME}:and more`)] }),
    fails: ['cma.name'],
  },
  {
    what: 'has a critical extension that nobody knows',
    device: () =>
      makeDevice({ leaf: [cmaName(NAME), { oid: '1.2.3.4', critical: true, value: octets(new Uint8Array()) }] }),
    fails: ['chain.extensions'],
  },
];

for (const { what, device, given, fails } of hostile) {
  test(`a chain that ${what} is rejected, for that reason`, () => {
    const { checks } = appraise(device(), given);
    assert.deepEqual([...new Set(failures(checks))].sort(), [...fails].sort());
    assert.equal(verdictOf(checks), 'rejected');
  });
}

test('a revoked device, and a list that must be there and is not', () => {
  const device = makeDevice({ leaf: [cmaName(NAME)] });
  const lists = [revoke({ issuer: device.middle, serials: [77] }), revoke({ issuer: device.root })];
  assert.ok(failures(appraise(device, { revocation: { lists, required: false } }).checks).includes('chain.revocation'));
  assert.ok(
    failures(appraise(device, { revocation: { lists: [], required: true } }).checks).includes('chain.revocation'),
  );
  const good = [revoke({ issuer: device.middle, serials: [78] }), revoke({ issuer: device.root })];
  assert.deepEqual(failures(appraise(device, { revocation: { lists: good, required: true } }).checks), []);
});

test('an alias chain has its identity above the leaf', () => {
  const device = makeDevice({ leaf: [cmaName(NAME)], middle: [dmtf(OID.hardwareIdentity)] });
  const { checks } = appraise(device, { model: 'alias' });
  assert.deepEqual(failures(checks), []);
  assert.equal(statusOf(checks, 'spdm.hardware-identity'), 'passed');
});

test('without a function to compare with, the name is told and nothing is claimed', () => {
  const { identity, checks } = appraise(makeDevice({ leaf: [cmaName(NAME)] }), { function: null });
  assert.equal(statusOf(checks, 'cma.function'), 'unchecked');
  assert.equal(must(identity).functionName, NAME);
});

test('a certificate that is none makes the chain unreadable, not believed', () => {
  const device = makeDevice();
  const broken = { ...device.chain, certificates: [...device.chain.certificates.slice(0, 2), sequence()] };
  assert.match(codeOf(appraise({ ...device, chain: broken }).identity), /^der-|^certificate-/);
  const extension = makeDevice({ leaf: [{ oid: OID.subjectAltName, value: Uint8Array.of(0x30, 5) }] });
  assert.match(codeOf(appraise(extension).identity), /^der-/);
  const wrongPurposes = makeDevice({
    leaf: [{ oid: OID.extendedKeyUsage, value: sequence(octets(new Uint8Array())) }],
  });
  assert.match(codeOf(appraise(wrongPurposes).identity), /^der-/);
  const wrongDmtf = makeDevice({ leaf: [{ oid: OID.dmtfExtension, value: octets(new Uint8Array()) }] });
  assert.match(codeOf(appraise(wrongDmtf).identity), /^der-/);
});

test('names: several of them, of several kinds, in any order', () => {
  const device = makeDevice({
    leaf: [names(deviceInfo('ACME:WIDGET:1'), uriPart('https://acme.example'), cmaPart(NAME))],
  });
  const leaf = must(readCertificate(device.chain.certificates.at(-1) ?? new Uint8Array()));
  assert.deepEqual(must(readDeviceNames(leaf)), {
    cma: [NAME],
    deviceInfo: ['ACME:WIDGET:1'],
    uris: ['https://acme.example'],
  });
  const uri = makeDevice({ leaf: [names(uriPart(NAME))] });
  assert.deepEqual(failures(appraise(uri).checks), []);
  const crowd = makeDevice({ leaf: [names(...Array.from({ length: 40 }, () => deviceInfo('x')))] });
  assert.match(codeOf(appraise(crowd).identity), /^der-too-large$/);
});

test('text of a name reaches nobody’s terminal as it is', () => {
  const device = makeDevice({ leaf: [names(deviceInfo('ACME\x1b[31m:W:1'))] });
  const leaf = must(readCertificate(device.chain.certificates.at(-1) ?? new Uint8Array()));
  assert.deepEqual(must(readDeviceNames(leaf)).deviceInfo, ['ACME\\x1b[31m:W:1']);
});

const identities = fc
  .tuple(
    ...([0xffff, 0xffff, 0xffffff, 0xff, 0xffff, 0xffff] as const).map((most) => fc.nat(most)),
    fc.boolean(),
    fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((one) => one.toString(16).padStart(16, '0'))),
  )
  .map((drawn): PciIdentity => {
    const [vendor, device, cc, revision, subVendor, subDevice, bridge, serial] = drawn as [
      ...[number, number, number, number, number, number],
      boolean,
      string | null,
    ];
    const subsystem = bridge ? null : { vendor: subVendor, device: subDevice };
    return { vendor, device, class: cc, revision, subsystem, serial };
  });

test('a name is the function that it was made from, and no other', () => {
  fc.assert(
    fc.property(identities, identities, (one, other) => {
      const name = parsePciName(pciNameText(one));
      assert.deepEqual(name, one);
      assert.deepEqual(pciNameDifferences(one, one), []);
      const bare = pciNameText({ ...other, serial: null }) === pciNameText({ ...one, serial: null });
      assert.equal(
        pciNameDifferences(one, other).length === 0,
        bare && (one.serial === null || one.serial === other.serial),
      );
    }),
  );
});

test('what is no name of a function', () => {
  for (const text of [
    '',
    'Vendor=1af4',
    `${NAME} `,
    ` ${NAME}`,
    NAME.replace('1b36', '1b3'),
    NAME.replace('CC=010802', 'CC=0802'),
    NAME.replace(':SSID=1100', ''),
    `${NAME}:0123`,
    `${NAME}:0123456789abcdef:more`,
    `${NAME}\n`,
    NAME.replace('Vendor', 'vendor-'),
  ])
    assert.equal(parsePciName(text), undefined, text);
  assert.ok(parsePciName(NAME.toUpperCase().replace('VENDOR', 'Vendor').replace('DEVICE', 'Device')));
});

for (const [file, signature, date] of [
  ['spdm/dmtf-ecp256-bundle_responder.certchain.der', 'ecdsa-p256', '2026-11-20'],
  ['spdm/dmtf-ecp384-bundle_responder.certchain.der', 'ecdsa-p384', '2026-11-20'],
] as const) {
  test(`${file}: DMTF’s own device`, { skip: missing }, () => {
    const der = new Uint8Array(readFileSync(evidencePath(file)));
    const root = new Uint8Array(readFileSync(evidencePath(file.replace('bundle_responder.certchain', 'ca.cert'))));
    const bytes = Buffer.concat([new Uint8Array(4), spdmCrypto.hash('sha384', root), der]);
    bytes.writeUInt16LE(bytes.length);
    const chain = must(readCertificateChain(new Uint8Array(bytes), '1.2', 'sha384'));
    const list = createChecklist();
    const identity = must(
      checkIdentity(list, {
        x509,
        spdm: spdmCrypto,
        chain,
        hash: 'sha384',
        signature,
        roots: [must(readCertificate(root))],
        asOf: readTime(date) ?? 0,
        revocation: { lists: [], required: false },
        model: 'device',
        function: null,
      }),
    );
    assert.deepEqual(failures(list.checks), []);
    assert.equal(identity.deviceInfo, 'ACME:WIDGET:1234567890');
    assert.equal(statusOf(list.checks, 'spdm.hardware-identity'), 'passed');
    assert.deepEqual(must(readDmtfExtension(identity.leaf)), [OID.hardwareIdentity]);
    assert.equal(must(readPurposes(identity.leaf))?.length, 3);
  });
}

test('spdm/wd-mldsa87: a chain of ML-DSA-87 verifies to its own root', { skip: missing }, () => {
  const der = new Uint8Array(readFileSync(evidencePath('spdm/wd-mldsa87-bundle_responder.certchain.der')));
  const size = ((der[2] ?? 0) << 8) + (der[3] ?? 0) + 4;
  const root = must(readCertificate(der.slice(0, size)));
  const bytes = encodeCertificateChain(spdmCrypto, '1.4', 'sha512', root.der, [der]);
  const chain = must(readCertificateChain(bytes, '1.4', 'sha512'));
  const list = createChecklist();
  const identity = must(
    checkIdentity(list, {
      x509,
      spdm: spdmCrypto,
      chain,
      hash: 'sha512',
      signature: 'ml-dsa-87',
      roots: [root],
      asOf: root.notBefore + 1000,
      revocation: { lists: [], required: false },
      model: null,
      function: null,
    }),
  );
  assert.deepEqual(failures(list.checks), []);
  assert.equal(identity.leaf.algorithm.name, 'ml-dsa-87');
  const spoilt = chain.certificates.map((one, i) => {
    const copy = one.slice();
    if (i === 1) copy[copy.length - 1] = (copy[copy.length - 1] ?? 0) ^ 1;
    return copy;
  });
  const again = createChecklist();
  must(
    checkIdentity(again, {
      x509,
      spdm: spdmCrypto,
      chain: { ...chain, certificates: spoilt },
      hash: 'sha512',
      signature: 'ml-dsa-87',
      roots: [root],
      asOf: root.notBefore + 1000,
      revocation: { lists: [], required: false },
      model: null,
      function: null,
    }),
  );
  assert.ok(failures(again.checks).includes('chain.signature'));
});

test('one wrong byte anywhere in a chain is never accepted', () => {
  const device = makeDevice({ leaf: [cmaName(NAME), dmtf(OID.hardwareIdentity)] });
  const { bytes } = device.chain;
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      // The reserved half of the length field is nothing that anybody signed.
      fc.pre(at !== 2 && at !== 3);
      const wrong = bytes.slice();
      wrong[at] = (wrong[at] ?? 0) ^ flip;
      const chain = readCertificateChain(wrong, '1.2', 'sha384');
      if (!chain.ok) return;
      const { identity, checks } = appraise({ ...device, chain: chain.value });
      if (identity.ok) assert.equal(verdictOf(checks), 'rejected', `byte ${at}`);
    }),
    { numRuns: 400 },
  );
});

test('the root’s own key is no device’s', () => {
  const root = signer('Maker Root');
  const device = makeDevice({ root });
  const [first = new Uint8Array()] = device.chain.certificates;
  const bytes = encodeCertificateChain(spdmCrypto, '1.2', 'sha384', first, [first]);
  const { checks } = appraise({ ...device, chain: must(readCertificateChain(bytes, '1.2', 'sha384')) });
  assert.equal(verdictOf(checks), 'rejected');
});
