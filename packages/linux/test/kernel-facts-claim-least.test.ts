import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { readKernelFacts } from '../src/kernel-facts.ts';

const facts = (tree: Readonly<Record<string, FakeNode>>) => readKernelFacts(fakeFiles(tree));

test('a machine that tells nothing is nothing', async () => {
  assert.deepEqual(await facts({}), {
    release: '',
    arch: '',
    confidential: null,
    autoprobe: {},
    modulesDisabled: false,
    lockdown: null,
    swiotlb: 'auto',
    cmdline: '',
  });
});

test('each kind of confidential VM by what only the kernel inside one makes', async () => {
  const kind = async (tree: Readonly<Record<string, FakeNode>>) => (await facts(tree)).confidential;
  assert.equal(await kind({ '/sys/bus/platform/devices/sev-guest/uevent': '' }), 'sev-snp');
  assert.equal(await kind({ '/sys/devices/system/cpu/sev/vmpl': '0\n' }), 'sev-snp');
  assert.equal(await kind({ '/sys/firmware/uv/prot_virt_guest': '1\n' }), 'secure-execution');
  assert.equal(await kind({ '/sys/firmware/uv/prot_virt_guest': '0\n' }), null);
  assert.equal(await kind({ '/sys/bus/platform/devices/arm-cca-dev/uevent': '' }), 'cca');
  assert.equal(await kind({ '/proc/cpuinfo': 'flags\t\t: fpu tdx_guest sse\n' }), 'tdx');
});

test('what a processor can do, or a name that a host chose, makes no confidential VM', async () => {
  for (const cpuinfo of [
    'flags\t\t: fpu sme sev sev_es sev_snp hypervisor\n',
    'model name\t: flags : tdx_guest\n',
    'flags\t\t: tdx_guestx\n',
    'vmx flags\t: tdx_guest\n',
  ]) {
    assert.equal((await facts({ '/proc/cpuinfo': cpuinfo })).confidential, null, cpuinfo);
  }
});

test('swiotlb: force by command line or by encryption, off wins, text after -- is init’s', async () => {
  const mode = async (cmdline: string, more: Readonly<Record<string, FakeNode>> = {}) =>
    (await facts({ '/proc/cmdline': `${cmdline}\n`, ...more })).swiotlb;
  assert.equal(await mode('quiet'), 'auto');
  assert.equal(await mode('swiotlb=65536,force'), 'force');
  assert.equal(await mode('swiotlb=force swiotlb=noforce'), 'off');
  assert.equal(await mode('quiet -- swiotlb=force'), 'auto');
  assert.equal(await mode('foo="swiotlb=force"'), 'auto');
  const encrypted = { '/proc/cpuinfo': 'flags : tdx_guest\n' };
  assert.equal(await mode('quiet', encrypted), 'force');
  assert.equal(await mode('swiotlb=noforce', encrypted), 'off');
});

test('switches are read strictly: anything else is the weaker state', async () => {
  const read = await facts({
    '/proc/sys/kernel/modules_disabled': 'yes\n',
    '/sys/kernel/security/lockdown': 'none integrity [confidentiality]\n',
    '/sys/bus/pci/drivers_autoprobe': '0\n',
    '/sys/bus/virtio/drivers_autoprobe': 'maybe\n',
    '/proc/sys/kernel/osrelease': '7.2.12\x1b[2J\n',
  });
  assert.equal(read.modulesDisabled, false);
  assert.equal(read.lockdown, 'confidentiality');
  assert.deepEqual(read.autoprobe, { pci: false });
  assert.equal(read.release, '7.2.12\\x1b[2J');
  assert.equal((await facts({ '/sys/kernel/security/lockdown': '[everything]\n' })).lockdown, null);
  assert.equal((await facts({ '/proc/sys/kernel/modules_disabled': '1\n' })).modulesDisabled, true);
});
