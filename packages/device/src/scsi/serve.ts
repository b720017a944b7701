/** `airlock device serve scsi`: a raw image or a block device as a SCSI disk. */
import { resolve } from 'node:path';
import { fail, ok } from '@airlock/core/result.ts';
import { openDisk } from '../block/open-disk.ts';
import { openSectorFile } from '../model/sector-file.ts';
import { servedModel } from '../model/serve.ts';
import { readFlag, readText } from '../option-value.ts';
import { BLOCK } from './commands.ts';
import { scsiModel } from './device.ts';

const SERIAL = /^[\x21-\x7e]{1,20}$/;

export const served = servedModel({
  summary: 'a raw image or a block device as a SCSI disk',
  options: {
    file: { type: 'string', value: 'FILE', help: 'the image or block device; needed' },
    'read-only': { type: 'boolean', help: 'writes fail; the file is opened for reading' },
    serial: { type: 'string', value: 'TEXT', help: '1 to 20 letters, the disk’s serial number; airlock' },
  },
  prepare(values) {
    const file = readText(values, 'file');
    if (!file.ok) return file;
    const path = file.value;
    if (path === null) return fail('device-option-invalid', '--file FILE is needed');
    const serial = readText(values, 'serial');
    if (!serial.ok) return serial;
    const text = serial.value ?? 'airlock';
    if (!SERIAL.test(text)) return fail('device-option-invalid', '--serial: 1 to 20 characters of plain ASCII');
    const readOnly = readFlag(values, 'read-only');
    return ok({
      describe: () => `SCSI disk ${path}${readOnly ? ', read-only' : ''}`,
      make(host) {
        const opened = openDisk(host.calls, {
          file: resolve(host.folder, path),
          ...{ readOnly, direct: false, blockSize: BLOCK, discard: false },
        });
        if (!opened.ok) return opened;
        const { fd, size } = opened.value;
        return ok(scsiModel({ file: openSectorFile(host.calls, { fd, bytes: size, readOnly }), serial: text }));
      },
    });
  },
});
