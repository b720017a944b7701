/** A kernel whose TSM holds a device: sysfs as the series of March 2026 has it, and its netlink family, in memory. */

import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { type FakeFiles, fakeFiles } from '@airlock/linux/fake-files.ts';
import { type GenericNetlink, splitNetlink } from '@airlock/linux/netlink.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import { le16, le32 } from '@airlock/spdm/little-endian.ts';

export const ADDRESS = '0000:01:00.0';
export const FOLDER = `/sys/devices/pci0000:00/${ADDRESS}`;
export const FAMILY_ID = 0x21;

const NONE = '0x0000000000000000 0x0000000000000000 0x0000000000000000';

/** One BAR of 16 KiB, no MSI-X; `tsm/` answers to writes as the series says. */
export function tsmMachine(): FakeFiles {
  const config = new Uint8Array(256);
  config.set([0x36, 0x1b, 0x10, 0x00]);
  config.set([0x02, 0x02, 0x08, 0x01], 0x08);
  config.set([0xf4, 0x1a, 0x00, 0x11], 0x2c);
  const files = fakeFiles({
    '/proc/cpuinfo': 'processor\t: 0\nflags\t\t: fpu hypervisor\n',
    '/sys/class/tsm/tsm0/pci_mode': 'devsec\n',
    [`${FOLDER}/config`]: config,
    [`${FOLDER}/resource`]: [
      '0x00000000fe000000 0x00000000fe003fff 0x0000000000040200',
      NONE,
      NONE,
      NONE,
      NONE,
      NONE,
    ].join('\n'),
    [`${FOLDER}/tsm/lock`]: '\n',
    [`${FOLDER}/tsm/unlock`]: '',
    [`${FOLDER}/tsm/accept`]: '0\n',
  });
  const set = (name: string, text: string): Result<void> => {
    files.tree.set(`${FOLDER}/tsm/${name}`, text);
    return ok(undefined);
  };
  files.onWrite(`${FOLDER}/tsm/lock`, (data) => set('lock', `${data}\n`));
  files.onWrite(`${FOLDER}/tsm/accept`, () => set('accept', '1\n'));
  files.onWrite(`${FOLDER}/tsm/unlock`, () => {
    set('accept', '0\n');
    return set('lock', '\n');
  });
  return files;
}

export const stateOf = (files: FakeFiles) =>
  ['lock', 'accept'].map((name) => String(files.tree.get(`${FOLDER}/tsm/${name}`)).trim()).join(',');

export function attribute(type: number, value: Uint8Array): Uint8Array {
  return concat(le16(4 + value.length), le16(type), value, new Uint8Array((4 - (value.length % 4)) % 4));
}

export function message(type: number, sequence: number, body: Uint8Array): Uint8Array {
  const length = 16 + body.length;
  return concat(
    le32(length),
    le16(type),
    le16(2),
    le32(sequence),
    le32(0),
    body,
    new Uint8Array((4 - (length % 4)) % 4),
  );
}

export const end = (sequence: number, errno = 0) =>
  message(errno === 0 ? 3 : 2, sequence, le32((0x1_0000_0000 - errno) % 0x1_0000_0000));

export interface FakeTsm {
  /** Objects by their type; may change between two questions. */
  readonly objects: () => ReadonlyMap<number, Uint8Array>;
  /** The errno of the nth question for evidence, from 0; 0 lets it answer. */
  readonly errno?: (question: number, hasNonce: boolean) => number;
  /** Is the family there? */
  readonly family?: boolean;
  /** In place of the messages of an answer. */
  readonly answer?: (sequence: number) => readonly Uint8Array[];
}

/** Objects come in pieces of 100 bytes, as the kernel may cut them. */
export function fakeTsm({ objects, errno = () => 0, family = true, answer }: FakeTsm): GenericNetlink {
  let question = 0;
  const datagrams = (request: Uint8Array): readonly Uint8Array[] => {
    const view = new DataView(request.buffer, request.byteOffset);
    const [type, sequence] = [view.getUint16(4, true), view.getUint32(8, true)];
    if (type === 0x10) {
      if (!family) return [end(sequence, 2)];
      const own = concat(
        Uint8Array.of(1, 2, 0, 0),
        attribute(2, new Uint8Array(Buffer.from('pci-tsm\0'))),
        attribute(1, le16(FAMILY_ID)),
      );
      return [message(0x10, sequence, own), end(sequence)];
    }
    const hasNonce = Buffer.from(request).includes(Buffer.from(concat(le16(36), le16(5))));
    const status = errno(question++, hasNonce);
    if (status !== 0) return [end(sequence, status)];
    if (answer !== undefined) return answer(sequence);
    const parts: Uint8Array[] = [];
    for (const [kind, bytes] of objects())
      for (let at = 0; at < bytes.length; at += 100) {
        const piece = bytes.slice(at, at + 100);
        parts.push(
          message(
            FAMILY_ID,
            sequence,
            concat(Uint8Array.of(1, 1, 0, 0), attribute(1, le32(kind)), attribute(6, piece)),
          ),
        );
      }
    return [...parts, end(sequence)];
  };
  return {
    ask: async (request) => {
      const split = splitNetlink(concat(...datagrams(request)));
      return split.ok ? split : fail('netlink-invalid', split.error.message);
    },
    close: () => undefined,
  };
}

/** What a TSM keeps of an exchange: the objects that the kernel gives out. */
export function objectsOf(
  { version, chain, vca, statements }: DeviceEvidence,
  report: Uint8Array,
): Map<number, Uint8Array> {
  const measured = statements.find(({ kind }) => kind === 'measurements');
  const own = version === '1.1' ? measured?.messages : measured?.messages.slice(6);
  return new Map([
    [0, chain],
    [8, concat(...vca)],
    [9, concat(...(own ?? []), measured?.signature ?? new Uint8Array())],
    [10, report],
  ]);
}
