/** Is what a decision says true on the machine now? Asked of sysfs after the last step, never of what was written. */
import { asciiText, readLe } from '@airlock/core/bytes.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, KernelFacts } from '@airlock/core/device.ts';
import { isConnected, levelRank } from '@airlock/core/level.ts';
import type { Enforcement, Outcome, OutcomeStatus } from '@airlock/core/plan.ts';
import { canonicalFeature } from '@airlock/core/virtio.ts';
import { UNKNOWN_DRIVER } from '@airlock/linux/device-reader.ts';
import type { Files } from '@airlock/linux/files.ts';
import { readHeader, walkExtended } from '@airlock/linux/pci-config.ts';
import type { Applied } from './apply.ts';
import { innerNode, needsNoDriver } from './drivers.ts';
import { allows, OVERRIDE_BUSES } from './plan.ts';

export interface ReadBackContext {
  readonly files: Files;
  readonly kernel: KernelFacts;
  /** What was done to this device, for the reasons of what does not hold. */
  readonly applied?: readonly Applied[];
}

const RANK: Readonly<Record<OutcomeStatus, number>> = { enforced: 0, 'not-enforceable': 1, failed: 2 };

export function worstStatus(outcomes: readonly Outcome[]): OutcomeStatus {
  let worst: OutcomeStatus = 'enforced';
  for (const outcome of outcomes) if (RANK[outcome.status] > RANK[worst]) worst = outcome.status;
  return worst;
}

/** `device` is its state in an inventory taken after the last step; undefined when it is no longer there. */
export async function readBack(
  decision: Decision,
  device: Device | undefined,
  context: ReadBackContext,
): Promise<Enforcement> {
  const outcomes: Outcome[] = [];
  if (device === undefined) {
    outcomes.push({ property: 'device gone: nothing to hold', status: 'enforced' });
  } else if (!isConnected(decision.level)) {
    outcomes.push(...(await disconnectedOutcomes(device, context)));
  } else {
    outcomes.push(boundOutcome(decision, device, context));
    outcomes.push(...featureOutcomes(decision, device));
    outcomes.push(...(await levelOutcomes(decision, device, context)));
    outcomes.push(...protectOutcomes(decision));
  }
  return { decision, outcomes, status: worstStatus(outcomes) };
}

/** Why a step on this device did not work, for an outcome that does not hold. */
function reasonOf(context: ReadBackContext, kinds: readonly string[], node?: string): Outcome | undefined {
  return context.applied
    ?.filter(
      ({ step, outcome }) =>
        kinds.includes(step.kind) &&
        outcome.status !== 'enforced' &&
        (node === undefined || ('node' in step && step.node === node)),
    )
    .at(-1)?.outcome;
}

async function disconnectedOutcomes(device: Device, context: ReadBackContext): Promise<Outcome[]> {
  if (device.bus === 'usb') {
    const path = `/sys/bus/usb/devices/${device.location}/authorized`;
    const value = await attribute(context.files, path);
    if (value === '0') return [{ property: 'not authorized', status: 'enforced', evidence: { path, value } }];
    const why = reasonOf(context, ['authorize']);
    return [
      {
        property: 'not authorized',
        status: value === null ? 'not-enforceable' : 'failed',
        evidence: { path, value: value ?? '(missing)' },
        because: why?.because ?? 'the device is authorized',
      },
    ];
  }
  const outcomes: Outcome[] = [];
  for (const node of device.nodes) {
    const path = `/sys/bus/${node.bus}/devices/${node.name}/driver`;
    const property = `no driver bound to ${node.name}`;
    if (node.driver === null) {
      outcomes.push({ property, status: 'enforced', evidence: { path, value: '(none)' } });
      continue;
    }
    const why = reasonOf(context, ['unbind'], node.name);
    outcomes.push({
      property,
      status: why?.status ?? 'failed',
      evidence: { path, value: node.driver },
      because: why?.because ?? `${node.driver} is bound`,
    });
  }
  const outer = device.nodes[0];
  if (outer !== undefined && OVERRIDE_BUSES.includes(outer.bus)) {
    const path = `/sys/bus/${outer.bus}/devices/${outer.name}/driver_override`;
    const value = await attribute(context.files, path);
    outcomes.push({
      property: `no driver can bind to ${outer.name}`,
      status: value === 'none' ? 'enforced' : value === null ? 'not-enforceable' : 'failed',
      evidence: { path, value: value ?? '(missing)' },
      ...(value === 'none'
        ? {}
        : {
            because:
              reasonOf(context, ['pin'], outer.name)?.because ??
              (value === null ? `no driver_override on ${outer.bus} here` : 'driver_override is not "none"'),
          }),
    });
  }
  return outcomes;
}

function boundOutcome(decision: Decision, device: Device, context: ReadBackContext): Outcome {
  const named = decision.drivers?.join(' or ');
  const property = named === undefined ? 'bound to its driver' : `bound to ${named}`;
  const inner = innerNode(device);
  if (device.bus === 'usb') return { property: 'authorized', ...authorizedState(device, context) };
  const at = inner ?? device.nodes[device.nodes.length - 1];
  const path = `/sys/bus/${at?.bus ?? device.bus}/devices/${at?.name ?? device.location}/driver`;
  const driver = inner?.driver ?? null;
  if (driver === UNKNOWN_DRIVER) {
    const because = 'which driver is bound could not be read';
    return { property, status: 'failed', evidence: { path, value: driver }, because };
  }
  if (driver !== null && allows(decision, driver)) {
    return { property: `bound to ${driver}`, status: 'enforced', evidence: { path, value: driver } };
  }
  if (driver === null && needsNoDriver(device)) {
    return { property: 'usable without a driver', status: 'enforced', evidence: { path, value: '(none)' } };
  }
  return {
    property,
    status: 'failed',
    evidence: { path, value: driver ?? '(none)' },
    because:
      driver !== null
        ? `${driver} is bound, which the rule does not allow`
        : (reasonOf(context, ['bind'])?.because ?? reasonOf(context, ['load'])?.because ?? 'no driver is bound'),
  };
}

function authorizedState(device: Device, context: ReadBackContext): Pick<Outcome, 'status' | 'evidence' | 'because'> {
  const step = context.applied?.filter((one) => one.step.kind === 'authorize').at(-1);
  if (step !== undefined) {
    const { status, evidence, because } = step.outcome;
    return {
      status,
      ...(evidence === undefined ? {} : { evidence }),
      ...(because === undefined ? {} : { because }),
    };
  }
  const driver = device.nodes[0]?.driver ?? null;
  const evidence = { path: `/sys/bus/usb/devices/${device.location}/driver`, value: driver ?? '(none)' };
  return driver === null
    ? { status: 'failed', evidence, because: 'no driver is bound' }
    : { status: 'enforced', evidence };
}

function featureOutcomes(decision: Decision, device: Device): Outcome[] {
  if (decision.features === undefined) return [];
  const negotiated = device.features?.negotiated;
  const inner = innerNode(device);
  const path = `/sys/bus/virtio/devices/${inner?.name ?? device.location}/features`;
  const outcome = (name: string, wanted: boolean): Outcome => {
    const property = `${name} ${wanted ? 'negotiated' : 'not negotiated'}`;
    if (negotiated === undefined) {
      return {
        property,
        status: 'failed',
        evidence: { path, value: '(unknown)' },
        because: 'no features are negotiated',
      };
    }
    const has = negotiated.some((one) => canonicalFeature(one) === canonicalFeature(name));
    const evidence = { path, value: has ? 'set' : 'not set' };
    return has === wanted
      ? { property, status: 'enforced', evidence }
      : { property, status: 'failed', evidence, because: `driver and device ${has ? '' : 'did not '}agree on it` };
  };
  return [
    ...decision.features.require.map((name) => outcome(name, true)),
    ...decision.features.forbid.map((name) => outcome(name, false)),
  ];
}

async function levelOutcomes(decision: Decision, device: Device, context: ReadBackContext): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  if (decision.level === 'limited' && doesDma(device)) {
    outcomes.push(bounceOutcome(device, context.kernel));
    if (device.nodes[0]?.bus === 'pci') outcomes.push(await atsOutcome(device, context));
  }
  if (levelRank(decision.level) >= levelRank('link')) {
    const tsm = device.tsm;
    const held = decision.level === 'tcb' ? tsm?.accepted === true : typeof tsm?.connected === 'string';
    outcomes.push({
      property: decision.level === 'tcb' ? 'interface locked and accepted (TDISP RUN)' : 'link encrypted (IDE)',
      status: held ? 'enforced' : 'not-enforceable',
      evidence: { path: `${device.path}/tsm`, value: tsm === undefined ? '(missing)' : held ? 'yes' : 'no' },
      ...(held
        ? {}
        : {
            because:
              tsm === undefined
                ? 'this kernel has no tsm interface for the device'
                : 'the TSM does not say so of this device',
          }),
    });
  }
  return outcomes;
}

/**
 * Platform devices that policies know (serial, i8042, fw-cfg, TPM), bridges and USB devices do none of their own. The
 * class that makes a bridge is the host's to say: one that is driven by anything but a bridge's driver is none.
 */
function doesDma(device: Device): boolean {
  if (device.bus === 'platform' || device.bus === 'usb') return false;
  if (!needsNoDriver(device)) return true;
  return device.nodes.some(({ driver }) => driver !== null && driver !== 'pcieport');
}

function bounceOutcome(device: Device, kernel: KernelFacts): Outcome {
  const property = 'DMA bounced through shared memory';
  if (device.bus === 'virtio') {
    const inner = innerNode(device);
    const path = `/sys/bus/virtio/devices/${inner?.name ?? device.location}/features`;
    const negotiated = device.features?.negotiated;
    if (negotiated === undefined) {
      return {
        property,
        status: 'failed',
        evidence: { path, value: '(unknown)' },
        because: 'no features are negotiated',
      };
    }
    if (!negotiated.includes('ACCESS_PLATFORM')) {
      return {
        property,
        status: 'not-enforceable',
        evidence: { path, value: 'ACCESS_PLATFORM not set' },
        because:
          'without ACCESS_PLATFORM (bit 33) Linux gives the device addresses of private memory and never bounces',
      };
    }
  }
  if (kernel.swiotlb === 'off') {
    return {
      property,
      status: 'not-enforceable',
      evidence: { path: '/proc/cmdline', value: 'swiotlb=noforce' },
      because: 'the kernel was started without the buffers that bouncing needs',
    };
  }
  if (kernel.confidential !== null) {
    return {
      property,
      status: 'enforced',
      evidence: { path: 'confidential VM', value: kernel.confidential },
    };
  }
  return kernel.swiotlb === 'force'
    ? { property, status: 'enforced', evidence: { path: '/proc/cmdline', value: 'swiotlb=force' } }
    : {
        property,
        status: 'not-enforceable',
        evidence: { path: '/proc/cmdline', value: `swiotlb ${kernel.swiotlb}` },
        because: 'this is no confidential VM and the kernel was not started with swiotlb=force',
      };
}

const ATS = 0x000f;
const CONFIG_SIZE = 4096;

/** Address translation service: bit 15 of the ATS control register. PCIe 6.0 §10.5.1. */
async function atsOutcome(device: Device, context: ReadBackContext): Promise<Outcome> {
  const property = 'ATS off';
  if (device.iommu === null) {
    return { property, status: 'enforced', evidence: { path: `${device.path}/iommu_group`, value: '(no IOMMU)' } };
  }
  const path = `${device.path}/config`;
  const config = await context.files.readAt(path, 0, CONFIG_SIZE);
  if (!config.ok) return { property, status: 'failed', because: config.error.message };
  const unseen = (because: string): Outcome => ({
    property,
    status: 'failed',
    evidence: { path, value: `${config.value.length} bytes` },
    because,
  });
  if (readHeader(config.value) === undefined) return unseen('the function does not answer in configuration space');
  if (config.value.length <= 64) return unseen('capabilities are shown to CAP_SYS_ADMIN only');
  const { capabilities, broken } = walkExtended(config.value);
  const at = capabilities.find(({ id }) => id === ATS)?.offset;
  if (at === undefined) {
    return broken === undefined
      ? { property, status: 'enforced', evidence: { path, value: 'no ATS capability' } }
      : unseen(`its extended capabilities cannot be followed: ${broken}`);
  }
  const control = readLe(config.value, at + 6, 2) ?? 0x8000;
  return (control & 0x8000) === 0
    ? { property, status: 'enforced', evidence: { path, value: 'ATS not enabled' } }
    : {
        property,
        status: 'not-enforceable',
        evidence: { path, value: 'ATS enabled' },
        because: 'Linux enabled ATS; only pci=noats on the kernel command line keeps it off',
      };
}

function protectOutcomes(decision: Decision): Outcome[] {
  const outcomes: Outcome[] = [];
  const because = 'the policy asks for it and nothing on this machine sets it up or checks it yet';
  const disk = decision.protect?.disk;
  if (disk !== undefined) {
    const integrity = disk.integrity === null ? '' : ` with ${disk.integrity}`;
    outcomes.push({ property: `disk under ${disk.encryption}${integrity}`, status: 'not-enforceable', because });
  }
  if (decision.protect?.network !== undefined) {
    outcomes.push({ property: `network under ${decision.protect.network}`, status: 'not-enforceable', because });
  }
  return outcomes;
}

/** First line of an attribute; null when there is none. */
async function attribute(files: Files, path: string): Promise<string | null> {
  const bytes = await files.read(path, 4096);
  return bytes.ok ? (asciiText(bytes.value).split('\n')[0]?.trim() ?? '') : null;
}
