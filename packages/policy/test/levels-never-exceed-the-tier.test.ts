import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IDENTITY_TIERS, LEVEL_CEILING } from '@airlock/core/level.ts';
import { decide } from '../src/decide.ts';
import { verdictFor } from '../src/verdict.ts';
import { compile, device, machine, nic, rules } from './policy-fixtures.ts';

const claim = (tier: (typeof IDENTITY_TIERS)[number], more = {}) => ({
  device: nic().id,
  tier,
  because: 'test',
  ...more,
});

test('each tier carries its ceiling and no more', () => {
  const policy = compile(rules('{ id: a, match: {}, level: tcb }'));
  for (const tier of IDENTITY_TIERS) {
    const verdict = verdictFor(policy, nic(), claim(tier));
    assert.equal(verdict.level, LEVEL_CEILING[tier]);
    assert.equal(verdict.reason, tier === 'bound' ? 'rule-matched' : 'tier-ceiling');
  }
});

test('ids that the host shows carry limited, a place without ids too', () => {
  const policy = compile(rules('{ id: a, match: {}, level: tcb }'));
  assert.deepEqual([verdictFor(policy, nic()).tier, verdictFor(policy, nic()).level], ['claimed', 'limited']);
  const { vendor: _, ...placed } = nic();
  assert.deepEqual([verdictFor(policy, placed).tier, verdictFor(policy, placed).level], ['location', 'limited']);
});

test('a claim about another device, or of a tier that does not exist, lifts nothing', () => {
  const policy = compile(rules('{ id: a, match: {}, level: tcb }'));
  assert.equal(verdictFor(policy, nic(), { ...claim('bound'), device: 'pci:other' }).level, 'limited');
  assert.equal(verdictFor(policy, nic(), claim('god' as never)).level, 'limited');
  const [own] = decide(policy, machine([nic({ id: 'constructor' })]), {});
  assert.equal(own?.tier, 'claimed', 'what every object inherits is no claim');
});

test('what was proved of another device meets no requirement', () => {
  const policy = compile(rules('{ id: a, match: {}, level: limited, require: { roots: a.pem } }'));
  const proof = claim('bound', { roots: ['a.pem'] });
  assert.equal(verdictFor(policy, nic(), proof).level, 'limited');
  assert.equal(verdictFor(policy, nic(), { ...proof, device: 'pci:other' }).reason, 'requirement-failed');
});

test('a requirement that is not met leads to otherwise, or to nothing', () => {
  const vendor =
    '{ id: a, match: { vendor: 0x15b3 }, level: tcb, require: { identity: bound, roots: [a.pem], measurements: [a.corim, b.corim] }';
  const lesser = compile(rules(`${vendor}, otherwise: { level: limited, protect: { network: wireguard } } }`));
  const none = compile(rules(`${vendor} }`));
  assert.deepEqual([verdictFor(lesser, nic()).level, verdictFor(lesser, nic()).reason], ['limited', 'otherwise']);
  assert.deepEqual(
    [verdictFor(none, nic()).level, verdictFor(none, nic()).reason],
    ['disconnected', 'requirement-failed'],
  );
  const proved = claim('bound', { roots: ['x.pem', 'a.pem'], measurements: ['b.corim'] });
  assert.equal(verdictFor(none, nic(), proved).level, 'tcb');
  for (const lacking of [
    { ...proved, tier: 'attested' as const },
    { ...proved, roots: ['x.pem'] },
    { ...proved, measurements: [] },
  ]) {
    assert.equal(verdictFor(none, nic(), lacking).reason, 'requirement-failed');
  }
});

test('who is trusted less is protected no less', () => {
  const text = rules(
    '{ id: a, match: {}, level: tcb, require: { identity: bound }, protect: { network: tls }, otherwise: { level: limited, protect: { disk: { encryption: aes-gcm } } } }',
  );
  const [decision] = decide(compile(text), machine([nic()]), {});
  assert.deepEqual(decision?.protect, { network: 'tls', disk: { encryption: 'aes-gcm', integrity: 'aead' } });
  const [proved] = decide(compile(text), machine([nic()]), { [nic().id]: claim('bound') });
  assert.deepEqual(proved?.protect, { network: 'tls' });
});

test('the protection of otherwise holds where its level is lowered, too', () => {
  const text = rules(
    '{ id: a, match: {}, level: tcb, require: { identity: bound }, otherwise: { level: dma, protect: { network: ipsec } } }',
  );
  const [decision] = decide(compile(text), machine([nic()]), {});
  assert.deepEqual(
    [decision?.level, decision?.reason, decision?.protect],
    ['limited', 'tier-ceiling', { network: 'ipsec' }],
  );
});

test('the platform section stands above every rule', () => {
  const text = (platform: string) =>
    `version: 1\nplatform: ${platform}\nrules:\n  - { id: a, match: {}, level: limited }\n`;
  const of = (platform: string, one = device(), kernel = {}) => {
    const [decision] = decide(compile(text(platform)), machine([one], kernel), {});
    return [decision?.level, decision?.reason, decision?.rule];
  };
  const denied = ['disconnected', 'platform-requirement-failed', null];
  assert.deepEqual(of('{ require: [memory-encryption] }', device(), { confidential: null }), denied);
  assert.deepEqual(of('{ require: [memory-integrity] }', device(), { confidential: 'sev-es' }), denied);
  assert.deepEqual(of('{ require: [swiotlb-force] }', device(), { swiotlb: 'auto', confidential: null }), denied);
  assert.equal(of('{ require: [swiotlb-force] }', device(), { swiotlb: 'auto', confidential: 'tdx' })[0], 'limited');
  assert.deepEqual(of('{ require: [lockdown-confidentiality] }'), denied);
  assert.deepEqual(of('{ require: [iommu-strict] }'), denied, 'no IOMMU, nothing strict');
  assert.equal(of('{ require: [iommu-strict] }', device({ iommu: { group: 1, type: 'DMA' } }))[0], 'limited');
  assert.deepEqual(
    of('{ require: [iommu-strict] }', device({ iommu: { group: 1, type: 'identity' } }), { cmdline: 'iommu.strict=1' }),
    denied,
  );
  const signed = (cmdline: string) => of('{ require: [module-signatures] }', device(), { lockdown: null, cmdline })[0];
  assert.equal(signed('quiet module.sig_enforce'), 'limited');
  assert.equal(signed('module.sig_enforce=1 module.sig_enforce=0'), 'disconnected');
  assert.equal(signed('quiet -- module.sig_enforce=1'), 'disconnected', 'words for init');
  const forbidden = ['disconnected', 'bus-forbidden', null];
  assert.deepEqual(of('{ forbid: [hotplug] }', device({ origin: 'hotplug' })), forbidden);
  const { origin: _, ...unseen } = device();
  assert.deepEqual(of('{ forbid: [hotplug] }', unseen), forbidden, 'not known counts as plugged in');
  assert.deepEqual(of('{ forbid: [virtio-mmio] }', device({ transport: 'mmio' })), forbidden);
  assert.deepEqual(of('{ forbid: [virtio-legacy] }', device({ device: 0x1001 })), forbidden);
  assert.equal(of('{ forbid: [virtio-legacy, virtio-mmio, usb, vdpa, sriov-virtual, hotplug] }')[0], 'limited');
  assert.deepEqual(of('{ forbid: [usb] }', nic({ bus: 'usb' })), forbidden);
  assert.deepEqual(of('{ forbid: [sriov-virtual] }', nic({ sriov: { role: 'virtual' } })), forbidden);
});
