/** `airlock device serve fs`: a folder of this machine, as virtiofs. */
import { ok } from '@airlock/core/result.ts';
import { FOLDER_OPTIONS, sharedFolder } from '../9p/shared-folder.ts';
import { servedModel } from '../model/serve.ts';
import { fsModel } from './device.ts';
import { FuseSession } from './session.ts';

export const served = servedModel({
  summary: 'a folder of this machine as virtiofs, and nothing outside of it',
  options: FOLDER_OPTIONS,
  prepare(values) {
    // virtio 1.2 §5.11.4: the tag has 36 bytes.
    const folder = sharedFolder(values, 36);
    if (!folder.ok) return folder;
    const { tag, needs, describe, open } = folder.value;
    return ok({
      needs,
      describe,
      make(host) {
        const share = open(host);
        if (!share.ok) return share;
        return ok(fsModel(tag, new FuseSession(host.calls, share.value), () => share.value.close()));
      },
    });
  },
});
