/** PCIe 6.0 §2.2.5, §7.2.2: accesses of any width and alignment act byte by byte on whole registers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BankMap, constant, RegisterTable, reserved, stored } from '../src/pci/register.ts';

function bytesRead(bank: RegisterTable | BankMap, offset: number, length: number): number[] {
  const into = new Uint8Array(length).fill(0xaa);
  bank.read(offset, into);
  return [...into];
}

const widths = fc.array(fc.constantFrom<1 | 2 | 3 | 4>(1, 2, 3, 4), { minLength: 1, maxLength: 12 });

test('a read of any width at any place is the bytes of the registers it touches, and zero beyond', () => {
  fc.assert(
    fc.property(
      widths,
      fc.infiniteStream(fc.nat(0xffffffff)),
      fc.nat(60),
      fc.integer({ min: 1, max: 40 }),
      (all, values, at, length) => {
        const registers = all.map((bytes, i) => constant(`r${i}`, bytes, Number(values.next().value)));
        const table = new RegisterTable(registers);
        const model = registers.flatMap((register) =>
          Array.from({ length: register.bytes }, (_, i) => (register.read() >>> (8 * i)) & 0xff),
        );
        assert.deepEqual(
          bytesRead(table, at, length),
          Array.from({ length }, (_, i) => model[at + i] ?? 0),
        );
      },
    ),
  );
});

test('writes change exactly the writable bits of exactly the bytes written, whatever their width', () => {
  fc.assert(
    fc.property(
      widths,
      fc.array(fc.record({ at: fc.nat(40), bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }) }), { maxLength: 8 }),
      fc.nat(0xffffffff),
      (all, writes, mask) => {
        const registers = all.map((bytes, i) => stored(`r${i}`, bytes, { writable: (mask ^ (i * 0x01010101)) >>> 0 }));
        const table = new RegisterTable(registers);
        const masks = registers.flatMap((register, i) =>
          Array.from({ length: register.bytes }, (_, n) => (((mask ^ (i * 0x01010101)) >>> 0) >>> (8 * n)) & 0xff),
        );
        const model = masks.map(() => 0);
        for (const { at, bytes } of writes) {
          table.write(at, bytes);
          bytes.forEach((byte, n) => {
            const place = at + n;
            if (place < model.length) model[place] = byte & (masks[place] ?? 0);
          });
        }
        assert.deepEqual(bytesRead(table, 0, model.length), model);
      },
    ),
  );
});

test('a bit that is cleared by writing one survives a write to the byte beside it', () => {
  const status = stored('status', 2, { initial: 0xf900, clears: 0xf900 });
  const table = new RegisterTable([stored('command', 2, { writable: 0x0547 }), status]);
  table.write(0, Uint8Array.of(0x07, 0x00));
  assert.equal(status.value, 0xf900);
  table.write(2, Uint8Array.of(0xff));
  assert.equal(status.value, 0xf900);
  table.write(0, Uint8Array.of(0x06, 0x04, 0x00, 0x80));
  assert.equal(status.value, 0x7900);
});

test('each register is read once for one access', () => {
  let reads = 0;
  const table = new RegisterTable([{ name: 'clears', bytes: 4, read: () => ++reads, write() {} }]);
  assert.deepEqual(bytesRead(table, 0, 4), [1, 0, 0, 0]);
  assert.equal(reads, 1);
});

test('banks that overlap or reach beyond the end are refused; between them is nothing', () => {
  const map = new BankMap(16);
  assert.equal(map.place(4, new RegisterTable([constant('a', 4, 0x11223344)])), true);
  assert.equal(map.place(6, new RegisterTable([constant('b', 4, 1)])), false);
  assert.equal(map.place(14, new RegisterTable(reserved(4))), false);
  assert.equal(map.place(-1, new RegisterTable(reserved(2))), false);
  assert.deepEqual(bytesRead(map, 2, 8), [0, 0, 0x44, 0x33, 0x22, 0x11, 0, 0]);
});
