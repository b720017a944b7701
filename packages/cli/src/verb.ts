/** What a verb is to the command line. One file a verb below `verb/`; `main.ts` holds the table. */
import type { ParseArgsOptionsConfig } from 'node:util';

export const EXIT = { fine: 0, findings: 1, usage: 2, environment: 3 } as const;

/** Everything a verb may touch of the process it runs in; tests pass their own. */
export interface Context {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Colour and redrawn progress only where a person looks on. */
  readonly terminal: boolean;
  readonly columns: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly readStdin: () => Promise<string>;
  /** The same, for verbs that take binary files. */
  readonly readStdinBytes?: () => Promise<Uint8Array>;
  /** Ends with the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
}

export type Values = Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;

export interface Verb {
  /** `policy check` */
  readonly name: string;
  /** One line for the list of verbs. */
  readonly summary: string;
  /** What follows the name: `[--tree] [--json]` */
  readonly usage: string;
  /** The rest of `--help`: one line an option, then examples. */
  readonly help: string;
  /** The same where words before `--help` choose a part of it: the options of one type of device. */
  helpFor?(positionals: readonly string[]): string;
  readonly options: ParseArgsOptionsConfig;
  /** Returns the exit code. Unknown options and `--help` never reach it. */
  run(context: Context, values: Values, positionals: readonly string[]): Promise<number>;
}

/** Thrown by verbs for wrong use; `main.ts` prints it with the usage line and exits with 2. */
export class UsageError extends Error {}
