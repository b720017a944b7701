/** Text for a terminal: colour only when asked for, nothing that somebody else could steer it with. Pure. */
import { asciiText } from '@airlock/core/bytes.ts';

export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
  readonly warn: (text: string) => string;
}

export function painter(colour: boolean): Paint {
  const with_ = (code: string) => (text: string) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { bold: with_('1'), dim: with_('2'), good: with_('32'), bad: with_('31'), warn: with_('33') };
}

/** Printable ASCII; our own texts have two characters that are not. */
export function safe(text: string): string {
  const plain = text.replaceAll('…', '...').replaceAll('’', "'");
  return asciiText(Uint8Array.from(plain, (character) => Math.min(character.charCodeAt(0), 255)));
}

export function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 0)} s`;
}
