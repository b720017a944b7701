/** `airlock device serve console`: consoles and named ports, as sockets, files and terminals of this machine. */
import { resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { readText, readTexts } from '../option-value.ts';
import type { DeviceHost, ServedType } from '../serve-type.ts';
import { ConsoleDevice, PORTS_LIMIT, type PortOptions } from './console-device.ts';
import type { ConsoleSize } from './control.ts';
import type { PortEnd } from './port-end.ts';
import { type PortSpec, parsePortSpec } from './port-spec.ts';
import { openSocketEnd } from './socket-end.ts';
import { openFileEnd, openPtyEnd, openStdioEnd } from './terminal.ts';

export const served: ServedType = {
  summary: 'consoles and named ports of the guest, as sockets, files and terminals of this machine',
  options: {
    port: {
      type: 'string',
      multiple: true,
      value: 'SPEC',
      help: '[name=NAME,][console,]socket=PATH|file=PATH|pty|stdio; needed, the first is the guest’s first console',
    },
    size: { type: 'string', value: 'COLUMNSxROWS', help: 'of the consoles, such as 80x25' },
  },
  prepare(values) {
    const texts = readTexts(values, 'port');
    if (!texts.ok) return texts;
    if (texts.value.length === 0) return fail('device-option-invalid', '--port SPEC is needed, such as console,stdio');
    if (texts.value.length > PORTS_LIMIT) return fail('device-option-invalid', `--port: ${PORTS_LIMIT} at most`);
    const specs: PortSpec[] = [];
    for (const text of texts.value) {
      const spec = parsePortSpec(text);
      if (!spec.ok) return spec;
      specs.push(spec.value);
    }
    const double = specs.find((one, i) => one.name !== '' && specs.findIndex(({ name }) => name === one.name) < i);
    if (double !== undefined) return fail('device-option-invalid', `--port: two of the name ${double.name}`);
    if (specs.filter(({ target }) => target.kind === 'stdio').length > 1) {
      return fail('device-option-invalid', '--port: stdio can be one port only');
    }
    const size = readSize(values['size'] === undefined ? ok(null) : readText(values, 'size'));
    if (!size.ok) return size;
    return ok({
      describe: () => specs.map(describe).join('; '),
      needs: { listens: specs.flatMap(({ target }) => (target.kind === 'socket' ? [target.path] : [])) },
      open(host) {
        const ports: PortOptions[] = [];
        for (const spec of specs) {
          const end = openEnd(host, spec);
          if (!end.ok) {
            for (const port of ports) port.end.close();
            return end;
          }
          ports.push({ name: spec.name, isConsole: spec.isConsole, end: end.value });
        }
        return ok(new ConsoleDevice({ ports, size: size.value }));
      },
    });
  },
};

function describe({ name, isConsole, target }: PortSpec): string {
  const where = target.kind === 'socket' || target.kind === 'file' ? `${target.kind} ${target.path}` : target.kind;
  return `${isConsole ? 'console' : 'port'}${name === '' ? '' : ` ${name}`} at ${where}`;
}

function readSize(text: Result<string | null>): Result<ConsoleSize | null> {
  if (!text.ok) return text;
  if (text.value === null) return ok(null);
  const [, columns = '', rows = ''] = /^([0-9]{1,5})x([0-9]{1,5})$/.exec(text.value) ?? [];
  const size = { columns: Number(columns), rows: Number(rows) };
  const fits = [size.columns, size.rows].every((one) => one >= 1 && one <= 0xffff);
  return fits ? ok(size) : fail('device-option-invalid', `--size ${text.value}: such as 80x25`);
}

function openEnd(host: DeviceHost, { name, target }: PortSpec): Result<PortEnd> {
  const { calls, reactor } = host;
  switch (target.kind) {
    case 'socket':
      return openSocketEnd(calls, reactor, resolve(host.folder, target.path));
    case 'file':
      return openFileEnd(calls, reactor, resolve(host.folder, target.path));
    case 'stdio':
      return openStdioEnd(calls, reactor);
    case 'pty': {
      const pty = openPtyEnd(calls, reactor);
      if (!pty.ok) return pty;
      host.warn(`port ${name === '' ? 'without a name' : name} is ${pty.value.path}`);
      return ok(pty.value.end);
    }
  }
}
