/** The kernel's command line as its own parser takes it apart (lib/cmdline.c, kernel/params.c). */
import { splitCommandLine } from '../kernel-facts.ts';
import { type Evidence, evidence } from './evidence.ts';
import { type Fact, fact, type Observations, type Unknown } from './reading.ts';

export const CMDLINE = '/proc/cmdline';

export interface KernelOption {
  /** With `_` for `-`, which the kernel does not tell apart. */
  readonly name: string;
  /** `undefined` for a bare word. */
  readonly value: string | undefined;
  /** As it is written. */
  readonly text: string;
}

export interface CommandLine {
  readonly state: 'read';
  readonly options: readonly KernelOption[];
  readonly text: string;
}

/** At most 512 options; what follows a lone `--` is init's. */
export function parseCommandLine(text: string): KernelOption[] {
  return splitCommandLine(text).slice(0, 512).map(optionOf);
}

function optionOf(word: string): KernelOption {
  const equals = word.indexOf('=');
  const name = (equals === -1 ? word : word.slice(0, equals)).replaceAll('-', '_');
  return { name, value: equals === -1 ? undefined : word.slice(equals + 1), text: word };
}

export function commandLine(observations: Observations): CommandLine | Unknown {
  const read: Fact = fact(observations, CMDLINE);
  if (read.state === 'read') return { state: 'read', options: parseCommandLine(read.text), text: read.text };
  return read.state === 'unknown' ? read : { state: 'unknown', path: CMDLINE, because: 'not there' };
}

/** The last option of a name, which is the one that counts for nearly all of them. */
export function option(line: CommandLine, name: string): KernelOption | undefined {
  const plain = name.replaceAll('-', '_');
  return line.options.findLast((one) => one.name === plain);
}

/** Every word of a comma-separated option that may be given more than once (`pci=noearly,nommconf`). */
export function words(line: CommandLine, name: string): string[] {
  return line.options.filter((one) => one.name === name).flatMap((one) => (one.value ?? '').split(','));
}

/** kstrtobool(); a bare word is true. */
export function isOn(one: KernelOption | undefined): boolean | undefined {
  if (one === undefined) return undefined;
  if (one.value === undefined || /^([yYtT1]|[oO][nN])/.test(one.value)) return true;
  return /^([nNfF0]|[oO][fF])/.test(one.value) ? false : undefined;
}

/** The options of these names as they stand there, or that none does. */
export function optionEvidence(line: CommandLine, names: readonly string[]): Evidence {
  const seen = line.options.filter((one) => names.includes(one.name)).map((one) => one.text);
  return evidence(CMDLINE, seen.length > 0 ? seen.join(' ') : `no ${names.join(', ')}`);
}
