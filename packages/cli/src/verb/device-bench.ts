/** `airlock device bench SOCKET`: how fast is this block device? */
import { formatProblem } from '@airlock/core/result.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { type BlockBenchReport, benchBlock } from '@airlock/transport/vhost-user/block-bench.ts';
import { safe } from '../agent-view.ts';
import { readSocket, readSpan } from '../device-socket.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

const PATTERNS = ['randread', 'randwrite'] as const;

export const verb: Verb = {
  name: 'device bench',
  summary: 'how fast a vhost-user block device is: rates and latencies',
  usage:
    'SOCKET [--seconds N] [--depth N] [--block-size BYTES] [--pattern NAME] [--queues N] [--poll | --event] [--json]',
  help: `
Random requests from a driver that copies all data through its own pool, as a confidential VM does.

  --seconds N         how long; 5
  --depth N           requests in flight in each queue, 1 to 256; 32
  --block-size BYTES  a multiple of 512 up to 1048576; 4096
  --pattern NAME      randread (default) or randwrite; writing needs --allow-writes, and destroys what is on the disk
  --allow-writes      yes, overwrite it
  --queues N          request queues, 1 to 16; 1
  --poll              look for completions all the time; this is the default from depth 8 on
  --event             sleep until the device says that there are some; the default below
  --split             no packed ring, though offered
  --json              one JSON value

Latencies are in microseconds, from the making of a request to its end. Exit codes: 0 measured, 1 requests failed,
2 usage, 3 it cannot be reached, or is no block device.

  airlock device bench /run/vm1/disk.sock
  airlock device bench /run/vm1/disk.sock --depth 1 --poll --seconds 10 --json
`,
  options: {
    seconds: { type: 'string' },
    depth: { type: 'string' },
    'block-size': { type: 'string' },
    pattern: { type: 'string' },
    'allow-writes': { type: 'boolean' },
    queues: { type: 'string' },
    poll: { type: 'boolean' },
    event: { type: 'boolean' },
    split: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const socket = readSocket(context, positionals);
  const pattern = PATTERNS.find((name) => name === (values['pattern'] ?? 'randread'));
  if (pattern === undefined) throw new UsageError(`--pattern: one of ${PATTERNS.join(', ')}`);
  if (pattern === 'randwrite' && values['allow-writes'] !== true) {
    throw new UsageError('randwrite overwrites what is on the disk; say --allow-writes if that is meant');
  }
  if (values['poll'] === true && values['event'] === true) throw new UsageError('either --poll or --event');
  const blockSize = readSpan(values, 'block-size', 4096, 512, 1_048_576);
  if (blockSize % 512 !== 0) throw new UsageError(`--block-size ${blockSize}: a multiple of 512`);
  const depth = readSpan(values, 'depth', 32, 1, 256);
  const options = {
    seconds: readSpan(values, 'seconds', 5, 1, 86_400),
    depth,
    blockSize,
    pattern,
    queues: readSpan(values, 'queues', 1, 1, 16),
    poll: values['poll'] === true || (values['event'] !== true && depth >= 8),
    withoutFeatures: values['split'] === true ? [34] : [],
  };
  const calls = await loadSystemCalls();
  const report = calls.ok ? benchBlock(socket, { calls: calls.value, ...options }) : calls;
  if (!report.ok) {
    context.stderr(`airlock device bench: ${safe(formatProblem(report.error))}\n`);
    return EXIT.environment;
  }
  const { withoutFeatures: _, ...asked } = options;
  const json = values['json'] === true;
  context.stdout(
    json ? `${JSON.stringify({ socket, ...asked, ...report.value }, null, 2)}\n` : text(asked, report.value),
  );
  return report.value.errors === 0 ? EXIT.fine : EXIT.findings;
}

interface Asked {
  readonly depth: number;
  readonly blockSize: number;
  readonly pattern: string;
  readonly poll: boolean;
}

function text({ depth, blockSize, pattern, poll }: Asked, report: BlockBenchReport): string {
  const { latency } = report;
  const us = (value: number): string => (value < 100 ? value.toFixed(1) : value.toFixed(0));
  const ring = report.packed ? 'packed' : 'split';
  const lines = [
    `${pattern}, ${blockSize} bytes, depth ${depth}, ${report.queues} queue${report.queues === 1 ? '' : 's'} (${ring}), ${poll ? 'polled' : 'by notification'}`,
    `requests  ${report.requests} in ${report.seconds.toFixed(2)} s: ${(report.requestsPerSecond / 1000).toFixed(1)} k/s, ${(report.bytesPerSecond / 2 ** 20).toFixed(1)} MiB/s`,
    `latency   p50 ${us(latency.p50)}  p99 ${us(latency.p99)}  p99.9 ${us(latency.p999)}  mean ${us(latency.mean)}  min ${us(latency.min)}  max ${us(latency.max)} us`,
  ];
  if (report.errors > 0) lines.push(`errors    ${report.errors} requests failed`);
  return `${lines.join('\n')}\n`;
}
