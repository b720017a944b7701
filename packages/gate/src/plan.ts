/**
 * Decisions into steps. Pure. The order is the safe one: first nothing binds by itself any more, then what must not be
 * bound is unbound and held, and only then is anything loaded or bound; kernel switches that cannot be undone are last.
 */
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory, SysfsNode } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { Plan, Step } from '@airlock/core/plan.ts';
import {
  deviceDriver,
  endsInVirtio,
  hidesType,
  innerNode,
  moduleAlias,
  needsNoDriver,
  sameDriver,
  transportDriver,
} from './drivers.ts';

/** Buses whose devices a host can make appear. */
export const GATED_BUSES = ['pci', 'virtio', 'vdpa', 'usb'] as const;
/** A bus that a module brings: it is loaded first and alone, so that the bus is quiet before any driver is on it. */
const BUS_MODULES: Readonly<Record<string, string>> = { virtio: 'virtio', usb: 'usbcore' };
/** Buses with driver_override (Linux 6.1 to 7.3); the virtio and USB buses have none. */
export const OVERRIDE_BUSES: readonly string[] = ['pci', 'platform', 'vdpa'];

/** PCI base class and subclass. */
const USB_CONTROLLER = 0x0c03;

export interface PlanOptions {
  /** `policy.modules.disableLoading`: `after-gate` ends the plan with modules_disabled = 1. */
  readonly disableModules?: boolean;
}

/** What would make the machine as the decisions say. A device without a decision is treated as disconnected. */
export function planFor(decisions: readonly Decision[], inventory: Inventory, options: PlanOptions = {}): Plan {
  const byDevice = new Map(decisions.map((decision) => [decision.device, decision]));
  const stop: Step[] = [];
  const early: Step[] = [];
  const unbind: Step[] = [];
  const pin: Step[] = [];
  const load: Step[] = [];
  const bind: Step[] = [];
  const authorize: Step[] = [];

  for (const bus of GATED_BUSES) {
    // Absent means that the bus is not there yet or the file is not readable: the step finds out.
    if (inventory.kernel.autoprobe[bus] !== false) stop.push({ kind: 'autoprobe-off', bus });
  }
  for (const { id, location, sriov } of inventory.devices) {
    // Virtual functions bind as they are made, on kernels before 7.2 whatever the bus says: each is decided on first.
    if (sriov?.role === 'physical' && sriov.autoprobe !== false) {
      stop.push({ kind: 'virtual-autoprobe-off', device: id, node: location });
    }
  }
  for (const device of inventory.devices) {
    const decision = byDevice.get(device.id);
    if (decision === undefined || !isConnected(decision.level)) {
      disconnect(device, unbind, pin, authorize);
    } else {
      connect(device, decision, unbind, pin, load, bind, authorize);
    }
  }
  for (const [bus, module] of Object.entries(BUS_MODULES)) {
    if (inventory.kernel.autoprobe[bus] !== undefined || !bringsBus(bus, load, inventory)) continue;
    early.push({ kind: 'load', device: null, module }, { kind: 'autoprobe-off', bus });
  }
  const last: Step[] =
    options.disableModules === true && !inventory.kernel.modulesDisabled
      ? [{ kind: 'sysctl', name: 'kernel/modules_disabled', value: '1' }]
      : [];
  // No module drives these, and the kernel takes its time over them (i8042: 70 ms): they are cut off while modules load.
  const [firmware, others] = split([...unbind, ...pin], isFirmwareStep);
  return {
    version: 1,
    steps: [...stop, ...others, ...authorize, ...early, ...unique(load), ...firmware, ...bind, ...last],
  };
}

/** Serial ports, keyboard controllers, fw_cfg, TPMs; not virtio-mmio, which is on the platform bus too. */
function isFirmwareStep(step: Step): boolean {
  return 'device' in step && step.device?.startsWith('platform:') === true;
}

function split(steps: readonly Step[], first: (step: Step) => boolean): [Step[], Step[]] {
  return [steps.filter(first), steps.filter((step) => !first(step))];
}

function disconnect(device: Device, unbind: Step[], pin: Step[], authorize: Step[]): void {
  if (device.bus === 'usb') {
    authorize.push({ kind: 'authorize', device: device.id, node: device.location, value: false });
    return;
  }
  // Innermost first: a virtio disk loses virtio_blk before virtio-pci, so that its driver can end in order.
  for (const node of [...device.nodes].reverse()) {
    if (node.driver !== null) {
      unbind.push({ kind: 'unbind', device: device.id, bus: node.bus, node: node.name, driver: node.driver });
    }
  }
  const outer = device.nodes[0];
  if (outer !== undefined && OVERRIDE_BUSES.includes(outer.bus)) {
    pin.push({ kind: 'pin', device: device.id, bus: outer.bus, node: outer.name, driver: 'none' });
  }
}

function connect(
  device: Device,
  decision: Decision,
  unbind: Step[],
  pin: Step[],
  load: Step[],
  bind: Step[],
  authorize: Step[],
): void {
  if (device.bus === 'usb') {
    authorize.push({ kind: 'authorize', device: device.id, node: device.location, value: true });
    return;
  }
  const outer = device.nodes[0];
  if (outer === undefined) return;
  const known = deviceDriver(device);
  const wanted = chooseDriver(known.name, decision.drivers);
  const module = sameDriver(wanted, known.name) ? known.module : wanted;
  const transport = transportDriver(device);
  const inner = innerNode(device);
  const bound = inner?.driver ?? null;

  if (bound !== null && allows(decision, bound)) return;
  if (bound === null && needsNoDriver(device)) return;
  if (inner !== undefined && bound !== null) {
    unbind.push({ kind: 'unbind', device: device.id, bus: inner.bus, node: inner.name, driver: bound });
  }
  if (transport !== undefined && inner === undefined) {
    if (outer.driver !== null && !sameDriver(outer.driver, transport.name)) {
      unbind.push({ kind: 'unbind', device: device.id, bus: outer.bus, node: outer.name, driver: outer.driver });
    }
    if (outer.driver === null || !sameDriver(outer.driver, transport.name)) {
      if (isVirtual(device)) pin.push(pinTo(device, outer, transport.name));
      if (transport.module !== null) load.push({ kind: 'load', device: device.id, module: transport.module });
      bind.push({ kind: 'bind', device: device.id, bus: transport.bus, node: outer.name, driver: transport.name });
    }
  }
  // What appears below the transport may be of any type: it is looked at, and decided on, before it gets a driver.
  if (transport !== undefined && hidesType(device)) return;
  const alias = module ?? moduleAlias(device);
  if (alias !== undefined && alias !== null) load.push({ kind: 'load', device: device.id, module: alias });
  // A driver that the rule names itself is pinned, since it may be one that does not match by ids (vfio-pci). Virtual
  // functions take no other driver while their physical one's autoprobe is off.
  const pinned = decision.drivers !== undefined || (isVirtual(device) && wanted !== '*');
  const virtio = endsInVirtio(device);
  if (!virtio && OVERRIDE_BUSES.includes(outer.bus) && pinned) {
    pin.push(pinTo(device, outer, wanted));
  }
  if (virtio) {
    // The virtio node has no name before its transport is bound: `PARENT/*` is the one that then appears below it.
    bind.push({
      kind: 'bind',
      device: device.id,
      bus: 'virtio',
      node: inner?.name ?? `${outer.name}/*`,
      driver: wanted,
    });
  } else {
    bind.push({ kind: 'bind', device: device.id, bus: outer.bus, node: outer.name, driver: wanted });
  }
}

function isVirtual({ sriov }: Device): boolean {
  return sriov?.role === 'virtual';
}

function pinTo({ id }: Device, outer: SysfsNode, driver: string): Step {
  return { kind: 'pin', device: id, bus: outer.bus, node: outer.name, driver };
}

/** Will one of these loads make that bus appear? */
function bringsBus(bus: string, load: readonly Step[], inventory: Inventory): boolean {
  const loads = new Set(load.map((step) => (step.kind === 'load' ? step.device : null)));
  return inventory.devices.some(
    (device) =>
      loads.has(device.id) &&
      (bus === 'virtio' ? device.bus === 'virtio' : Math.floor((device.class ?? 0) / 256) === USB_CONTROLLER),
  );
}

/** The driver that Linux would take, where the rule allows it; else the first that the rule names. */
function chooseDriver(usual: string, allowed: readonly string[] | undefined): string {
  if (allowed === undefined || allowed.length === 0) return usual;
  return allowed.find((name) => sameDriver(name, usual)) ?? allowed[0] ?? usual;
}

export function allows(decision: Decision, driver: string): boolean {
  return decision.drivers === undefined || decision.drivers.some((name) => sameDriver(name, driver));
}

/** The first step to load a module stands for all. */
function unique(steps: readonly Step[]): Step[] {
  const seen = new Set<string>();
  return steps.filter((step) => {
    if (step.kind !== 'load' || seen.has(step.module)) return false;
    seen.add(step.module);
    return true;
  });
}
