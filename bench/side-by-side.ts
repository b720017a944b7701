/**
 * Ours and the peers' in turn, in one process, so that whatever slows this machine down slows both. The median of the
 * turns is the number; the least and the greatest stand beside it.
 */

export interface Side {
  readonly name: string;
  /**
   * Does the work that many times over: `times` × `Bench.operations` operations. A side that works elsewhere and measures
   * itself returns the milliseconds that they took.
   */
  run(times: number): void | Promise<void> | Promise<number>;
  /** What else the last run measured: a column each, by its title. The medians of the turns are shown. */
  more?(): Readonly<Record<string, number>>;
}

export interface Bench {
  /** Its file's name; `run.ts NAME` runs it alone. */
  readonly name: string;
  /** One line: what is compared, on what. */
  readonly title: string;
  /** What one operation is: `decisions`, `boots`. */
  readonly unit: string;
  /** `rate` prints operations a second (more is better), `time` milliseconds an operation (less is better). */
  readonly show: 'rate' | 'time';
  /** Turns of each side; 9 when not given. */
  readonly turns?: number;
  /** How long one turn should last, in milliseconds; 200 when not given. 0 for one run a turn. */
  readonly turnLength?: number;
  /**
   * Makes the sides ready, and makes sure that they do the same thing: a benchmark of different answers is none. Returns
   * a line that says what is missing where it cannot run.
   */
  prepare(): Promise<Prepared | string>;
}

export interface Prepared {
  readonly ours: readonly Side[];
  readonly peers: readonly Side[];
  /** Operations in one run of a side. */
  readonly operations: number;
  close?(): Promise<void>;
}

export interface Row {
  readonly name: string;
  readonly ours: boolean;
  /** Operations a second, or milliseconds an operation. */
  readonly median: number;
  readonly least: number;
  readonly greatest: number;
  /** For ours: how many times better than each peer, in the order of the peers. */
  readonly ratios: readonly number[];
  /** What else the side measured, by its title: medians. */
  readonly more: Readonly<Record<string, number>>;
}

export interface Report {
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly show: 'rate' | 'time';
  readonly turns: number;
  readonly peers: readonly string[];
  readonly rows: readonly Row[];
}

interface Racer {
  readonly side: Side;
  times: number;
  /** Milliseconds an operation, one a turn. */
  readonly taken: number[];
  readonly more: Readonly<Record<string, number>>[];
}

export async function measure(bench: Bench, prepared: Prepared): Promise<Report> {
  const turns = bench.turns ?? 9;
  const length = bench.turnLength ?? 200;
  const racers = [...prepared.ours, ...prepared.peers].map((side): Racer => ({ side, times: 1, taken: [], more: [] }));
  if (length > 0) for (const racer of racers) racer.times = await timesFor(racer.side, length);
  for (let turn = 0; turn < turns; turn++) {
    for (const { side, times, taken, more } of racers) {
      taken.push((await clock(side, times)) / times / prepared.operations);
      if (side.more !== undefined) more.push(side.more());
    }
  }
  const rows = racers.map(({ side, taken, more }): Row => {
    const sorted = [...taken].sort((a, b) => a - b).map((each) => (bench.show === 'rate' ? 1000 / each : each));
    const [first, last] = [sorted[0] ?? 0, sorted[sorted.length - 1] ?? 0];
    return {
      name: side.name,
      ours: prepared.ours.includes(side),
      median: sorted[Math.floor(sorted.length / 2)] ?? 0,
      least: Math.min(first, last),
      greatest: Math.max(first, last),
      ratios: [],
      more: Object.fromEntries(
        Object.keys(more[0] ?? {}).map((title) => [title, median(more.map((one) => one[title]))]),
      ),
    };
  });
  const peers = rows.filter((row) => !row.ours);
  const better = (mine: number, theirs: number) => (bench.show === 'rate' ? mine / theirs : theirs / mine);
  return {
    ...{ name: bench.name, title: bench.title, unit: bench.unit, show: bench.show, turns },
    peers: peers.map(({ name }) => name),
    rows: rows.map((row) =>
      row.ours ? { ...row, ratios: peers.map((peer) => better(row.median, peer.median)) } : row,
    ),
  };
}

function median(values: readonly (number | undefined)[]): number {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** Warms the side up, and finds how often it must run to fill a turn. */
async function timesFor(side: Side, length: number): Promise<number> {
  let times = 1;
  for (;;) {
    const taken = await clock(side, times);
    if (taken >= length / 2 || times >= 2 ** 30)
      return Math.max(1, Math.round((times * length) / Math.max(taken, 0.001)));
    times *= taken < length / 20 ? 8 : 2;
  }
}

async function clock(side: Side, times: number): Promise<number> {
  const start = performance.now();
  const own = await side.run(times);
  return own ?? performance.now() - start;
}

/** An aligned table: a line for each side, a column of ratios for each peer. */
export function formatReport(report: Report): string {
  const unit = report.show === 'rate' ? `${report.unit}/s` : `ms/${report.unit.replace(/s$/, '')}`;
  const titles = Object.keys(report.rows[0]?.more ?? {});
  const head = ['', unit, 'least', 'greatest', ...titles, ...report.peers.map((peer) => `× ${peer}`)];
  const body = report.rows.map((row) => [
    row.name,
    amount(row.median),
    amount(row.least),
    amount(row.greatest),
    ...titles.map((title) => amount(row.more[title] ?? 0)),
    ...row.ratios.map((ratio) => ratio.toFixed(ratio < 10 ? 2 : 0)),
  ]);
  const widths = head.map((title, i) =>
    Math.max(...[head, ...body].map((cells) => (cells[i] ?? '').length), title.length),
  );
  const lines = [head, ...body].map((cells) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
  );
  const about = `${report.name}: ${report.title}`;
  return `${about}\n${lines.map((line) => `  ${line}`.trimEnd()).join('\n')}\n  (medians of ${report.turns} turns)\n`;
}

/** Three significant digits or whole numbers, thousands apart. */
function amount(value: number): string {
  if (value < 100) return value.toPrecision(3);
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ' ');
}
