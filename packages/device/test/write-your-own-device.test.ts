/** The program of docs/write-your-own-device.md, as it stands there: at most 60 lines, run, and found by a client. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { ownDeviceProgram, startOwnDevice } from './support/own-device.ts';

const HEADER = 16;
const CONFIG_REGION = 7;

test('the document’s device has at most 60 lines, starts as it stands, and is a virtio entropy device on PCI', async (t) => {
  const lines = ownDeviceProgram()
    .split('\n')
    .filter((line) => line.trim() !== '');
  assert.ok(lines.length > 20 && lines.length <= 60, `${lines.length} lines`);
  const { socket, gone, said } = await startOwnDevice(t);

  // A client as QEMU is one: its version, then the first bytes of configuration space.
  const client = connect(socket);
  const replies = (async function* () {
    let bytes = Buffer.alloc(0);
    for await (const piece of client) {
      bytes = Buffer.concat([bytes, piece as Buffer]);
      while (bytes.length >= HEADER && bytes.length >= bytes.readUInt32LE(4)) {
        const length = bytes.readUInt32LE(4);
        yield bytes.subarray(0, length);
        bytes = bytes.subarray(length);
      }
    }
  })();
  const ask = async (command: number, body: Buffer): Promise<Buffer> => {
    const message = Buffer.alloc(HEADER + body.length);
    message.writeUInt16LE(1, 0);
    message.writeUInt16LE(command, 2);
    message.writeUInt32LE(message.length, 4);
    body.copy(message, HEADER);
    client.write(message);
    const reply = await replies.next();
    assert.ok(!reply.done, said());
    return reply.value;
  };
  await ask(1, Buffer.from(`\0\0\0\0${JSON.stringify({ capabilities: {} }).padEnd(200)}\0`));
  const access = Buffer.alloc(16);
  access.writeUInt32LE(CONFIG_REGION, 8);
  access.writeUInt32LE(4, 12);
  const reply = await ask(9, access);
  assert.equal(reply.subarray(-4).toString('hex'), 'f41a4410'); // 1af4:1044
  client.destroy();
  assert.equal(await gone, 0, said());
});
