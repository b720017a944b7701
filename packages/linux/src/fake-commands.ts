/** `Commands` for tests: programs are functions, and every call is kept. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { CommandOptions, CommandOutcome, Commands } from './commands.ts';

export type FakeProgram = (
  argv: readonly string[],
  options: CommandOptions,
) => Partial<CommandOutcome> | Result<CommandOutcome>;

export interface FakeCommands extends Commands {
  /** Every call in order, refused ones too. */
  readonly calls: (readonly string[])[];
  /** By name or path, as `argv[0]` gives it. Tests may change it while it is in use. */
  readonly programs: Map<string, FakeProgram>;
}

export function fakeCommands(programs: Readonly<Record<string, FakeProgram>> = {}): FakeCommands {
  const table = new Map(Object.entries(programs));
  const calls: (readonly string[])[] = [];
  return {
    calls,
    programs: table,
    async run(argv, options = {}) {
      calls.push([...argv]);
      const name = argv[0] ?? '';
      const program = table.get(name);
      if (program === undefined) return fail('command-missing', `${name}: no such program`);
      const answer = program(argv, options);
      return 'ok' in answer ? answer : ok({ status: 0, stdout: '', stderr: '', ...answer });
    },
  };
}
