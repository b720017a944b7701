/** `airlock device serve sound`: a sound card that writes what it plays to a WAV file. */
import { openSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { fail, ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { readText } from '../option-value.ts';
import { type After, type SoundSink, soundModel } from './device.ts';
import { wavSink } from './wav.ts';

/** A guest does not fill this machine's disk. */
const LIMIT = 256 << 20;
const NOBODY: SoundSink = { format() {}, samples() {} };

export const served = servedModel({
  summary: 'a sound card: plays into a WAV file, records silence',
  options: {
    wav: { type: 'string', value: 'FILE', help: 'what is played, at most 256 MiB; a file that is there is replaced' },
  },
  prepare(values) {
    const text = readText(values, 'wav');
    if (!text.ok) return text;
    const path = text.value;
    return ok({
      describe: () => (path === null ? 'a sound card that nobody hears' : `a sound card into ${path}`),
      make(host) {
        const after: After = (milliseconds, call) => host.reactor.after(milliseconds, call);
        if (path === null) return ok(soundModel(NOBODY, after));
        try {
          const fd = openSync(resolve(host.folder, path), 'w', 0o600);
          return ok(
            soundModel(
              wavSink((at, bytes) => void writeSync(fd, bytes, 0, bytes.length, at), LIMIT),
              after,
            ),
          );
        } catch (error) {
          return fail(
            'device-option-invalid',
            `--wav: ${error instanceof Error ? error.message : 'cannot be written'}`,
          );
        }
      },
    });
  },
});
