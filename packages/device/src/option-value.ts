/** Text of options as values; what is wrong with it names the option. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { OptionValues } from './serve-type.ts';

/** The text of an option, or null. An empty text is no text. Code: `device-option-invalid`. */
export function readText(values: OptionValues, name: string): Result<string | null> {
  const value = values[name];
  if (value === undefined) return ok(null);
  if (typeof value !== 'string' || value === '') return fail('device-option-invalid', `--${name} needs a value`);
  return ok(value);
}

/** The texts of an option that may be given many times. Code: `device-option-invalid`. */
export function readTexts(values: OptionValues, name: string): Result<readonly string[]> {
  const value = values[name];
  const texts = value === undefined ? [] : typeof value === 'object' ? value : [String(value)];
  if (texts.includes('')) return fail('device-option-invalid', `--${name} needs a value`);
  return ok(texts);
}

export function readFlag(values: OptionValues, name: string): boolean {
  return values[name] === true;
}

/** A whole decimal number from `least` to `most`; `otherwise` when the option was not given. Code: `device-option-invalid`. */
export function readCount(
  values: OptionValues,
  name: string,
  otherwise: number,
  least: number,
  most: number,
): Result<number> {
  const text = readText(values, name);
  if (!text.ok) return text;
  if (text.value === null) return ok(otherwise);
  const count = /^[0-9]{1,15}$/.test(text.value) ? Number(text.value) : Number.NaN;
  if (!(count >= least && count <= most)) {
    return fail('device-option-invalid', `--${name} ${text.value}: a whole number from ${least} to ${most}`);
  }
  return ok(count);
}

/** One of a few words; `otherwise` when the option was not given. Code: `device-option-invalid`. */
export function readWord<W extends string>(
  values: OptionValues,
  name: string,
  otherwise: W,
  words: readonly W[],
): Result<W> {
  const text = readText(values, name);
  if (!text.ok) return text;
  if (text.value === null) return ok(otherwise);
  const word = words.find((one) => one === text.value);
  if (word === undefined) {
    return fail('device-option-invalid', `--${name} ${text.value}: one of ${words.join(', ')}`);
  }
  return ok(word);
}
