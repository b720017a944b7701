/** `--port` of a console: words between commas. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export type PortTarget =
  | { readonly kind: 'socket' | 'file'; readonly path: string }
  | { readonly kind: 'pty' | 'stdio' };

export interface PortSpec {
  /** What the guest finds it by (/dev/virtio-ports/NAME); may be empty. */
  readonly name: string;
  readonly isConsole: boolean;
  readonly target: PortTarget;
}

/** Plain ASCII, and no character that a path of the guest cannot hold. */
const NAME = /^[A-Za-z0-9._-]{1,64}$/;

/** Code: `device-option-invalid`. */
export function parsePortSpec(text: string): Result<PortSpec> {
  let name = '';
  let isConsole = false;
  let target: PortTarget | null = null;
  const wrong = (what: string): Result<never> =>
    fail('device-option-invalid', `--port ${text}: ${what}`, {
      hint: 'for example name=agent,socket=/run/agent.sock or console,stdio',
    });
  for (const word of text.split(',')) {
    const equals = word.indexOf('=');
    const key = equals < 0 ? word : word.slice(0, equals);
    const value = equals < 0 ? null : word.slice(equals + 1);
    const needsValue = key === 'name' || key === 'socket' || key === 'file';
    if (needsValue !== (value !== null && value !== '')) {
      return wrong(needsValue ? `${key} needs a value` : `${word || 'an empty word'} means nothing here`);
    }
    if (key === 'name') {
      if (value === null || !NAME.test(value)) return wrong('a name has 1 to 64 letters, digits, dots and dashes');
      name = value;
    } else if (key === 'console') {
      isConsole = true;
    } else if (key === 'socket' || key === 'file' || key === 'pty' || key === 'stdio') {
      if (target !== null) return wrong('one of socket, file, pty, stdio');
      target = key === 'socket' || key === 'file' ? { kind: key, path: value ?? '' } : { kind: key };
    } else {
      return wrong(`${word} is none of name, console, socket, file, pty, stdio`);
    }
  }
  if (target === null) return wrong('where does it lead? one of socket=PATH, file=PATH, pty, stdio');
  return ok({ name, isConsole, target });
}
