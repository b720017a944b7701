/**
 * Mutations of SPDM messages through three doors: the readers alone, a responder that answers them, and a requester
 * that gets mutated answers. What must hold: nothing throws, nothing hangs, every problem has a code of the catalogue,
 * the responder always answers, and the requester believes nothing else than the original.
 */
import { ok, type Result } from '@airlock/core/result.ts';
import { mutate, seeded } from '../../evidence/fuzz/mutate.ts';
import { SPDM_VERSIONS, type SpdmVersion } from '../src/algorithms.ts';
import { SPDM_ERRORS } from '../src/errors.ts';
import type { MessageContext } from '../src/messages/reader.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import {
  askVendor,
  getCsr,
  getEndpointInfo,
  getKeyPairInfo,
  getMeasurementLog,
  setCertificate,
} from '../src/requester/requests.ts';
import { start } from '../src/requester/start.ts';
import { makePair, type Pair } from '../test/support/pair.ts';
import { authenticate, type Believed, useSession } from '../test/support/whole-exchange.ts';
import { DECODERS } from './decoders.ts';

export interface Tally {
  readers: number;
  /** Taken by a reader: what was changed has no rule, or is a value that another check looks at. */
  taken: number;
  answers: number;
  requests: number;
  refused: number;
  /** Believed as before: what was changed is covered by nothing and means nothing (DOE padding, reserved bytes). */
  same: number;
  readonly codes: Map<string, number>;
}

export const newTally = (): Tally => ({
  readers: 0,
  taken: 0,
  answers: 0,
  requests: 0,
  refused: 0,
  same: 0,
  codes: new Map(),
});

interface Message {
  readonly bytes: Uint8Array;
  readonly context: MessageContext;
}

export interface Corpus {
  /** Plain messages without their binding, requests and answers. */
  readonly messages: readonly Message[];
  /** Messages of the binding, as the responder gets them. */
  readonly wrapped: readonly { readonly version: SpdmVersion; readonly bytes: Uint8Array }[];
}

function pairOf(version: SpdmVersion, transferSize: number | null): Pair {
  return makePair({
    version,
    binding: 'mctp',
    mutual: 'encapsulated',
    ...(transferSize === null ? {} : { requester: { transferSize } }),
    responder: {
      clearHandshake: false,
      multiKey: 'negotiable',
      measurementLog: Uint8Array.of(
        1,
        0,
        0,
        0,
        13,
        0,
        0,
        0,
        ...new Array(8).fill(0),
        1,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0x81,
        2,
        0,
        9,
        9,
      ),
      endpointInfo: Uint8Array.of(1, 0, 0, 0),
      csr: () => Uint8Array.of(0x30, 0),
      setCertificate: () => true,
      vendor: (message) => message,
      ...(transferSize === null ? {} : { transferSize }),
    },
  });
}

/** Genuine messages of whole exchanges at every version, some in chunks. */
export function makeCorpus(): Corpus {
  const messages: Message[] = [];
  const wrapped: { version: SpdmVersion; bytes: Uint8Array }[] = [];
  for (const version of SPDM_VERSIONS) {
    for (const transferSize of [null, 150]) {
      const pair = pairOf(version, transferSize);
      const { connection } = pair;
      const keep = (bytes: Uint8Array) => {
        const unwrapped = connection.options.binding.unwrap(bytes);
        if (unwrapped.ok && unwrapped.value.kind === 'plain')
          messages.push({ bytes: unwrapped.value.message, context: connection.context });
      };
      const answer = (bytes: Uint8Array) => {
        wrapped.push({ version, bytes });
        keep(bytes);
        const answered = pair.answer(bytes);
        keep(answered);
        return answered;
      };
      for (const procedure of [
        authenticate(connection),
        useSession(connection),
        useSession(connection, true),
        start(connection),
        getMeasurementLog(connection, null),
        getEndpointInfo(connection),
        getKeyPairInfo(connection, 1, null),
        getCsr(connection, {}, null),
        setCertificate(connection, { slot: 0, certificateModel: 1, keyPair: 1, chain: new Uint8Array(40) }, null),
        askVendor(connection, { standard: 3, vendor: Uint8Array.of(1, 0), payload: new Uint8Array(300) }, null),
      ]) {
        const done: Result<unknown> = runAtOnce(procedure as ReturnType<typeof start>, answer);
        if (!done.ok && version === '1.4' && transferSize === null && done.error.code !== 'peer-error')
          throw new Error(`the corpus: ${done.error.code}: ${done.error.message}`);
      }
    }
  }
  return { messages, wrapped };
}

function note(result: Result<unknown>, tally: Tally): void {
  if (result.ok) return;
  const { code } = result.error;
  if (!(code in SPDM_ERRORS)) throw new Error(`code ${code} is in no catalogue`);
  tally.codes.set(code, (tally.codes.get(code) ?? 0) + 1);
}

/** Throws with seed and number of the mutation when something does not hold. */
export function runReaders({ messages }: Corpus, seed: number, count: number, tally: Tally): void {
  const random = seeded(seed);
  const all = messages.map(({ bytes }) => bytes);
  for (let i = 0; i < count; i++) {
    const original = messages[random() % messages.length];
    if (original === undefined) continue;
    const bytes = mutate(random, original.bytes, all);
    const decode = DECODERS.get(bytes[1] ?? -1) ?? DECODERS.get(original.bytes[1] ?? -1);
    tally.readers++;
    try {
      const read = decode?.(bytes, original.context) ?? ok(null);
      note(read, tally);
      if (read.ok) tally.taken++;
    } catch (error) {
      throw new Error(`readers, seed ${seed}, mutation ${i}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
}

/** Mutated requests to a responder in the middle of a connection. */
export function runResponder({ wrapped }: Corpus, seed: number, count: number, tally: Tally): void {
  const random = seeded(seed);
  const all = wrapped.map(({ bytes }) => bytes);
  const pairs = new Map(SPDM_VERSIONS.map((version) => [version, pairOf(version, null)]));
  for (let i = 0; i < count; i++) {
    const original = wrapped[random() % wrapped.length];
    const pair = original === undefined ? undefined : pairs.get(original.version);
    if (original === undefined || pair === undefined) continue;
    // Every so often from the beginning, so that what follows meets a connection in each of its states.
    if (random() % 40 === 0) runAtOnce(start(pair.connection), pair.answer);
    const bytes = random() % 3 === 0 ? original.bytes : mutate(random, original.bytes, all);
    tally.requests++;
    try {
      const answered = pair.responder.answer(bytes);
      if (!answered.ok) note(answered, tally);
    } catch (error) {
      throw new Error(
        `responder, seed ${seed}, mutation ${i}: ${error instanceof Error ? error.stack : String(error)}`,
      );
    }
  }
}

/** Exchanges with one answer mutated: nothing but the original is believed. */
export function runRequester(corpus: Corpus, seed: number, count: number, tally: Tally): void {
  const random = seeded(seed);
  const all = corpus.wrapped.map(({ bytes }) => bytes);
  for (let i = 0; i < count; i++) {
    const version = SPDM_VERSIONS[random() % SPDM_VERSIONS.length] ?? '1.2';
    const session = random() % 2 === 1;
    const pair = makePair({ version, binding: 'mctp', mutual: 'encapsulated' });
    const procedure = session ? useSession(pair.connection) : authenticate(pair.connection);
    const target = random() % (session ? 16 : 8);
    let index = 0;
    let steps = 0;
    tally.answers++;
    let result: Result<Believed>;
    let changed = false;
    try {
      result = runAtOnce(procedure, (bytes) => {
        if (++steps > 2000) throw new Error('it does not end');
        const answered = pair.responder.answer(bytes);
        const answer = answered.ok ? answered.value : new Uint8Array();
        if (index++ !== target) return answer;
        const mutated = mutate(random, answer, all);
        changed = mutated.length !== answer.length || mutated.some((byte, at) => byte !== answer[at]);
        return mutated;
      });
      note(result, tally);
    } catch (error) {
      throw new Error(
        `requester, seed ${seed}, mutation ${i}: ${error instanceof Error ? error.stack : String(error)}`,
      );
    }
    if (!result.ok) tally.refused++;
    else if (!changed || (session && (target === 3 || target === 4))) tally.same++;
    else throw new Error(`requester, seed ${seed}, mutation ${i}, answer ${target} at ${version}: believed`);
  }
}
