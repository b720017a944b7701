/** The language: every section of a policy file but `match`. */

import type { Protection } from '@airlock/core/decision.ts';
import { IDENTITY_TIERS, TRUST_LEVELS } from '@airlock/core/level.ts';
import type { Position } from '@airlock/core/result.ts';
import { attestation } from './attestation-shape.ts';
import { feature, match, withoutUndefined } from './match-shape.ts';
import { parseDuration } from './pattern.ts';
import {
  ACTIONS,
  type Action,
  MODES,
  type OpaBundle,
  PLATFORM_FORBIDS,
  PLATFORM_REQUIREMENTS,
  type Requirement,
  type Rule,
  SPDM_VERSIONS,
  VIOLATIONS,
  type Violation,
} from './policy.ts';
import {
  anyOf,
  listOf,
  mapped,
  needed,
  notation,
  optional,
  record,
  type Shape,
  stated,
  text,
  textAs,
  word,
} from './shape.ts';

export const RULE_LIMIT = 4096;

const level = word('a trust level', TRUST_LEVELS);
const ruleId = text({
  what: 'an id (small letters, digits and -)',
  max: 64,
  pattern: '^[a-z0-9][a-z0-9-]*$',
});
const fileName = text({ what: 'a file name without a path', max: 128, pattern: '^[A-Za-z0-9_][A-Za-z0-9._-]*$' });

const tierAtLeast = notation({
  what: 'an identity tier',
  schema: { enum: IDENTITY_TIERS.flatMap((tier) => [tier, `>=${tier}`]) },
  // At least is what it means anyway, so both ways to write it are right.
  parse: (written) => IDENTITY_TIERS.find((tier) => tier === written.replace(/^>= ?/, '')),
  near: () => IDENTITY_TIERS,
});

const spdmAtLeast = notation({
  what: 'a least version of SPDM: ">=1.2"',
  schema: { enum: SPDM_VERSIONS.map((version) => `>=${version}`) },
  parse: (written) => SPDM_VERSIONS.find((version) => version === /^>= ?(.*)$/.exec(written)?.[1]),
  hint: (written) =>
    SPDM_VERSIONS.some((version) => version === written)
      ? `at least that version is ">=${written}", in quotes`
      : `one of ${SPDM_VERSIONS.map((version) => `">=${version}"`).join(', ')}`,
});

const disk = mapped(
  record('disk', {
    encryption: needed(
      word('a disk encryption', ['aes-xts', 'aes-gcm', 'aegis128', 'aegis256']),
      'Cipher of dm-crypt.',
    ),
    integrity: optional(
      word('an integrity mode', ['none', 'aead', 'hmac-sha256', 'hmac-sha512']),
      'Integrity tag: aead comes with the cipher, hmac-* goes beside aes-xts. Without it the host can alter data.',
    ),
  }),
  (read, at, report): Protection['disk'] => {
    const authenticated = read.encryption !== 'aes-xts';
    const integrity = read.integrity ?? (authenticated ? 'aead' : 'none');
    if (authenticated !== (integrity === 'aead')) {
      report({
        code: 'keys-conflict',
        message: `${read.encryption} does not go with integrity ${integrity}`,
        at,
        hint: authenticated
          ? 'an authenticated cipher brings its own: integrity: aead'
          : 'aes-xts goes with none, hmac-sha256 or hmac-sha512',
      });
      return undefined;
    }
    return { encryption: read.encryption, integrity: integrity === 'none' ? null : integrity };
  },
);

const protect: Shape<Protection> = mapped(
  record(
    'protect',
    {
      disk: optional(disk, 'What stands between the disk and the data on it.'),
      network: optional(
        word('a network protection', ['wireguard', 'ipsec', 'macsec', 'tls']),
        'What every packet through this device must be wrapped in.',
      ),
    },
    { some: true },
  ),
  (read) => withoutUndefined<Protection>(read),
);

const require: Shape<Requirement> = mapped(
  record(
    'require',
    {
      identity: optional(tierAtLeast, 'At least this identity tier.'),
      roots: optional(anyOf(fileName, 'files'), 'Evidence chains to any of these trust anchors.'),
      measurements: optional(anyOf(fileName, 'files'), 'All measurements match any of these reference-value sets.'),
      spdm: optional(spdmAtLeast, 'The proof was given in at least this version of SPDM.'),
    },
    { some: true },
  ),
  (read) => withoutUndefined<Requirement>(read),
);

const otherwise = mapped(
  record('otherwise', {
    level: needed(level, 'The level when require does not hold.'),
    protect: optional(protect, 'Protection in that case, on top of that of the rule.'),
  }),
  (read) => withoutUndefined<NonNullable<Rule['otherwise']>>(read),
);

const features = mapped(
  record(
    'features',
    {
      require: optional(listOf(feature, { what: 'features', max: 128 }), 'Must be negotiated.'),
      forbid: optional(listOf(feature, { what: 'features', max: 128 }), 'Must not be negotiated.'),
    },
    { some: true },
  ),
  (read, at, report) => {
    const both = read.require?.find((name) => read.forbid?.includes(name));
    if (both !== undefined) {
      report({ code: 'keys-conflict', message: `${both} is both required and forbidden`, at });
      return undefined;
    }
    return { require: read.require ?? [], forbid: read.forbid ?? [] };
  },
);

const driver = text({ what: 'the name of a driver', max: 64, pattern: '^[A-Za-z0-9_-]+$' });

const ruleFields = record('a rule', {
  id: needed(ruleId, 'Unique in the whole policy; decisions name it.'),
  match: needed(match, 'Which devices the rule decides; {} is all of them.'),
  level: needed(level, 'Trust level of these devices.'),
  require: optional(require, 'What such a device must prove for the level.'),
  otherwise: optional(otherwise, 'What holds when require does not; without it: disconnected.'),
  features: optional(features, 'VIRTIO features that the device must or must not run with.'),
  drivers: optional(anyOf(driver, 'drivers'), 'Only these drivers may be bound.'),
  protect: optional(protect, 'What must stand between the device and the data.'),
  grant: optional(level, 'How far an operator may raise such a device without a change of the policy.'),
  note: optional(text({ what: 'a note', max: 1000 }), 'For people.'),
});

/** Rule ids are taken without a check for doubles: several files have a say in that. */
export const rule: Shape<Rule> = mapped(ruleFields, (read, at, report) => {
  if (read.otherwise !== undefined && read.require === undefined) {
    report({
      code: 'keys-conflict',
      message: 'otherwise without require never holds',
      at,
      hint: 'say with require what the level asks for',
    });
    return undefined;
  }
  return withoutUndefined<Rule>({ ...read, at });
});

const platform = record('platform', {
  require: optional(
    listOf(stated(word('a platform requirement', PLATFORM_REQUIREMENTS)), { what: 'requirements', max: 32 }),
    'What must hold before any device is used. What cannot be read does not hold.',
  ),
  forbid: optional(
    listOf(stated(word('a kind of device', PLATFORM_FORBIDS)), { what: 'kinds of devices', max: 32 }),
    'Kinds of devices that are disconnected whatever the rules say.',
  ),
  attestation: optional(
    attestation,
    'What the machine’s evidence must state. Held by airlock verify --policy; the gate and the agent decide nothing by it.',
  ),
});

export interface Answer {
  readonly actions: readonly Action[];
  readonly at: Position;
}

const answer = mapped(
  listOf(word('an action', ACTIONS), { what: 'actions', max: 8 }),
  (actions, at): Answer => ({ actions, at }),
);

const on: Shape<Partial<Record<Violation, Answer>>> = mapped(
  record('on', Object.fromEntries(VIOLATIONS.map((name) => [name, optional(answer, 'What to do, in this order.')]))),
  (read) => withoutUndefined<Partial<Record<Violation, Answer>>>(read),
);

const duration = (what: string, max: number) =>
  textAs(
    { what, max: 8, pattern: '^[1-9][0-9]{0,5}(s|m|h|d)$', hint: 'such as 90s, 30m or 24h; a week at most' },
    (written) => {
      const seconds = parseDuration(written);
      return seconds !== undefined && seconds <= max ? seconds : undefined;
    },
  );

const milliseconds = notation({
  what: 'a number of milliseconds from 1 to 10000',
  schema: { type: 'integer', minimum: 1, maximum: 10_000 },
  parse: (written) => {
    const value = /^[1-9][0-9]{0,4}$/.test(written) ? Number(written) : 0;
    return value >= 1 && value <= 10_000 ? value : undefined;
  },
});

const path = text({ what: 'a path', max: 1024, pattern: '^[^\\x00-\\x1f\\x7f]+$' });

const external: Shape<OpaBundle> = mapped(
  record('external', {
    opa: needed(path, 'A bundle made by `opa build -t wasm`, beside the policy or absolute. It can only narrow.'),
    entrypoint: optional(
      text({ what: 'an entrypoint such as airlock/narrow', max: 256, pattern: '^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$' }),
      'The rule to ask; airlock/narrow when not given.',
    ),
    verify: optional(
      record('verify', {
        key: needed(path, 'File with the public key (PEM) or the shared secret that signed the bundle.'),
        algorithm: optional(
          word('a signature algorithm', [
            'ES256',
            'ES384',
            'ES512',
            'RS256',
            'RS384',
            'RS512',
            'PS256',
            'PS384',
            'PS512',
            'HS256',
            'HS384',
            'HS512',
            'EdDSA',
          ]),
          'The only algorithm that is accepted.',
        ),
        scope: optional(text({ what: 'a scope', max: 128 }), 'The signature must carry this scope.'),
      }),
      'Demand `.signatures.json` by this key.',
    ),
    'timeout-ms': optional(milliseconds, 'Time for one decision; 100 when not given. Beyond it the device is denied.'),
  }),
  (read, at): OpaBundle => ({
    kind: 'opa',
    path: read.opa,
    entrypoint: read.entrypoint ?? 'airlock/narrow',
    ...(read.verify === undefined ? {} : { verify: withoutUndefined<NonNullable<OpaBundle['verify']>>(read.verify) }),
    timeout: read['timeout-ms'] ?? 100,
    at,
  }),
);

const version = notation<1>({
  what: 'version: 1',
  schema: { const: 1 },
  parse: (written) => (written === '1' ? 1 : undefined),
  hint: () => 'this Airlock reads version 1',
});

/** One file. A file of the drop-in folder has the same shape; what only one file may set is `merge.ts`'s to say. */
export const policyFile = record('the policy', {
  version: needed(version, 'Version of the language: 1.'),
  mode: optional(stated(word('a mode', MODES)), 'enforce when not given; learn and audit change no device.'),
  learn: optional(
    record('learn', { for: needed(duration('a time such as 30m', 7 * 86_400), 'How long learning may last.') }),
    'Needed with mode: learn.',
  ),
  default: optional(level, 'For devices that no rule matches; disconnected when not given.'),
  'default-grant': optional(level, 'grant for rules without one, and for the default; disconnected when not given.'),
  platform: optional(platform, 'The machine as a whole.'),
  'boot-critical': optional(
    listOf(stated(text({ what: 'the id of a rule or of a device', max: 128, pattern: '^[\\x21-\\x7e]+$' })), {
      what: 'ids',
      max: 64,
    }),
    'Rules (or devices, by id) without which the machine cannot boot; policy check watches over them.',
  ),
  modules: optional(
    record('modules', {
      'disable-loading': optional(
        word('a time', ['after-gate', 'never']),
        'after-gate: no kernel module can be loaded once the gate is done, until the next boot.',
      ),
    }),
    'Kernel modules.',
  ),
  external: optional(external, 'A policy engine beside the rules; it may only lower levels.'),
  rules: optional(
    listOf(rule, { what: 'rules', max: RULE_LIMIT, empty: true }),
    'The first rule that matches decides.',
  ),
  on: optional(on, 'What to do when a device misbehaves.'),
});
