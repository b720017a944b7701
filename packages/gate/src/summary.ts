/** What the gate says on the console: short when all is well, loud when not. Plain text, safe for any terminal. */
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { Enforcement, Outcome } from '@airlock/core/plan.ts';
import { formatProblem, type Problem } from '@airlock/core/result.ts';

export interface SummaryInput {
  readonly mode: string;
  readonly files: readonly string[];
  readonly inventory: Inventory;
  readonly enforcements: readonly Enforcement[];
  readonly machine: readonly Outcome[];
  readonly problems: readonly Problem[];
  readonly milliseconds: number;
}

const HELD = { enforced: 'held', 'not-enforceable': 'NOT ENFORCEABLE', failed: 'FAILED' } as const;

export function summary(input: SummaryInput): string {
  const lines: string[] = [];
  const from = input.files.length === 0 ? 'no policy' : input.files.join(', ');
  lines.push(`airlock: ${input.mode}, ${from}, Linux ${input.inventory.kernel.release}`);
  for (const problem of input.problems) lines.push(`airlock: !! ${formatProblem(problem)}`);
  const byId = new Map(input.inventory.devices.map((device) => [device.id, device]));
  const rows = input.enforcements.map((one) => row(one, byId.get(one.decision.device), input.mode));
  for (const line of table(rows)) lines.push(`airlock:   ${line}`);
  const unheld = [
    ...input.enforcements.flatMap((one) => one.outcomes.map((outcome) => ({ who: one.decision.device, outcome }))),
    ...input.machine.map((outcome) => ({ who: 'machine', outcome })),
  ].filter(({ outcome }) => outcome.status !== 'enforced' && input.mode === 'enforce');
  for (const { who, outcome } of unheld) {
    lines.push(
      `airlock: ${outcome.status === 'failed' ? '!!' : ' !'} ${who}: ${outcome.property}: ${outcome.because ?? ''}`,
    );
  }
  const connected = input.enforcements.filter((one) => one.decision.level !== 'disconnected').length;
  const words = input.mode === 'enforce' ? 'allowed' : 'would be allowed';
  lines.push(
    `airlock: ${connected} of ${input.enforcements.length} devices ${words}, ${(input.milliseconds / 1000).toFixed(2)} s`,
  );
  // Serial numbers, and words from the kernel, come from the host.
  return `${lines.map((line) => line.replace(/[^\x20-\x7e]/g, '?')).join('\n')}\n`;
}

function row(one: Enforcement, device: Device | undefined, mode: string): string[] {
  const { decision } = one;
  const driver = device?.nodes[device.nodes.length - 1]?.driver;
  return [
    decision.device,
    device?.type ?? '-',
    decision.level,
    mode === 'enforce' ? HELD[one.status] : one.status === 'enforced' ? 'is so' : 'is not so',
    driver ?? '-',
    decision.rule === null ? decision.reason : `${decision.rule.id} (${decision.reason})`,
  ];
}

/** Columns as wide as their widest cell; cells longer than 60 characters are cut. */
function table(rows: readonly (readonly string[])[]): string[] {
  const cut = rows.map((cells) => cells.map((cell) => (cell.length > 60 ? `${cell.slice(0, 57)}...` : cell)));
  const widths: number[] = [];
  for (const cells of cut) {
    for (const [i, cell] of cells.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return cut.map((cells) =>
    cells
      .map((cell, i) => (i === cells.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}
