/** `--virtual-function NAME=VALUE,...` of `airlock device serve`: what is different about one function beside the first. */
import { nearest } from '@airlock/core/nearest.ts';
import type { DeviceNeeds, OptionValues, PreparedDevice, ServedType } from '@airlock/device/serve-type.ts';
import { safe } from './agent-view.ts';
import { UsageError } from './verb.ts';

export type Chosen = Readonly<Record<string, string | boolean | readonly string[]>>;

export interface VirtualFunction {
  /** Those of the first function, with what was said to be different. */
  readonly values: Chosen;
  readonly prepared: PreparedDevice;
}

/** PCI Express functions of one slot, behind function 0. */
const MOST = 7;

/** One for each text. A comma within a value is doubled, as QEMU has it; an empty text changes nothing. Throws UsageError. */
export function readVirtualFunctions(
  texts: readonly string[],
  type: ServedType,
  own: Chosen,
): readonly VirtualFunction[] {
  if (texts.length > MOST) throw new UsageError(`--virtual-function: at most ${MOST}`);
  return texts.map((text) => {
    const values = { ...own, ...differences(text, type) };
    const prepared = type.prepare(values satisfies OptionValues);
    if (!prepared.ok) throw wrong(text, [prepared.error.message, prepared.error.hint ?? []].flat().join('; '));
    return { values, prepared: prepared.value };
  });
}

function differences(text: string, type: ServedType): Chosen {
  const found: Record<string, string | boolean | readonly string[]> = {};
  const words = text === '' ? [] : text.replaceAll(',,', '\0').split(',');
  for (const word of words.map((one) => one.replaceAll('\0', ','))) {
    const at = word.indexOf('=');
    const name = at < 0 ? word : word.slice(0, at);
    const value = at < 0 ? undefined : word.slice(at + 1);
    const option = Object.hasOwn(type.options, name) ? type.options[name] : undefined;
    if (option === undefined) {
      const near = nearest(name, Object.keys(type.options));
      throw wrong(
        text,
        `no option ${name === '' ? '(empty)' : name}${near === undefined ? '' : `; did you mean ${near}?`}`,
      );
    }
    if ((option.type === 'boolean') !== (value === undefined)) {
      throw wrong(text, option.type === 'boolean' ? `${name} takes no value` : `${name}=${option.value ?? 'VALUE'}`);
    }
    const given = value ?? true;
    const before = found[name];
    if (option.multiple === true) found[name] = [...(Array.isArray(before) ? before : []), String(given)];
    else if (before !== undefined) throw wrong(text, `${name} stands twice`);
    else found[name] = given;
  }
  return found;
}

function wrong(text: string, why: string): UsageError {
  return new UsageError(safe(`--virtual-function ${JSON.stringify(text.slice(0, 200))}: ${why}`));
}

/** What a process needs that serves all of them. */
export function joinNeeds(all: readonly (DeviceNeeds | undefined)[]): DeviceNeeds {
  return {
    keep: [...new Set(all.flatMap((needs) => needs?.keep ?? []))],
    unixSockets: all.some((needs) => needs?.unixSockets === true),
    listens: all.flatMap((needs) => needs?.listens ?? []),
    folders: all.flatMap((needs) => needs?.folders ?? []),
  };
}
