/**
 * Steps into effects. Every step is read back: what the kernel answers to a write is never taken for the truth
 * (`drivers_probe` answers success where nothing was bound), and a step whose effect already holds writes nothing.
 */
import { asciiText, readLe } from '@airlock/core/bytes.ts';
import type { Outcome, Plan, Step } from '@airlock/core/plan.ts';
import type { Result } from '@airlock/core/result.ts';
import type { Commands } from '@airlock/linux/commands.ts';
import type { Files } from '@airlock/linux/files.ts';
import { sameDriver } from './drivers.ts';

export interface Hands {
  readonly files: Files;
  readonly commands: Commands;
  /** How to start modprobe: `['/sbin/modprobe']`, `['/airlock/busybox', 'modprobe']`; null where there is none. */
  readonly modprobe: readonly string[] | null;
}

export interface Applied {
  readonly step: Step;
  readonly outcome: Outcome;
}

/** Is the device still the coming of it that was looked at? */
export type Stands = (device: string) => Promise<boolean>;

const VIRTUAL_AUTOPROBE = 'sriov_drivers_autoprobe';

/** A child that is looked for below a parent: no bus has more of them than this. */
const CHILD_LIMIT = 256;

/**
 * Does the steps in order, all of them, whatever becomes of the one before. A run of `load` steps is one modprobe, and
 * the `unbind` and `pin` steps that follow it are done while it runs; everything else waits for it. Never fails as a
 * whole: each outcome says `enforced` (read back), `not-enforceable` (with the kernel fact) or `failed`. What lets a driver
 * in is done only where `stands` says that the device is still the one that the plan was made for.
 */
export async function applyPlan(plan: Plan, hands: Hands, stands?: Stands): Promise<Applied[]> {
  const applied: Applied[] = [];
  let loading: Promise<Applied[]> | null = null;
  for (let i = 0; i < plan.steps.length; i++) {
    const step = plan.steps[i];
    if (step === undefined) break;
    if (loading !== null && step.kind !== 'unbind' && step.kind !== 'pin') {
      applied.push(...(await loading));
      loading = null;
    }
    if (step.kind !== 'load') {
      const other = stands !== undefined && letsIn(step) && !(await stands(step.device));
      applied.push({ step, outcome: other ? replaced(step) : await applyStep(step, hands) });
      continue;
    }
    // One modprobe for a run of loads: each start of a program costs some 10 ms under emulation.
    const run: LoadStep[] = [];
    for (let next = plan.steps[i]; next?.kind === 'load'; next = plan.steps[i + run.length]) run.push(next);
    i += run.length - 1;
    // On until it really runs: a write that the kernel holds would keep it from starting.
    let running = () => {};
    const started = new Promise<void>((resolve) => {
      running = resolve;
    });
    loading = loadAll(run, hands, running);
    await started;
  }
  if (loading !== null) applied.push(...(await loading));
  return applied;
}

async function loadAll(run: readonly LoadStep[], hands: Hands, running: () => void): Promise<Applied[]> {
  const outcomes = await loadModules(
    run.map((one) => one.module),
    hands,
    running,
  );
  return outcomes.flatMap((outcome, i) => {
    const step = run[i];
    return step === undefined ? [] : [{ step, outcome }];
  });
}

type LoadStep = Extract<Step, { kind: 'load' }>;
type LettingIn = Extract<Step, { kind: 'bind' | 'pin' | 'authorize' }>;

function letsIn(step: Step): step is LettingIn {
  if (step.kind === 'pin') return step.driver !== 'none';
  return step.kind === 'bind' || (step.kind === 'authorize' && step.value);
}

function replaced({ node }: LettingIn): Outcome {
  const because = 'what was decided on is gone; what is in its place now is decided on by itself';
  return { property: `no driver gets ${node} on another device's decision`, status: 'failed', because };
}

async function applyStep(step: Exclude<Step, { kind: 'load' }>, hands: Hands): Promise<Outcome> {
  switch (step.kind) {
    case 'autoprobe-off':
      return autoprobeOff(step.bus, hands.files);
    case 'virtual-autoprobe-off':
      return virtualAutoprobeOff(step.node, hands.files);
    case 'unbind':
      return unbind(step.bus, step.node, step.driver, hands.files);
    case 'pin':
      return pin(step.bus, step.node, step.driver, hands.files);
    case 'bind':
      return bind(step.bus, step.node, step.driver, hands.files);
    case 'authorize':
      return authorize(step.node, step.value, hands.files);
    case 'remove':
      return remove(step.node, hands.files);
    case 'reset':
      return reset(step.node, hands.files);
    case 'sysctl':
      return sysctl(step.name, step.value, hands.files);
  }
}

/** First line of an attribute, made safe to print; null when the file is missing. */
async function readText(files: Files, path: string): Promise<Result<string> | null> {
  const bytes = await files.read(path, 4096);
  if (!bytes.ok) return bytes.error.code === 'file-missing' ? null : bytes;
  return { ok: true, value: asciiText(bytes.value).split('\n')[0]?.trim() ?? '' };
}

/** A name that is one component of a path: ids come from directory names, but plans may come from a file. */
function isName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\0\n]/.test(name);
}

const badName = (property: string, name: string): Outcome => ({
  property,
  status: 'failed',
  because: `${asciiText(Uint8Array.from(name.slice(0, 80), (c) => c.charCodeAt(0) & 0xff))}: not a name of a device, bus or driver`,
});

async function autoprobeOff(bus: string, files: Files): Promise<Outcome> {
  const property = `nothing binds by itself on ${bus}`;
  if (!isName(bus)) return badName(property, bus);
  const path = `/sys/bus/${bus}/drivers_autoprobe`;
  const before = await readText(files, path);
  // No such bus: no device can be on it. Whoever loads its module turns it off then.
  if (before === null) return { property, status: 'enforced', evidence: { path, value: '(no such bus)' } };
  if (!(before.ok && before.value === '0')) await files.write(path, '0');
  return expectText(property, path, '0', files, `the kernel does not keep drivers_autoprobe of ${bus} at 0`);
}

/** Of a physical function of SR-IOV (Linux 4.12): its virtual ones then take a driver only where driver_override names it. */
async function virtualAutoprobeOff(node: string, files: Files): Promise<Outcome> {
  const property = `nothing binds by itself to virtual functions of ${node}`;
  if (!isName(node)) return badName(property, node);
  const path = `/sys/bus/pci/devices/${node}/${VIRTUAL_AUTOPROBE}`;
  const before = await readText(files, path);
  if (before === null && (await boundDriver(files, 'pci', node)) === undefined) {
    return { property, status: 'enforced', evidence: { path, value: '(device gone)' } };
  }
  if (!(before?.ok && before.value === '0')) await files.write(path, '0');
  return expectText(property, path, '0', files, `the kernel does not keep ${VIRTUAL_AUTOPROBE} of ${node} at 0`);
}

/** Reads `path` back: `enforced` when it holds `wanted`. */
async function expectText(
  property: string,
  path: string,
  wanted: string,
  files: Files,
  because: string,
): Promise<Outcome> {
  const after = await readText(files, path);
  if (after === null) {
    return { property, status: 'not-enforceable', evidence: { path, value: '(missing)' }, because };
  }
  if (!after.ok) return { property, status: 'failed', because: after.error.message };
  return after.value === wanted
    ? { property, status: 'enforced', evidence: { path, value: after.value } }
    : { property, status: 'failed', evidence: { path, value: after.value }, because };
}

/** The driver that a node's link names, null for none, undefined when the node has gone. */
async function boundDriver(files: Files, bus: string, node: string): Promise<Result<string | null> | undefined> {
  const path = `/sys/bus/${bus}/devices/${node}`;
  const link = await files.link(`${path}/driver`);
  if (link.ok) return { ok: true, value: link.value.slice(link.value.lastIndexOf('/') + 1) };
  if (link.error.code !== 'file-missing') return link;
  const there = await files.link(path);
  if (there.ok) return { ok: true, value: null };
  // A folder instead of a link: some trees have the device there itself.
  const listed = await files.list(path);
  return listed.ok ? { ok: true, value: null } : undefined;
}

async function unbind(bus: string, node: string, driver: string, files: Files): Promise<Outcome> {
  const property = `no driver bound to ${node}`;
  for (const name of [bus, node, driver]) if (!isName(name)) return badName(property, name);
  const path = `/sys/bus/${bus}/devices/${node}/driver`;
  const before = await boundDriver(files, bus, node);
  if (before === undefined) return { property, status: 'enforced', evidence: { path, value: '(device gone)' } };
  if (before.ok && before.value === null) return { property, status: 'enforced', evidence: { path, value: '(none)' } };
  // The driver that holds it now, which may not be the one of a moment ago.
  const holder = before.ok && before.value !== null ? before.value : driver;
  const written = await files.write(`/sys/bus/${bus}/drivers/${holder}/unbind`, node);
  const after = await boundDriver(files, bus, node);
  if (after === undefined) return { property, status: 'enforced', evidence: { path, value: '(device gone)' } };
  if (!after.ok) return { property, status: 'failed', because: after.error.message };
  if (after.value === null) return { property, status: 'enforced', evidence: { path, value: '(none)' } };
  const evidence = { path, value: after.value };
  if (!written.ok && written.error.code === 'file-missing') {
    return {
      property,
      status: 'not-enforceable',
      evidence,
      because: `the kernel lets nobody unbind ${holder} (its driver has no unbind file)`,
    };
  }
  return {
    property,
    status: 'failed',
    evidence,
    because: written.ok ? `${after.value} is still bound` : written.error.message,
  };
}

async function pin(bus: string, node: string, driver: string, files: Files): Promise<Outcome> {
  const property = driver === 'none' ? `no driver can bind to ${node}` : `only ${driver} can bind to ${node}`;
  for (const name of [bus, node, driver]) if (!isName(name)) return badName(property, name);
  const path = `/sys/bus/${bus}/devices/${node}/driver_override`;
  const before = await readText(files, path);
  if (before === null) {
    const there = await boundDriver(files, bus, node);
    if (there === undefined) return { property, status: 'enforced', evidence: { path, value: '(device gone)' } };
  }
  if (!(before?.ok && before.value === driver)) await files.write(path, driver);
  return expectText(property, path, driver, files, `the ${bus} bus of this kernel has no driver_override`);
}

async function bind(bus: string, node: string, driver: string, files: Files): Promise<Outcome> {
  const property = driver === '*' ? 'bound to a driver' : `bound to ${driver}`;
  const parent = node.endsWith('/*') ? node.slice(0, -2) : undefined;
  for (const name of [bus, parent ?? node, driver]) if (!isName(name)) return badName(property, name);
  const child = parent === undefined ? node : await childOf(parent, bus, files);
  if (child === undefined) {
    return {
      property,
      status: 'failed',
      because: `no ${bus} device appeared below ${parent}: its transport is not bound`,
    };
  }
  const path = `/sys/bus/${bus}/devices/${child}/driver`;
  const before = await boundDriver(files, bus, child);
  if (before === undefined)
    return { property, status: 'failed', evidence: { path, value: '(device gone)' }, because: 'the device has gone' };
  if (before.ok && before.value !== null && (driver === '*' || sameDriver(before.value, driver))) {
    return { property, status: 'enforced', evidence: { path, value: before.value } };
  }
  const override = `/sys/bus/${bus}/devices/${child}/driver_override`;
  const held = bus === 'virtio' || bus === 'usb' ? null : await readText(files, override);
  if (held?.ok && held.value === 'none') await files.write(override, '\n');
  const written =
    driver === '*'
      ? await probe(bus, child, files)
      : await files.write(`/sys/bus/${bus}/drivers/${driver}/bind`, child);
  const after = await boundDriver(files, bus, child);
  const evidence = { path, value: after === undefined ? '(device gone)' : after.ok ? (after.value ?? '(none)') : '?' };
  if (after?.ok && after.value !== null && (driver === '*' || sameDriver(after.value, driver))) {
    return { property, status: 'enforced', evidence };
  }
  // What failed must not be left open for the next driver that comes along.
  if (held?.ok && held.value === 'none') await files.write(override, 'none');
  return {
    property,
    status: 'failed',
    evidence,
    because: written.ok
      ? 'the kernel took the request and bound nothing'
      : written.error.code === 'file-missing'
        ? `there is no driver ${driver} on ${bus}: its module is not loaded`
        : written.error.message,
  };
}

/**
 * Lets the kernel choose a driver. For a virtual function whose physical one binds none by itself that switch is on
 * meanwhile, and every other of its virtual functions that has neither a driver nor an override is held first.
 */
async function probe(bus: string, node: string, files: Files): Promise<Result<void>> {
  const physical = `/sys/bus/${bus}/devices/${node}/physfn`;
  const held = bus === 'pci' ? await readText(files, `${physical}/${VIRTUAL_AUTOPROBE}`) : null;
  const opens = held?.ok === true && held.value === '0';
  if (opens) {
    const alone = await holdSiblings(physical, node, files);
    if (!alone.ok) return alone;
    await files.write(`${physical}/${VIRTUAL_AUTOPROBE}`, '1');
  }
  const written = await files.write(`/sys/bus/${bus}/drivers_probe`, node);
  if (!opens) return written;
  const closed = await files.write(`${physical}/${VIRTUAL_AUTOPROBE}`, '0');
  return closed.ok ? written : closed;
}

async function holdSiblings(physical: string, node: string, files: Files): Promise<Result<void>> {
  // While virtual functions are being made the kernel holds this read: after it they are all there.
  const count = await files.read(`${physical}/sriov_numvfs`, 64);
  if (!count.ok) return count;
  const names = await files.list(physical);
  if (!names.ok) return names;
  for (const name of names.value.filter((one) => /^virtfn\d+$/.test(one))) {
    const link = await files.link(`${physical}/${name}`);
    const sibling = link.ok ? link.value.slice(link.value.lastIndexOf('/') + 1) : node;
    if (sibling === node || !isName(sibling)) continue;
    const path = `/sys/bus/pci/devices/${sibling}`;
    const override = await readText(files, `${path}/driver_override`);
    const free = override?.ok === true && (override.value === '' || override.value === '(null)');
    const driver = free ? await boundDriver(files, 'pci', sibling) : undefined;
    if (driver?.ok !== true || driver.value !== null) continue;
    const written = await files.write(`${path}/driver_override`, 'none');
    if (!written.ok && written.error.code !== 'file-missing') return written;
  }
  return { ok: true, value: undefined };
}

/** The name of the one device of `bus` below a parent on any bus that has transports. */
export async function childOf(parent: string, bus: string, files: Files): Promise<string | undefined> {
  for (const above of ['pci', 'platform', 'vdpa', 'ccw']) {
    const names = await files.list(`/sys/bus/${above}/devices/${parent}`);
    if (!names.ok) continue;
    const found = names.value.slice(0, CHILD_LIMIT).find((name) => name.startsWith(bus) && /\d$/.test(name));
    if (found !== undefined) return found;
  }
  return undefined;
}

async function authorize(node: string, value: boolean, files: Files): Promise<Outcome> {
  const wanted = value ? '1' : '0';
  const property = value ? `${node} authorized` : `${node} not authorized`;
  if (!isName(node)) return badName(property, node);
  const path = `/sys/bus/usb/devices/${node}/authorized`;
  const before = await readText(files, path);
  if (before === null && (await boundDriver(files, 'usb', node)) === undefined) {
    return value
      ? { property, status: 'failed', evidence: { path, value: '(device gone)' }, because: 'the device has gone' }
      : { property, status: 'enforced', evidence: { path, value: '(device gone)' } };
  }
  if (!(before?.ok && before.value === wanted)) await files.write(path, wanted);
  return expectText(property, path, wanted, files, 'the kernel has no switch for this USB device');
}

async function remove(node: string, files: Files): Promise<Outcome> {
  const property = `${node} taken off the bus`;
  if (!isName(node)) return badName(property, node);
  const path = `/sys/bus/pci/devices/${node}`;
  const written = await files.write(`${path}/remove`, '1');
  const after = await boundDriver(files, 'pci', node);
  if (after === undefined) return { property, status: 'enforced', evidence: { path, value: '(device gone)' } };
  return {
    property,
    status: 'failed',
    evidence: { path, value: '(still there)' },
    because: written.ok ? 'the kernel took the request and kept the device' : written.error.message,
  };
}

/**
 * What can be read back of a reset is that the function answers with the vendor id that it had. A driver on it is left
 * alone, and so is the function: most drivers do not live through a reset under them.
 */
async function reset(node: string, files: Files): Promise<Outcome> {
  const property = `${node} reset`;
  if (!isName(node)) return badName(property, node);
  const folder = `/sys/bus/pci/devices/${node}`;
  const driver = await boundDriver(files, 'pci', node);
  if (driver === undefined) {
    return { property, status: 'failed', evidence: { path: folder, value: '(device gone)' }, because: 'it has gone' };
  }
  if (!driver.ok || driver.value !== null) {
    const because = driver.ok ? `${driver.value} is still bound` : driver.error.message;
    return { property, status: 'failed', because };
  }
  const written = await files.write(`${folder}/reset`, '1');
  if (!written.ok && written.error.code === 'file-missing') {
    const because = 'the kernel knows no way to reset this function alone; taking its driver off ends what it does';
    return { property, status: 'not-enforceable', evidence: { path: `${folder}/reset`, value: '(missing)' }, because };
  }
  if (!written.ok) return { property, status: 'failed', because: written.error.message };
  // The ids of a virtual function are all ones in its own space, its class is not (PCIe 6.0 §9.3.4.1).
  const virtual = (await files.link(`${folder}/physfn`)).ok;
  const [name, at, bytes, digits] = virtual ? (['class', 8, 4, 6] as const) : (['vendor', 0, 2, 4] as const);
  const wanted = await readText(files, `${folder}/${name}`);
  const config = await files.readAt(`${folder}/config`, at, bytes);
  const read = config.ok ? readLe(config.value, 0, bytes) : undefined;
  // The class follows a byte of revision.
  const found = read
    ?.toString(16)
    .padStart(2 * bytes, '0')
    .slice(0, digits);
  const answer = found === undefined ? undefined : `0x${found}`;
  const evidence = { path: `${folder}/config`, value: answer ?? '(unreadable)' };
  return wanted?.ok && answer === wanted.value
    ? { property, status: 'enforced', evidence }
    : { property, status: 'failed', evidence, because: 'after the reset it does not answer with its ids' };
}

async function sysctl(name: string, value: string, files: Files): Promise<Outcome> {
  const property = `${name} = ${value}`;
  if (!name.split('/').every(isName)) return badName(property, name);
  const path = `/proc/sys/${name}`;
  const before = await readText(files, path);
  if (!(before?.ok && before.value === value)) await files.write(path, value);
  return expectText(property, path, value, files, `this kernel has no switch ${name}`);
}

/** Loaded, or built in: a module shows below /sys/module by its name with underscores, whichever it is. */
async function moduleShows(name: string, files: Files): Promise<boolean> {
  if (name.includes(':')) return false;
  return (await files.list(`/sys/module/${name.replaceAll('-', '_')}`)).ok;
}

/**
 * One modprobe for all names that do not show below /sys/module yet. A name is read back there; for an alias nothing
 * shows, so its outcome is what modprobe said, and the bind that follows is what counts.
 */
async function loadModules(names: readonly string[], hands: Hands, running: () => void): Promise<Outcome[]> {
  const property = (name: string) => `${name} loaded`;
  const evidence = (name: string, value: string) => ({
    path: name.includes(':') ? `modprobe ${name}` : `/sys/module/${name.replaceAll('-', '_')}`,
    value,
  });
  const safe = (name: string) => /^[A-Za-z0-9][A-Za-z0-9_:*,.-]{0,255}$/.test(name);
  const before = await Promise.all(names.map((name) => moduleShows(name, hands.files)));
  const wanted = names.filter((name, i) => before[i] !== true && safe(name));
  let refusal: string | undefined;
  let said = '';
  if (wanted.length > 0) {
    if (hands.modprobe === null) refusal = 'there is no modprobe';
    else {
      const run = hands.commands.run([...hands.modprobe, '-a', ...wanted], { timeout: 30_000 });
      running();
      const ran = await run;
      if (!ran.ok) refusal = ran.error.message;
      else if (ran.value.status !== 0) said = asciiLine(ran.value.stderr);
    }
  }
  running();
  const outcomes: Outcome[] = [];
  for (const [i, name] of names.entries()) {
    if (before[i] === true) {
      outcomes.push({ property: property(name), status: 'enforced', evidence: evidence(name, '(already there)') });
    } else if (!safe(name)) {
      outcomes.push(badName(property(name), name));
    } else if (refusal === undefined && (await moduleShows(name, hands.files))) {
      outcomes.push({ property: property(name), status: 'enforced', evidence: evidence(name, '(there)') });
    } else if (refusal === undefined && said === '' && name.includes(':')) {
      outcomes.push({ property: property(name), status: 'enforced', evidence: evidence(name, 'status 0') });
    } else {
      outcomes.push({
        property: property(name),
        status: 'failed',
        evidence: evidence(name, '(not there)'),
        because: refusal ?? (said === '' ? 'modprobe answered success and the module is not there' : said),
      });
    }
  }
  return outcomes;
}

/** The first line of what a program said, safe to print. */
function asciiLine(text: string): string {
  const line = text.split('\n').find((one) => one.trim() !== '') ?? 'modprobe failed';
  return line.replace(/[^\x20-\x7e]/g, '?').slice(0, 200);
}
