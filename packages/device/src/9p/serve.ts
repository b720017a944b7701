/** `airlock device serve 9p`: a folder of this machine. */
import { resolve } from 'node:path';
import { fail, ok } from '@airlock/core/result.ts';
import { readFlag, readText } from '../option-value.ts';
import type { ServedType } from '../serve-type.ts';
import { P9Device } from './p9-device.ts';
import { Session, sessionMemory } from './session.ts';
import { Share } from './share.ts';

const TAG = /^[\x21-\x7e]{1,255}$/;

export const served: ServedType = {
  summary: 'a folder of this machine, and nothing outside of it',
  options: {
    share: {
      type: 'string',
      value: 'FOLDER',
      help: 'needed; within the sandbox files of the user who serves it are root’s in the guest, all others nobody’s',
    },
    tag: { type: 'string', value: 'NAME', help: 'what the guest mounts it by; default share' },
    'read-only': { type: 'boolean', help: 'refuse every change (EROFS)' },
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
      return fail('device-option-invalid', '--tag: 1 to 255 characters of plain ASCII, without spaces');
    }
    const readOnly = readFlag(values, 'read-only');
    return ok({
      needs: { folders: [path] },
      describe: () => `${path} as ${name}${readOnly ? ', read-only' : ''}`,
      open(host) {
        // The guest says which permissions a new file has.
        host.calls.umask(0);
        const share = Share.open(host.calls, resolve(host.folder, path), { readOnly });
        if (!share.ok) return share;
        const session = new Session(host.calls, share.value, sessionMemory(host.calls));
        return ok(new P9Device(name, session, () => share.value.close()));
      },
    });
  },
};
