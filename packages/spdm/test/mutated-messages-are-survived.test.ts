import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeCorpus, newTally, runReaders, runRequester, runResponder } from '../fuzz/campaign.ts';

test('mutated messages: readers, responder and requester neither throw, nor hang, nor believe', () => {
  const corpus = makeCorpus();
  const tally = newTally();
  runReaders(corpus, 4711, 20_000, tally);
  runResponder(corpus, 4711, 1500, tally);
  runRequester(corpus, 4711, 150, tally);
  assert.ok(tally.readers - tally.taken > 5000, 'most are refused');
  assert.ok(tally.refused > 100);
  assert.ok(tally.codes.has('message-malformed'));
});
