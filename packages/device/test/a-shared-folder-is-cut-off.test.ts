/** Both ways to share a folder ask the sandbox to cut it off from what is around it, a control socket or not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SERVED_TYPES } from '../src/serve-types.ts';

for (const type of ['9p', 'fs']) {
  test(`${type}: the folder is named as one that the device keeps open`, async () => {
    const load = SERVED_TYPES[type];
    assert.ok(load);
    const { served } = await load();
    const plain = served.prepare({ share: '/srv/shared' });
    assert.deepEqual(plain.ok ? plain.value.needs?.folders : plain.error, ['/srv/shared']);
    if (served.options['control'] === undefined) return;
    const controlled = served.prepare({ share: '/srv/shared', control: 'c.sock' });
    assert.ok(controlled.ok);
    assert.deepEqual(controlled.value.needs?.folders, ['/srv/shared']);
    assert.deepEqual(controlled.value.needs?.listens, ['c.sock']);
  });
}
