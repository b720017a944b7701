import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { mctpBinding } from '../src/mctp/binding.ts';
import { ALL_PREFERENCES } from '../src/negotiate.ts';
import { Responder } from '../src/responder/responder.ts';
import { withoutEmulator } from './support/emulator.ts';
import { sampleSlot } from './support/identities.ts';
import { crypto, MEASUREMENTS } from './support/pair.ts';
import { runAgainst } from './support/served-responder.ts';

// It tries each assertion at the highest version that both have.
for (const versions of [['1.1'], ['1.1', '1.2'], ['1.1', '1.2', '1.3'], ['1.1', '1.2', '1.3', '1.4']] as const) {
  test(`DMTF’s validator of responders finds nothing wrong at ${versions.at(-1)}`, {
    skip: withoutEmulator,
  }, async () => {
    const slot = sampleSlot('ecp384', 'responder');
    const responder = new Responder({
      crypto,
      binding: mctpBinding,
      algorithms: { ...ALL_PREFERENCES, versions, measurementHash: 'sha384' },
      slots: new Map([[0, slot]]),
      measurements: MEASUREMENTS,
    });
    let log = '';
    const { code, output } = await runAgainst(
      responder,
      'spdm_device_validator_sample',
      ['--trans', 'MCTP'],
      (folder) => {
        log = readFileSync(join(folder, 'test.log'), 'utf8');
      },
    );
    assert.equal(code, 0, output.slice(-500));
    const [, pass = '0', fail = ''] = /test suite \(.*\) - pass: (\d+), fail: (\d+)/.exec(log) ?? [];
    const failed = log.split('\n').filter((line) => line.includes('- FAIL'));
    assert.equal(fail, '0', failed.join('\n'));
    assert.ok(Number(pass) > 500, `${pass} passed`);
  });
}
