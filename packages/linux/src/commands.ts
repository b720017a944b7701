/**
 * The second hand on a Linux machine: programs. Three forms, as with `Files`: `node-commands.ts` (the CLI and the
 * agent), the gate's own over QuickJS, and `fake-commands.ts` for tests.
 *
 * Nothing here throws. Codes: `command-missing` (no such program, or it cannot be run), `command-timeout` (it did not
 * end in time and was killed), `command-too-loud` (it wrote more than OUTPUT_LIMIT and was killed). A program that ran
 * and said no is a result: its `status` is not 0 (128 + signal when a signal ended it).
 */
import type { Result } from '@airlock/core/result.ts';

/** Bytes of standard output, and of standard error, that one command may write. */
export const OUTPUT_LIMIT = 1_048_576;

export interface CommandOutcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  /** Milliseconds; 10,000 when left out. */
  readonly timeout?: number;
  /** Standard input; empty when left out. */
  readonly input?: string;
}

export interface Commands {
  /** Runs a program without a shell. `argv[0]` is a path, or a name that is looked for in the usual folders. */
  run(argv: readonly string[], options?: CommandOptions): Promise<Result<CommandOutcome>>;
}
