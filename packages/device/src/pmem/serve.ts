/** `airlock device serve pmem`: a file as persistent memory, over PCI. */
import { resolve } from 'node:path';
import { fail, ok } from '@airlock/core/result.ts';
import { openDisk } from '../block/open-disk.ts';
import { openSectorFile } from '../model/sector-file.ts';
import { servedModel } from '../model/serve.ts';
import { readText } from '../option-value.ts';
import { pmemModel } from './device.ts';

/** Linux maps persistent memory in pieces of this much. */
const PIECE = 2 << 20;
const LARGEST = 64 << 20;

export const served = servedModel({
  summary: 'a file as persistent memory, which the guest sees in a BAR',
  not: { 'vhost-user': 'its window of shared memory is not carried there' },
  options: { file: { type: 'string', value: 'FILE', help: 'at most 64 MiB, a multiple of 2 MiB; needed' } },
  prepare(values) {
    const file = readText(values, 'file');
    if (!file.ok) return file;
    const path = file.value;
    if (path === null) return fail('device-option-invalid', '--file FILE is needed');
    return ok({
      describe: () => `persistent memory ${path}`,
      make(host) {
        const opened = openDisk(host.calls, {
          file: resolve(host.folder, path),
          ...{ readOnly: false, direct: false, blockSize: 512, discard: false },
        });
        if (!opened.ok) return opened;
        const { fd, size } = opened.value;
        const made = openSectorFile(host.calls, { fd, bytes: size, readOnly: false });
        if (size % PIECE === 0 && size <= LARGEST) return ok(pmemModel(made));
        made.close();
        return fail('disk-size-invalid', `${path} has ${size} bytes: a multiple of 2 MiB, at most 64 MiB`);
      },
    });
  },
});
