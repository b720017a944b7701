/** A device that `airlock spdm respond` plays in this process, and `airlock device attest` of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { run } from '../src/main.ts';
import type { Context } from '../src/verb.ts';
import { fakeContext } from './fake-context.ts';

export const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';

export interface Served {
  readonly place: string;
  readonly folder: string;
  readonly log: () => string;
  end(): Promise<number>;
}

/** `airlock spdm respond` with a profile, in this process; its maker's root lies in root.pem of its folder. */
export async function respond(t: TestContext, profile: Record<string, unknown>, form = 'tcp'): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-attest-'));
  writeFileSync(join(folder, 'profile.json'), JSON.stringify({ version: 1, ...profile }));
  const stop = new AbortController();
  let said = '';
  let listening: (place: string) => void = () => undefined;
  const place = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const context: Context = fakeContext({
    cwd: folder,
    signal: stop.signal,
    stdout: (text) => {
      said += text;
      const found = /"at":"(tcp:[^"]+)"/.exec(said)?.[1];
      if (found !== undefined) listening(found);
    },
  });
  const files = ['--write-root', 'root.pem', '--write-crl', 'crl.pem'];
  const args = ['--tcp', '127.0.0.1:0', '--transport', form, '--profile', 'profile.json', '--json', ...files];
  const code = run(context, ['spdm', 'respond', ...args]);
  const end = async (): Promise<number> => {
    stop.abort();
    const result = await code;
    rmSync(folder, { recursive: true, force: true });
    return result;
  };
  t.after(end);
  return { place: await place, folder, log: () => said, end };
}

/** `signal` interrupts it. */
export async function attest(
  { place, folder, signal }: Pick<Served, 'place' | 'folder'> & { readonly signal?: AbortSignal },
  ...more: readonly string[]
) {
  const context = fakeContext({ cwd: folder, ...(signal === undefined ? {} : { signal }) });
  const roots = ['--roots', 'root.pem', '--crl', 'crl.pem', '--function', NAME];
  const code = await run(context, ['device', 'attest', place, ...roots, ...more]);
  return { code, out: context.out(), err: context.err() };
}

export interface Told {
  readonly verdict: string;
  readonly tier: string;
  readonly nonce: string;
  readonly appraisals: readonly { readonly checks: readonly { readonly id: string; readonly status: string }[] }[];
}

export const failed = (out: string) => {
  const told = JSON.parse(out) as Told;
  const ids = (told.appraisals[0]?.checks ?? []).filter(({ status }) => status === 'failed').map(({ id }) => id);
  return [...new Set(ids)].sort();
};
