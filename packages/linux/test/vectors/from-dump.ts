/**
 * Turns what dump.sh printed in a guest into a vector: from-dump.ts < DUMP > VECTOR.json. Files are filed under the path
 * that their links lead to, configuration space without its trailing zeros.
 */
import { readFileSync } from 'node:fs';

const lines = readFileSync(0, 'latin1').replaceAll('\r', '').split('\n');
const links = new Map<string, string>();
for (const line of lines) {
  const [kind, path, ...rest] = line.split(' ');
  if (kind === 'L' && path !== undefined) links.set(path, rest.join(' '));
}

function resolve(path: string, depth = 0): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  let at = '';
  for (const [i, part] of parts.entries()) {
    if (part === '..') {
      at = at.slice(0, at.lastIndexOf('/'));
      continue;
    }
    at = `${at}/${part}`;
    const target = links.get(at);
    if (target !== undefined && depth < 40) {
      const base = target.startsWith('/') ? target : `${at.slice(0, at.lastIndexOf('/'))}/${target}`;
      return resolve([base, ...parts.slice(i + 1)].join('/'), depth + 1);
    }
  }
  return at;
}

const vector = new Map<string, unknown>();
for (const line of lines) {
  const [kind, path, ...rest] = line.split(' ');
  const text = rest.join(' ');
  if (path === undefined || /\/(max_link_speed|enable|product|manufacturer|authorized)$/.test(path)) continue;
  if (kind === 'L') vector.set(path, { link: text });
  if (kind === 'T') vector.set(resolve(path), text === '' ? '' : `${text}\n`);
  if (kind === 'B') {
    const bytes = Buffer.from(text, 'hex');
    let end = bytes.length;
    while (end > 0 && bytes[end - 1] === 0) end--;
    const config = { base64: bytes.subarray(0, end).toString('base64'), size: bytes.length };
    vector.set(resolve(path), path.endsWith('/config') ? config : bytes.toString('latin1'));
  }
}
const rows = [...vector].map(([path, node]) => `${JSON.stringify(path)}: ${JSON.stringify(node)}`);
process.stdout.write(`{\n${rows.join(',\n')}\n}\n`);
