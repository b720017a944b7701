import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findFamily } from '@airlock/linux/netlink.ts';
import { openGenericNetlink } from '../src/generic-netlink.ts';
import { loadSystemCalls } from '../src/system-calls.ts';

test('the kernel tells the number of its own family, and of none that it has not', async () => {
  const calls = await loadSystemCalls();
  assert.ok(calls.ok);
  const opened = openGenericNetlink(calls.value);
  assert.ok(opened.ok, opened.ok ? '' : opened.error.message);
  const netlink = opened.value;
  try {
    // GENL_ID_CTRL
    assert.deepEqual(await findFamily(netlink, 'nlctrl'), { ok: true, value: 16 });
    assert.deepEqual(await findFamily(netlink, 'airlock-none'), { ok: true, value: undefined });
  } finally {
    netlink.close();
  }
});
