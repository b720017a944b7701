import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodePciMessage, encodePciMessage } from '../src/doe/pci-protocol.ts';
import { functionId, functionText, TDI_STATES } from '../src/tdisp/interface.ts';
import {
  decodeTdispRequest,
  decodeTdispResponse,
  encodeTdispRequest,
  encodeTdispResponse,
  type TdispRequest,
  type TdispResponse,
} from '../src/tdisp/messages.ts';
import { decodeInterfaceReport, encodeInterfaceReport } from '../src/tdisp/report.ts';
import { missing, readDump } from './support/dump.ts';
import { codeOf, must } from './support/must.ts';

const nonce = new Uint8Array(32).fill(9);
const range = { firstPage: 0x1_2345_6789_abcdn, pages: 4, attributes: 8, rangeId: 2 };

const requests: readonly TdispRequest[] = [
  { name: 'GET_VERSION' },
  { name: 'GET_CAPABILITIES', tsmCapabilities: 0 },
  { name: 'LOCK_INTERFACE', flags: 7, defaultStream: 3, mmioReportingOffset: 0xffff_f000n, p2pAddressMask: 0n },
  { name: 'GET_DEVICE_INTERFACE_REPORT', offset: 0x40, length: 0x24 },
  { name: 'GET_DEVICE_INTERFACE_STATE' },
  { name: 'START_INTERFACE', nonce },
  { name: 'STOP_INTERFACE' },
  { name: 'BIND_P2P_STREAM', stream: 1 },
  { name: 'UNBIND_P2P_STREAM', stream: 1 },
  { name: 'SET_MMIO_ATTRIBUTE', range },
  { name: 'VDM', registry: 0, vendor: Uint8Array.of(1, 0), data: Uint8Array.of(1, 2, 3) },
];

const responses: readonly TdispResponse[] = [
  { name: 'GET_VERSION', versions: [0x10] },
  {
    name: 'GET_CAPABILITIES',
    capabilities: {
      dsmCapabilities: 0,
      requests: new Uint8Array(16).fill(0xfe, 0, 1),
      lockFlags: 7,
      addressWidth: 48,
      requestsThis: 1,
      requestsAll: 2,
    },
  },
  { name: 'LOCK_INTERFACE', nonce },
  { name: 'GET_DEVICE_INTERFACE_REPORT', remainder: 7, portion: Uint8Array.of(1, 2, 3) },
  ...TDI_STATES.map((state) => ({ name: 'GET_DEVICE_INTERFACE_STATE', state }) as const),
  { name: 'START_INTERFACE' },
  { name: 'STOP_INTERFACE' },
  { name: 'BIND_P2P_STREAM' },
  { name: 'UNBIND_P2P_STREAM' },
  { name: 'SET_MMIO_ATTRIBUTE' },
  { name: 'VDM', registry: 0, vendor: Uint8Array.of(1, 0), data: Uint8Array.of(1, 2, 3) },
  { name: 'ERROR', error: 0x101, data: 5, extended: new Uint8Array() },
];

test('every request and every response comes back, for its interface', () => {
  for (const message of requests)
    assert.deepEqual(must(decodeTdispRequest(encodeTdispRequest(0x01_00_beef, message))), {
      version: 0x10,
      interface: 0x01_00_beef,
      message,
    });
  for (const message of responses)
    assert.deepEqual(must(decodeTdispResponse(encodeTdispResponse(0xbeef, message))).message, message);
});

test('a message cut anywhere, or with a byte more, is refused unless its last field is open', () => {
  const open = new Set(['VDM', 'ERROR']);
  for (const message of requests) {
    const bytes = encodeTdispRequest(1, message);
    for (let length = 0; length < bytes.length; length++)
      if (!open.has(message.name) || length < 18)
        assert.equal(codeOf(decodeTdispRequest(bytes.slice(0, length))), 'tdisp-message-invalid', message.name);
    if (!open.has(message.name))
      assert.equal(codeOf(decodeTdispRequest(Uint8Array.of(...bytes, 0))), 'tdisp-message-invalid');
  }
  for (const message of responses) {
    const bytes = encodeTdispResponse(1, message);
    for (let length = 0; length < bytes.length; length++)
      if (!open.has(message.name) || length < 18)
        assert.equal(codeOf(decodeTdispResponse(bytes.slice(0, length))), 'tdisp-message-invalid', message.name);
    if (!open.has(message.name))
      assert.equal(codeOf(decodeTdispResponse(Uint8Array.of(...bytes, 0))), 'tdisp-message-invalid');
  }
});

test('reserved fields, unknown types and unknown states are refused', () => {
  const bytes = encodeTdispRequest(1, { name: 'GET_VERSION' });
  for (const at of [2, 3, 8, 11, 15]) {
    const wrong = bytes.slice();
    wrong[at] = 1;
    assert.equal(codeOf(decodeTdispRequest(wrong)), 'tdisp-message-invalid');
  }
  const beyond = bytes.slice();
  beyond[7] = 2;
  assert.equal(codeOf(decodeTdispRequest(beyond)), 'tdisp-message-invalid', 'reserved bits of FUNCTION_ID');
  for (const type of [0, 1, 0x7f, 0x80, 0x8c, 0xff]) {
    const wrong = bytes.slice();
    wrong[1] = type;
    assert.equal(codeOf(decodeTdispRequest(wrong)), 'tdisp-unexpected');
  }
  for (const type of [0, 0x0c, 0x7e, 0x80, 0x81, 0xff]) {
    const wrong = bytes.slice();
    wrong[1] = type;
    assert.equal(codeOf(decodeTdispResponse(wrong)), 'tdisp-unexpected');
  }
  const state = encodeTdispResponse(1, { name: 'GET_DEVICE_INTERFACE_STATE', state: 'RUN' });
  state[16] = 4;
  assert.equal(codeOf(decodeTdispResponse(state)), 'tdisp-message-invalid');
});

test('any bytes give a value that encodes to them, or a coded refusal', () => {
  const near = fc
    .tuple(fc.constantFrom(...requests, ...responses), fc.nat(), fc.nat(255))
    .map(([message, at, byte]) => {
      const known = requests.includes(message as TdispRequest);
      const bytes = known
        ? encodeTdispRequest(1, message as TdispRequest)
        : encodeTdispResponse(1, message as TdispResponse);
      bytes[at % bytes.length] = byte;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), near), (bytes) => {
      const request = decodeTdispRequest(bytes);
      if (request.ok && request.value.version === 0x10)
        assert.deepEqual(encodeTdispRequest(request.value.interface, request.value.message), bytes);
      const response = decodeTdispResponse(bytes);
      if (response.ok)
        assert.deepEqual(
          encodeTdispResponse(response.value.interface, response.value.message, response.value.version),
          bytes,
        );
      for (const result of [request, response]) if (!result.ok) assert.match(result.error.code, /^tdisp-/);
    }),
    { numRuns: 3000 },
  );
});

test('functions by name', () => {
  assert.equal(functionText(functionId({ bus: 0x3d, device: 2, function: 1 })), '3d:02.1');
  assert.equal(functionText(functionId({ segment: 1, bus: 0x3d, device: 31, function: 7 })), '0001:3d:1f.7');
  assert.equal(functionId({ bus: 0xbe, device: 0x1d, function: 7 }), 0xbeef);
});

const report = {
  info: 3,
  msixControl: 0,
  lnrControl: 0,
  tphControl: 0,
  ranges: [range, { ...range, firstPage: 0n }],
  deviceSpecific: Uint8Array.of(1, 2, 3),
};

test('interface reports come back, and are refused when anything in them is off', () => {
  const bytes = encodeInterfaceReport(report);
  assert.deepEqual(must(decodeInterfaceReport(bytes)), report);
  for (let length = 0; length < bytes.length; length++)
    assert.equal(codeOf(decodeInterfaceReport(bytes.slice(0, length))), 'tdisp-report-invalid');
  assert.equal(codeOf(decodeInterfaceReport(Uint8Array.of(...bytes, 0))), 'tdisp-report-invalid');
  const spoilt: readonly (readonly [number, number, string])[] = [
    [0, 0x20, 'reserved INTERFACE_INFO'],
    [2, 1, 'reserved'],
    [12, 0xff, 'more ranges than bytes'],
    [15, 0xff, 'two billion ranges'],
    [28, 0x10, 'reserved attributes'],
    [48, 0xff, 'device-specific length'],
    [51, 0x80, 'device-specific length'],
  ];
  for (const [at, byte, what] of spoilt) {
    const wrong = bytes.slice();
    wrong[at] = byte;
    assert.equal(codeOf(decodeInterfaceReport(wrong)), 'tdisp-report-invalid', what);
  }
  assert.equal(codeOf(decodeInterfaceReport(new Uint8Array(0x10000))), 'tdisp-report-invalid');
});

for (const name of ['v11-p384', 'v12-p384', 'v13-p384']) {
  test(`${name}: every TDISP message of DMTF’s devices is read, and written byte for byte`, { skip: missing }, () => {
    const report: Uint8Array[] = [];
    let count = 0;
    for (const { line, up, parts } of readDump(name)) {
      const vendor = parts.get('PCI Vendor');
      if (vendor === undefined || !line.includes('TDISP(')) continue;
      // Standard id, vendor length and id, payload length.
      const payload = vendor.slice(7);
      assert.equal(vendor[5], payload.length);
      const { protocol, message } = must(decodePciMessage(payload));
      assert.equal(protocol, 'tdisp');
      assert.deepEqual(encodePciMessage({ protocol, message }), payload);
      count++;
      if (up) {
        const request = must(decodeTdispRequest(message));
        assert.equal(functionText(request.interface), 'be:1d.7');
        assert.deepEqual(encodeTdispRequest(request.interface, request.message), message);
        assert.ok(line.includes(request.message.name), `${line}: ${request.message.name}`);
      } else {
        const response = must(decodeTdispResponse(message));
        assert.deepEqual(encodeTdispResponse(response.interface, response.message), message);
        if (response.message.name === 'GET_DEVICE_INTERFACE_REPORT') report.push(response.message.portion);
      }
    }
    assert.equal(count, 22);
    const whole = new Uint8Array(Buffer.concat(report));
    const read = must(decodeInterfaceReport(whole));
    assert.deepEqual(encodeInterfaceReport(read), whole);
    assert.deepEqual(
      read.ranges.map(({ firstPage, pages, attributes, rangeId }) => [Number(firstPage), pages, attributes, rangeId]),
      [
        [0, 1, 4, 1],
        [0x8000, 4, 8, 2],
        [0x10000, 8, 8, 3],
        [0x20000, 8, 8, 4],
      ],
    );
    assert.equal(Buffer.from(read.deviceSpecific.slice(0, 13)).toString(), 'tdisp_dev_emu');
  });
}
