/** `airlock device serve gpu`: a display whose picture is a PNG. */
import { ftruncateSync, openSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { readText } from '../option-value.ts';
import { gpuModel } from './device.ts';

const LARGEST = 4095;

export const served = servedModel({
  summary: 'a 2D display; the control word screenshot gives its picture as a PNG',
  not: { 'vhost-user': 'its requests name the guest’s memory themselves, which that transport does not show' },
  options: {
    size: { type: 'string', value: 'WIDTHxHEIGHT', help: 'pixels, each at most 4095; 1024x768' },
    png: { type: 'string', value: 'FILE', help: 'where a screenshot is written too; a file that is there is replaced' },
  },
  prepare(values) {
    const text = readText(values, 'size');
    if (!text.ok) return text;
    const [, w = '', h = ''] = /^([0-9]{1,4})x([0-9]{1,4})$/.exec(text.value ?? '1024x768') ?? [];
    const [width, height] = [Number(w), Number(h)];
    if (!(width >= 16 && width <= LARGEST && height >= 16 && height <= LARGEST)) {
      return fail('device-option-invalid', `--size ${text.value}: such as 1024x768, from 16 to ${LARGEST}`);
    }
    const png = readText(values, 'png');
    if (!png.ok) return png;
    const path = png.value;
    return ok({
      describe: () => `a display of ${width}x${height}`,
      make(host) {
        if (path === null) return ok(gpuModel({ width, height }));
        const fd = openPicture(resolve(host.folder, path));
        if (!fd.ok) return fd;
        const save = (bytes: Uint8Array) => {
          ftruncateSync(fd.value, 0);
          writeSync(fd.value, bytes, 0, bytes.length, 0);
        };
        return ok(gpuModel({ width, height, save }));
      },
    });
  },
});

function openPicture(path: string): Result<number> {
  try {
    return ok(openSync(path, 'w', 0o600));
  } catch (error) {
    return fail('device-option-invalid', `--png: ${error instanceof Error ? error.message : 'cannot be written'}`);
  }
}
