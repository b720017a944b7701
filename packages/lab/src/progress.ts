/** Progress of a run: steps with their time, redrawn in place where a person looks on, one line each elsewhere. */
import { painter } from './paint.ts';
import type { ScenarioEvent, StepName } from './scenario.ts';

export interface Progress {
  tell(event: ScenarioEvent): void;
  /** Stops redrawing and leaves the lines as they are. */
  end(): void;
}

const TICK = 200;
const SPINNER = '|/-\\';

export function progressOn(write: (text: string) => void, terminal: boolean, columns: number): Progress {
  const paint = painter(terminal);
  const running = new Map<StepName, { readonly title: string; readonly since: number }>();
  let note = '';
  let drawn = 0;
  let turn = 0;

  /** Running steps below those that are done; erased before anything else is written. */
  function erase(): void {
    if (drawn > 0) write(`\x1b[${drawn}A\x1b[J`);
    drawn = 0;
  }
  function draw(): void {
    if (!terminal) return;
    erase();
    turn += 1;
    for (const { title, since } of running.values()) {
      const line = `  ${SPINNER[turn % SPINNER.length]} ${title} … ${((performance.now() - since) / 1000).toFixed(0)} s${note === '' ? '' : `  ${note}`}`;
      write(`${paint.dim(line.slice(0, (columns < 40 ? 80 : columns) - 1))}\n`);
      drawn += 1;
    }
  }
  const timer = terminal ? setInterval(draw, TICK) : undefined;
  timer?.unref();

  return {
    tell(event) {
      erase();
      switch (event.kind) {
        case 'note':
          if (terminal) note = event.text;
          else write(`  ${event.text}\n`);
          break;
        case 'machine': {
          const { name, because } = event.accelerator;
          write(
            `${paint.bold(`airlock lab: Linux ${event.kernel}, QEMU ${name === 'kvm' ? 'with KVM' : 'by emulation (TCG)'}`)}\n  ${paint.dim(because)}\n`,
          );
          break;
        }
        case 'begin':
          running.set(event.step, { title: event.title, since: performance.now() });
          break;
        case 'end':
          running.delete(event.step);
          note = '';
          write(
            `  ${paint.good(terminal ? '✓' : 'ok')} ${event.title} ${paint.dim(`${event.seconds.toFixed(1)} s`)}\n`,
          );
          break;
      }
      draw();
    },
    end() {
      clearInterval(timer);
      erase();
    },
  };
}
