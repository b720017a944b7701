/** `airlock device serve fs`: a folder of this machine, as virtiofs. */
import { resolve } from 'node:path';
import { fail, ok } from '@airlock/core/result.ts';
import { Share } from '../9p/share.ts';
import { servedModel } from '../model/serve.ts';
import { readFlag, readText } from '../option-value.ts';
import { fsModel } from './device.ts';
import { FuseSession } from './session.ts';

const TAG = /^[\x21-\x7e]{1,36}$/;

export const served = servedModel({
  summary: 'a folder of this machine as virtiofs, and nothing outside of it',
  options: {
    share: { type: 'string', value: 'FOLDER', help: 'the folder; needed' },
    tag: { type: 'string', value: 'NAME', help: 'what the guest mounts it by; share' },
    'read-only': { type: 'boolean', help: 'refuse every change' },
  },
  prepare(values) {
    const folder = readText(values, 'share');
    if (!folder.ok) return folder;
    const path = folder.value;
    if (path === null) return fail('device-option-invalid', '--share FOLDER is needed');
    const tag = readText(values, 'tag');
    if (!tag.ok) return tag;
    const name = tag.value ?? 'share';
    if (!TAG.test(name)) {
      return fail('device-option-invalid', '--tag: 1 to 36 characters of plain ASCII, without spaces');
    }
    const readOnly = readFlag(values, 'read-only');
    return ok({
      needs: { folders: [path] },
      describe: () => `${path} as ${name}${readOnly ? ', read-only' : ''}`,
      make(host) {
        host.calls.umask(0); // the guest says which permissions a new file has
        const share = Share.open(host.calls, resolve(host.folder, path), { readOnly });
        if (!share.ok) return share;
        return ok(fsModel(name, new FuseSession(host.calls, share.value), () => share.value.close()));
      },
    });
  },
});
