import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodePolicy } from '../src/decode.ts';
import { loadPolicy } from '../src/node-source.ts';

function withFiles(
  files: Readonly<Record<string, string>>,
  use: (folder: string) => Promise<void>,
): () => Promise<void> {
  return async () => {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-policy-'));
    try {
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(join(folder, name, '..'), { recursive: true });
        writeFileSync(join(folder, name), text);
      }
      await use(folder);
    } finally {
      rmSync(folder, { recursive: true });
    }
  };
}

const rule = (id: string) => `version: 1\nrules:\n  - { id: ${id}, match: {}, level: limited }\n`;

test(
  'rules come from the main file first, then from drop-ins in byte order',
  withFiles(
    {
      'p.yaml': `${rule('main')}platform: { forbid: [usb] }\nboot-critical: [main]\n`,
      'p.d/b.yaml': `${rule('b')}platform: { forbid: [hotplug], require: [swiotlb] }\n`,
      'p.d/10-a.yaml': rule('ten'),
      'p.d/9-a.yaml': rule('nine'),
      'p.d/Z.yaml': rule('upper'),
      'p.d/b.yaml~': 'not yaml: [',
      'p.d/.hidden.yaml': 'not yaml: [',
      'p.d/b.test.yaml': 'not yaml: [',
      'other.d/x.yaml': rule('other'),
    },
    async (folder) => {
      const loaded = await loadPolicy('p.yaml', folder);
      assert.deepEqual(loaded.problems, []);
      assert.deepEqual(loaded.files, ['p.yaml', 'p.d/10-a.yaml', 'p.d/9-a.yaml', 'p.d/Z.yaml', 'p.d/b.yaml']);
      assert.deepEqual(loaded.ignored, ['.hidden.yaml', 'b.test.yaml', 'b.yaml~']);
      const { policy } = decodePolicy(loaded.documents);
      assert.deepEqual(
        policy?.rules.map((one) => one.id),
        ['main', 'ten', 'nine', 'upper', 'b'],
      );
      assert.deepEqual(
        policy?.platform.forbid.map((one) => one.name),
        ['usb', 'hotplug'],
      );
      assert.deepEqual(policy?.files, loaded.files);
      assert.equal(policy?.rules[4]?.at.file, 'p.d/b.yaml');
    },
  ),
);

test(
  'what can have one value is set by one file',
  withFiles(
    {
      'p.yaml': 'version: 1\nmode: enforce\non: { ring-violation: [log] }\n',
      'p.d/a.yaml': 'version: 1\nmode: audit\ndefault: limited\non: { ring-violation: [halt], needs-reset: [log] }\n',
    },
    async (folder) => {
      const { problems } = decodePolicy((await loadPolicy('p.yaml', folder)).documents);
      assert.deepEqual(
        problems.map((one) => [one.code, one.at?.file, one.at?.line]),
        [
          ['set-twice', 'p.d/a.yaml', 2],
          ['set-twice', 'p.d/a.yaml', 4],
        ],
      );
      assert.match(problems[0]?.hint ?? '', /p\.yaml:2/);
    },
  ),
);

test(
  'a file that would silently never count is a problem',
  withFiles({ 'p.yaml': rule('a'), 'p.d/a.yml': rule('b') }, async (folder) => {
    assert.equal((await loadPolicy('p.yaml', folder)).problems[0]?.code, 'source-ignored-name');
  }),
);

test(
  'a broken drop-in breaks the policy: it is not left out',
  withFiles({ 'p.yaml': rule('a'), 'p.d/a.yaml': 'version: [' }, async (folder) => {
    const loaded = await loadPolicy('p.yaml', folder);
    assert.equal(loaded.problems[0]?.at?.file, 'p.d/a.yaml');
  }),
);

test(
  'what is no readable text file is a problem',
  withFiles({ 'p.yaml': rule('a'), 'q.yaml': rule('a') }, async (folder) => {
    mkdirSync(join(folder, 'p.d/dir.yaml'), { recursive: true });
    symlinkSync('/dev/zero', join(folder, 'p.d/zero.yaml'));
    symlinkSync('nowhere', join(folder, 'p.d/gone.yaml'));
    writeFileSync(join(folder, 'p.d/latin.yaml'), Buffer.from([0x76, 0xe4]));
    writeFileSync(join(folder, 'p.d/huge.yaml'), Buffer.alloc(3 * 1024 * 1024, 0x61));
    const { problems } = await loadPolicy('p.yaml', folder);
    assert.deepEqual(
      problems.map((one) => one.code),
      ['source-unreadable', 'source-unreadable', 'yaml-too-large', 'yaml-syntax', 'source-unreadable'],
    );
    assert.equal((await loadPolicy('missing.yaml', folder)).problems[0]?.code, 'source-unreadable');
    writeFileSync(join(folder, 'q.d'), 'a file');
    assert.equal((await loadPolicy('q.yaml', folder)).problems[0]?.code, 'source-unreadable');
  }),
);
