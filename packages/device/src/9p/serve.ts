/** `airlock device serve 9p`: a folder of this machine. */
import { ok } from '@airlock/core/result.ts';
import type { ServedType } from '../serve-type.ts';
import { P9Device } from './p9-device.ts';
import { Session, sessionMemory } from './session.ts';
import { FOLDER_OPTIONS, sharedFolder } from './shared-folder.ts';

export const served: ServedType = {
  summary: 'a folder of this machine, and nothing outside of it',
  options: FOLDER_OPTIONS,
  prepare(values) {
    const folder = sharedFolder(values, 255);
    if (!folder.ok) return folder;
    const { tag, needs, describe, open } = folder.value;
    return ok({
      needs,
      describe,
      open(host) {
        const share = open(host);
        if (!share.ok) return share;
        const session = new Session(host.calls, share.value, sessionMemory(host.calls));
        return ok(new P9Device(tag, session, () => share.value.close()));
      },
    });
  },
};
