import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';

const house = resolve(import.meta.dirname, '..');
/** The order of ARCHITECTURE.md: a room imports only rooms before it. */
const rooms = ['core', 'policy', 'virtio', 'evidence', 'spdm', 'linux', 'transport', 'device', 'gate', 'lab', 'cli'];
/** Rooms whose code also runs in the boot gate or the browser: no Node, but for the files named here. */
const pure: Readonly<Record<string, readonly RegExp[]>> = {
  core: [],
  policy: [/\/node-[^/]*\.ts$/, /\/external\/(node-|opa-worker|signatures)[^/]*\.ts$/],
  virtio: [],
  evidence: [/\/node-[^/]*\.ts$/],
  spdm: [/\/node-[^/]*\.ts$/],
  linux: [/\/node-[^/]*\.ts$/],
};

interface Import {
  readonly file: string;
  readonly from: string;
}

function sources(room: string): string[] {
  const folder = join(house, 'packages', room, 'src');
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name));
}

function imports(file: string): Import[] {
  const text = readFileSync(file, 'utf8');
  const found = text.matchAll(
    /^\s*(?:import|export)\b[^;'"]*?\bfrom\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)|^import '([^']+)'/gm,
  );
  return [...found].map((match) => ({ file, from: match[1] ?? match[2] ?? match[3] ?? '' }));
}

/** The file that an import within the house leads to, or null for a package or Node's own. */
function target(one: Import): string | null {
  if (one.from.startsWith('.')) return resolve(dirname(one.file), one.from);
  const match = /^@airlock\/([^/]+)\/(.+)$/.exec(one.from);
  return match ? join(house, 'packages', match[1] ?? '', 'src', match[2] ?? '') : null;
}

const show = (file: string) => relative(house, file);
const roomOf = (file: string) => /packages\/([^/]+)\//.exec(show(file))?.[1] ?? '';
const all = rooms.flatMap(sources);

test('the list of rooms is complete', () => {
  assert.deepEqual(readdirSync(join(house, 'packages')).sort(), [...rooms].sort());
});

test('a room imports only rooms above it, and every import leads to a file', () => {
  const wrong: string[] = [];
  for (const one of all.flatMap(imports)) {
    const to = target(one);
    if (to === null) continue;
    if (!existsSync(to)) wrong.push(`${show(one.file)} imports ${one.from}, which is not there`);
    else if (rooms.indexOf(roomOf(to)) > rooms.indexOf(roomOf(one.file)))
      wrong.push(`${show(one.file)} imports ${one.from}`);
  }
  assert.deepEqual(wrong, []);
});

test('there are no circles of imports', () => {
  const edges = new Map(
    all.map((file) => [
      file,
      imports(file)
        .map(target)
        .filter((to) => to !== null),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at !== -1) {
      circles.push([...path.slice(at), file].map(show).join(' -> '));
      return;
    }
    if (done.has(file)) return;
    for (const to of edges.get(file) ?? []) visit(to, [...path, file]);
    done.add(file);
  };
  for (const file of all) visit(file, []);
  assert.deepEqual(circles, []);
});

test('pure code imports nothing of Node', () => {
  const wrong: string[] = [];
  for (const [room, hands] of Object.entries(pure)) {
    for (const file of sources(room)) {
      if (hands.some((pattern) => pattern.test(file))) continue;
      for (const { from } of imports(file)) if (from.startsWith('node:')) wrong.push(`${show(file)} imports ${from}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('only transport imports koffi', () => {
  const wrong = all.flatMap(imports).filter(({ file, from }) => from === 'koffi' && roomOf(file) !== 'transport');
  assert.deepEqual(
    wrong.map(({ file }) => show(file)),
    [],
  );
});

test('every package that is imported is a dependency of its room', () => {
  const wrong: string[] = [];
  for (const one of all.flatMap(imports)) {
    if (one.from.startsWith('.') || one.from.startsWith('node:')) continue;
    if (one.from.startsWith('quickjs:')) continue; // the gate's engine
    const name = one.from
      .split('/')
      .slice(0, one.from.startsWith('@') ? 2 : 1)
      .join('/');
    if (name === `@airlock/${roomOf(one.file)}`) continue;
    const manifest = JSON.parse(readFileSync(join(house, 'packages', roomOf(one.file), 'package.json'), 'utf8'));
    if (!(name in (manifest.dependencies ?? {}))) wrong.push(`${show(one.file)} imports ${name}`);
  }
  assert.deepEqual([...new Set(wrong)], []);
});
