/** The folder that a device shares, as its options say it: the same for 9P and for virtiofs. */
import { resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { readFlag, readText } from '../option-value.ts';
import type { DeviceHost, DeviceNeeds, OptionValues, ServeOption } from '../serve-type.ts';
import { Share } from './share.ts';

export const FOLDER_OPTIONS: Readonly<Record<string, ServeOption>> = {
  share: {
    type: 'string',
    value: 'FOLDER',
    help: 'needed; within the sandbox files of the user who serves it are root’s in the guest, all others nobody’s',
  },
  tag: { type: 'string', value: 'NAME', help: 'what the guest mounts it by; default share' },
  'read-only': { type: 'boolean', help: 'refuse every change (EROFS)' },
};

export interface SharedFolder {
  readonly tag: string;
  readonly needs: DeviceNeeds;
  describe(): string;
  /** Opens the folder. Codes: those of `Share.open`. */
  open(host: DeviceHost): Result<Share>;
}

/** Reads `--share`, `--tag` (at most `longestTag` bytes) and `--read-only`. Code: `device-option-invalid`. */
export function sharedFolder(values: OptionValues, longestTag: number): Result<SharedFolder> {
  const folder = readText(values, 'share');
  if (!folder.ok) return folder;
  const path = folder.value;
  if (path === null) return fail('device-option-invalid', '--share FOLDER is needed');
  const named = readText(values, 'tag');
  if (!named.ok) return named;
  const tag = named.value ?? 'share';
  if (tag.length > longestTag || !/^[\x21-\x7e]+$/.test(tag)) {
    return fail('device-option-invalid', `--tag: 1 to ${longestTag} characters of plain ASCII, without spaces`);
  }
  const readOnly = readFlag(values, 'read-only');
  return ok({
    tag,
    needs: { folders: [path] },
    describe: () => `${path} as ${tag}${readOnly ? ', read-only' : ''}`,
    open(host) {
      // The guest says which permissions a new file has.
      host.calls.umask(0);
      return Share.open(host.calls, resolve(host.folder, path), { readOnly });
    },
  });
}
