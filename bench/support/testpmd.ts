/** DPDK's testpmd, told what to do line by line. From the cache: `tools/debian-cache peers`. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const HOUSE = join(import.meta.dirname, '../..');
const PROMPT = 'testpmd> ';
/** How long an answer may take, in milliseconds. */
const PATIENCE = 30_000;

/** Folder of DPDK's drivers; null where there is no testpmd. */
export function findTestpmd(): string | null {
  const cache = execFileSync(join(HOUSE, 'tools/debian-cache'), ['path'], { encoding: 'utf8' }).trim();
  const drivers = join(cache, 'peers/usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0');
  return existsSync(join(cache, 'peers/usr/bin/dpdk-testpmd')) && existsSync(drivers) ? drivers : null;
}

export class Testpmd {
  private readonly child: ChildProcess;
  /** What DPDK wants to write down about itself. */
  private readonly folder = mkdtempSync(join(tmpdir(), 'airlock-dpdk-'));
  private output = '';
  private seen = 0;
  private waiting: (() => void) | null = null;

  /** `devices` as `--vdev` takes them; forwarding runs on core `core`, which it takes whole while it is started. */
  static async start(
    drivers: string,
    devices: readonly string[],
    core: 0 | 1,
    more: readonly string[],
  ): Promise<Testpmd> {
    const pmd = new Testpmd(drivers, devices, core, more);
    await pmd.answer();
    return pmd;
  }

  private constructor(drivers: string, devices: readonly string[], core: 0 | 1, more: readonly string[]) {
    const common = ['--no-huge', '-m', '256', '--no-pci', '--no-telemetry', '--no-shconf', '-d', drivers];
    const cores = ['-l', '0,1', '--main-lcore', core === 0 ? '1' : '0'];
    const own = ['-i', '--port-topology=loop', '--total-num-mbufs=16384', ...more];
    const args = ['dpdk-testpmd', ...common, ...cores, ...devices.map((device) => `--vdev=${device}`), '--', ...own];
    // Line by line: what it prints must be there before its next prompt.
    this.child = spawn('stdbuf', ['-oL', join(HOUSE, 'tools/cached'), ...args], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: { ...process.env, RUNTIME_DIRECTORY: this.folder },
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
      if (this.output.includes(PROMPT, this.seen)) this.waiting?.();
    });
    this.child.on('close', () => this.waiting?.());
  }

  /** Text up to the next prompt. */
  private async answer(): Promise<string> {
    if (!this.output.includes(PROMPT, this.seen)) {
      await new Promise<void>((done) => {
        const gaveUp = setTimeout(done, PATIENCE);
        this.waiting = () => {
          clearTimeout(gaveUp);
          done();
        };
      });
      this.waiting = null;
    }
    const end = this.output.indexOf(PROMPT, this.seen);
    if (end < 0) throw new Error(`testpmd does not answer: ${this.output.slice(-300)}`);
    const text = this.output.slice(this.seen, end);
    this.output = this.output.slice(end + PROMPT.length);
    this.seen = 0;
    return text;
  }

  command(line: string): Promise<string> {
    this.child.stdin?.write(`${line}\n`);
    return this.answer();
  }

  /** Frames that a port received and sent since it was made. */
  async counts(port: number): Promise<{ received: number; sent: number }> {
    const text = await this.command(`show port stats ${port}`);
    const received = /RX-packets: (\d+) /.exec(text)?.[1];
    const sent = /TX-packets: (\d+) /.exec(text)?.[1];
    if (received === undefined || sent === undefined) throw new Error(`testpmd: no numbers: ${text}`);
    return { received: Number(received), sent: Number(sent) };
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.child.on('close', done));
    this.child.stdin?.end('quit\n');
    const gaveUp = setTimeout(() => this.child.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(gaveUp);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
