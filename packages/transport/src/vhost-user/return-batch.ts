/** Chains that were given back and not yet shown to the driver, in the order in which it will see them. */

export class ReturnBatch {
  /** The first `count` are shown next. */
  readonly ids: Uint16Array;
  count = 0;
  /** IN_ORDER: chains in the order in which they were taken, and which of them are done. */
  private readonly line: number[] | null;
  private readonly done: Uint8Array;

  constructor(size: number, inOrder: boolean) {
    this.ids = new Uint16Array(size);
    this.line = inOrder ? [] : null;
    this.done = new Uint8Array(size);
  }

  /** The chain was taken. */
  enter(id: number): void {
    this.line?.push(id);
    this.done[id] = 0;
  }

  /** The chain was given back: it is shown with the next batch, with IN_ORDER once all before it are. */
  leave(id: number): void {
    if (this.line !== null) this.done[id] = 1;
    else this.ids[this.count++] = id;
  }

  /** Fixes what is shown now; returns how many. */
  close(): number {
    const { line, ids, done } = this;
    if (line !== null) {
      while (line.length > 0 && done[line[0] as number] === 1) ids[this.count++] = line.shift() as number;
      for (let i = 0; i < this.count; i++) done[ids[i] as number] = 0;
    }
    return this.count;
  }

  clear(): void {
    this.count = 0;
    if (this.line !== null) this.line.length = 0;
    this.done.fill(0);
  }
}
