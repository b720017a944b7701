/** Words that a process says, one a line on its standard output, waited for one after the other. */
import type { ChildProcess } from 'node:child_process';

/**
 * What waits for the next such word and forgets what was said until then. Rejects when it does not come within 30 s. One
 * at a time.
 */
export function childWords(child: ChildProcess): (word: string) => Promise<void> {
  let said = '';
  let look = () => {};
  child.stdout?.on('data', (bytes: Buffer) => {
    said += bytes.toString('latin1');
    look();
  });
  return (word) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the process did not say ${word}`)), 30_000);
      look = () => {
        const at = said.indexOf(`${word}\n`);
        if (at < 0) return;
        said = said.slice(at + word.length + 1);
        look = () => {};
        clearTimeout(timer);
        resolve();
      };
      look();
    });
}
