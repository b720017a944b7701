/** `airlock device serve TYPE`: a device of ours, to a VMM, until it is told to end. */
import { nearest } from '@airlock/core/nearest.ts';
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import { serveDevice } from '@airlock/device/serve.ts';
import type { ServeEvent } from '@airlock/device/serve-event.ts';
import { TRANSPORTS as SERVE_TRANSPORTS, SOCKET_TRANSPORTS } from '@airlock/device/serve-transport.ts';
import type { OptionValues, ServedType, ServeOption } from '@airlock/device/serve-type.ts';
import { SERVED_TYPES } from '@airlock/device/serve-types.ts';
import type { SandboxLayer } from '@airlock/transport/sandbox.ts';
import { paintFor, safe } from '../agent-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';
import { type Chosen, joinNeeds, readVirtualFunctions, type VirtualFunction } from '../virtual-function-options.ts';

const TRANSPORTS = Object.keys(SERVE_TRANSPORTS);
/** Options of the verb itself; all others belong to a type. */
const OWN = [
  ...['socket', 'as', 'transport', 'once', 'unsealed-memory', 'plain', 'no-sandbox', 'json', 'help'],
  ...['virtual-function', 'sr-iov'],
];

/** What all types have in common. */
const OWN_HELP = `For every type:
  --socket PATH          where the VMM connects; made with mode 0600, removed at the end
  --transport NAME       how it is served (default: ${TRANSPORTS[0]})
      vhost-user         the VMM makes a virtio function, the device is its queues: QEMU, DPDK, libblkio
      vfio-user          the device is the whole PCI function: QEMU 11's vfio-user-pci
      vduse              for the drivers of this machine's own kernel (6.12 on), which takes block and net; needs root
  --as NAME              vduse: what the device is called on this machine (default: airlock-TYPE)
  --once                 end when the first front-end has gone
  --unsealed-memory      take memory that the front-end can shrink (libblkio, DPDK): it can then kill this device
  --no-sandbox           stay in this machine's namespaces, with all files and system calls in reach
  --plain                vfio-user: let the VMM emulate MSI-X instead of owning capabilities and interrupts
  --virtual-function NAME=VALUE,...
                         vfio-user: one more function of the type, of the same process, with these options instead of
                         those given above ('' for none); it listens on PATH-vf0, the next on PATH-vf1 (may be repeated)
  --sr-iov               they are functions 1, 2, ... of the slot whose function 0 is at PATH, and the guest makes them
                         appear (sriov_numvfs); without it each is a function by itself
  --json                 what happens as one JSON object a line

Front-ends may come and go; SIGTERM or SIGINT ends it, with everything written. Exit codes: 0 ended in order, 2 usage,
3 it could not begin, or did not end in order.
`;

/** How a front-end leaves when nothing is wrong. */
const IN_ORDER = ['vhost-user-closed', 'vfio-user-gone'];

/** Loaded here, because the options of all types are the options of the verb. */
const types = new Map<string, ServedType>(
  await Promise.all(
    Object.entries(SERVED_TYPES).map(
      async ([name, load]): Promise<[string, ServedType]> => [name, (await load()).served],
    ),
  ),
);

export const verb: Verb = {
  name: 'device serve',
  summary: 'be a device: a disk, a network card and others, for a VMM to connect to',
  usage: 'TYPE --socket PATH | --transport vduse [options of the type] [--json]',
  help: `
TYPE is one of these; airlock device serve TYPE --help tells its own options:
${[...types].map(([name, { summary }]) => `  ${name.padEnd(9)} ${summary}\n`).join('')}
${OWN_HELP}
  airlock device serve block --socket /run/vm1/disk.sock --file disk.img
  qemu-system-x86_64 -M q35,memory-backend=mem -object memory-backend-memfd,id=mem,size=1G,share=on \\
    -chardev socket,id=disk,path=/run/vm1/disk.sock -device vhost-user-blk-pci,chardev=disk ...
  airlock device serve entropy --transport vfio-user --socket /run/vm1/random.sock
  qemu-system-x86_64 ... -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/vm1/random.sock"}}'
`,
  helpFor: ([name = '']) => {
    const type = types.get(name);
    return type === undefined ? verb.help : `${typeHelp(name, type)}\n${OWN_HELP}`;
  },
  options: {
    socket: { type: 'string' },
    as: { type: 'string' },
    transport: { type: 'string' },
    once: { type: 'boolean' },
    'unsealed-memory': { type: 'boolean' },
    plain: { type: 'boolean' },
    'no-sandbox': { type: 'boolean' },
    json: { type: 'boolean' },
    'virtual-function': { type: 'string', multiple: true },
    'sr-iov': { type: 'boolean' },
    ...Object.fromEntries(
      [...types.values()].flatMap(({ options }) =>
        Object.entries(options).map(([name, { type, multiple }]) => [name, multiple ? { type, multiple } : { type }]),
      ),
    ),
  },
  run,
};

function typeHelp(name: string, { summary, options, not = {} }: ServedType): string {
  const lines = Object.entries(options).map(([option, { value, help, multiple }]: [string, ServeOption]) => {
    const words = `--${option}${value === undefined ? '' : ` ${value}`}`;
    return `  ${words.padEnd(22)} ${help}${multiple === true ? ' (may be repeated)' : ''}\n`;
  });
  const excuses = Object.entries(not).map(([transport, why]) => `  not over ${transport}: ${why}\n`);
  return `${name}: ${summary}\n${excuses.join('')}${lines.join('')}`;
}

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [name, ...more] = positionals;
  const list = [...types.keys()].join(', ');
  if (name === undefined) throw new UsageError(`which type? one of ${list}`);
  const type = types.get(name);
  if (type === undefined) {
    const near = nearest(name, types.keys());
    throw new UsageError(`no type ${safe(name)}; ${near === undefined ? `one of ${list}` : `did you mean ${near}?`}`);
  }
  if (more.length > 0) throw new UsageError(`one type, got ${safe(positionals.join(' '))}`);
  const { transport = TRANSPORTS[0] } = values;
  if (typeof transport !== 'string' || !TRANSPORTS.includes(transport)) {
    const near = typeof transport === 'string' ? nearest(transport, TRANSPORTS) : undefined;
    const which = near === undefined ? `one of ${TRANSPORTS.join(', ')}` : `did you mean ${near}?`;
    throw new UsageError(`--transport: no ${safe(String(transport))}; ${which}`);
  }
  const excuse = type.not?.[transport];
  if (excuse !== undefined) {
    const other = TRANSPORTS.find((one) => type.not?.[one] === undefined);
    throw new UsageError(`${name} is not served over ${transport}: ${excuse}; --transport ${other} carries it`);
  }
  const place = placeOf(name, transport, values);
  const own = optionsOf(name, type, values);
  const prepared = type.prepare(own);
  if (!prepared.ok) throw new UsageError(safe([prepared.error.message, prepared.error.hint ?? []].flat().join('; ')));
  const virtual = virtualOf(type, transport, values, own);
  const json = values['json'] === true;
  const paint = paintFor(context.terminal);
  const problem = await serveDevice({
    request: {
      type: name,
      transport,
      socket: place,
      folder: context.cwd,
      values: own,
      once: values['once'] === true,
      unsealedMemory: values['unsealed-memory'] === true,
      plain: values['plain'] === true,
      sandbox: values['no-sandbox'] !== true,
      virtual: virtual.map((one) => one.values),
      sriov: values['sr-iov'] === true,
    },
    needs: joinNeeds([prepared.value, ...virtual.map((one) => one.prepared)].map(({ needs }) => needs)),
    signal: context.signal,
    told(event) {
      if (json) context.stdout(`${JSON.stringify(event)}\n`);
      else if (event.event !== 'failed')
        context.stderr(`${paint('airlock device serve:', 'dim')} ${eventText(event)}\n`);
    },
  });
  if (problem === null) return EXIT.fine;
  context.stderr(`airlock device serve: ${problemText(problem)}\n`);
  return EXIT.environment;
}

/** Functions beside the first. */
function virtualOf(type: ServedType, transport: string, values: Values, own: Chosen): readonly VirtualFunction[] {
  const { 'virtual-function': given = [], 'sr-iov': sriov } = values;
  const texts = Array.isArray(given) ? given.map(String) : [];
  if (texts.length === 0) {
    if (sriov === true) throw new UsageError('--sr-iov needs --virtual-function');
    return [];
  }
  if (transport !== 'vfio-user') throw new UsageError('--virtual-function is for --transport vfio-user');
  if (sriov === true && values['plain'] === true) {
    throw new UsageError('--sr-iov does not go with --plain: the VMM would show no capability that it does not know');
  }
  return readVirtualFunctions(texts, type, own);
}

/** Where the device is found: a socket's path, or a name on this machine. */
function placeOf(type: string, transport: string, values: Values): string {
  const { socket, as } = values;
  if (!SOCKET_TRANSPORTS.includes(transport)) {
    if (socket !== undefined)
      throw new UsageError(`--socket means nothing to ${transport}; --as NAME names the device`);
    return typeof as === 'string' ? as : `airlock-${type}`;
  }
  if (as !== undefined) throw new UsageError(`--as means nothing to ${transport}`);
  if (typeof socket !== 'string' || socket === '') throw new UsageError('--socket PATH is needed');
  return socket;
}

/** The options that were given, all of this type. */
function optionsOf(
  name: string,
  type: ServedType,
  values: Values,
): Readonly<Record<string, string | boolean | readonly string[]>> {
  const found: Record<string, string | boolean | readonly string[]> = {};
  for (const [option, value] of Object.entries(values)) {
    if (OWN.includes(option) || value === undefined) continue;
    if (type.options[option] === undefined) {
      const owners = [...types].filter(([, other]) => other.options[option] !== undefined).map(([other]) => other);
      throw new UsageError(`--${option} is an option of ${owners.join(', ')}, not of ${name}`);
    }
    found[option] = typeof value === 'object' ? value.map(String) : value;
  }
  return found satisfies OptionValues;
}

function eventText(event: ServeEvent): string {
  switch (event.event) {
    case 'listening':
      return `${safe(event.type)} (${safe(event.device)}) ${placeText(event)}${sandboxText(event.sandbox)}`;
    case 'warning':
      return safe(event.text);
    case 'connected':
      return `a front-end connected${whoseText(event.socket, 'to')}`;
    case 'disconnected':
      return IN_ORDER.includes(event.why.code)
        ? `the front-end has gone${whoseText(event.socket, 'from')}`
        : `the front-end has gone${whoseText(event.socket, 'from')}: ${problemText(event.why)}`;
    case 'virtual-functions':
      return event.enabled === 0
        ? 'the guest has no virtual functions any more'
        : `the guest has ${event.enabled} virtual ${event.enabled === 1 ? 'function' : 'functions'} now`;
    case 'problem':
    case 'failed':
      return problemText(event.problem);
    case 'ended':
      return 'ended';
  }
}

function whoseText(socket: string | undefined, how: string): string {
  return socket === undefined ? '' : ` ${how} ${safe(socket)}`;
}

/** A line for what holds, and one for each layer that does not. */
function sandboxText(layers: readonly SandboxLayer[]): string {
  if (layers.length === 0) return '\n  no sandbox: the device process can reach what you can';
  const holds = layers.filter(({ status }) => status === 'enforced').map(({ layer }) => layer);
  const missing = layers.filter(({ status }) => status !== 'enforced');
  const lines = missing.map(({ layer, detail }) => `\n  sandbox lacks ${layer}: ${safe(detail)}`);
  return `\n  sandbox holds: ${holds.join(', ')}${lines.join('')}`;
}

function placeText({ transport, socket }: { readonly transport: string; readonly socket: string }): string {
  if (SOCKET_TRANSPORTS.includes(transport)) return `listens on ${safe(socket)}`;
  return `is /dev/vduse/${safe(socket)}, and goes onto the vdpa bus now`;
}

function problemText(problem: Problem): string {
  return safe(formatProblem(problem));
}
