/** Counts of durations, in buckets that are at most 1.6 % wide: nothing is allocated for a measurement. */

const SUB_BITS = 6;
const SUB = 1 << SUB_BITS;
/** From nanoseconds to over an hour. */
const OCTAVES = 42;

export class Latency {
  count = 0;
  private sum = 0;
  private least = Number.POSITIVE_INFINITY;
  private most = 0;
  private readonly buckets = new Float64Array(OCTAVES * SUB);

  /** A duration in milliseconds. */
  add(milliseconds: number): void {
    const nanoseconds = milliseconds <= 0 ? 0 : Math.round(milliseconds * 1e6);
    this.count++;
    this.sum += nanoseconds;
    if (nanoseconds < this.least) this.least = nanoseconds;
    if (nanoseconds > this.most) this.most = nanoseconds;
    const at = bucketOf(nanoseconds);
    this.buckets[at] = (this.buckets[at] as number) + 1;
  }

  /** The least duration, in microseconds, that `share` (0 to 1) of all are not above; 0 when there are none. */
  quantile(share: number): number {
    const rank = Math.max(1, Math.ceil(share * this.count));
    let seen = 0;
    for (let at = 0; at < this.buckets.length; at++) {
      seen += this.buckets[at] as number;
      if (this.count > 0 && seen >= rank) return Math.min(upperEnd(at), this.most) / 1000;
    }
    return 0;
  }

  /** In microseconds. */
  get mean(): number {
    return this.count === 0 ? 0 : this.sum / this.count / 1000;
  }

  get min(): number {
    return this.count === 0 ? 0 : this.least / 1000;
  }

  get max(): number {
    return this.most / 1000;
  }
}

function bucketOf(nanoseconds: number): number {
  if (nanoseconds < SUB) return nanoseconds;
  const octave = Math.min(Math.floor(Math.log2(nanoseconds)) - SUB_BITS + 1, OCTAVES - 1);
  return octave * SUB + Math.min(Math.floor(nanoseconds / 2 ** octave), SUB - 1);
}

/** The largest duration of a bucket. */
function upperEnd(bucket: number): number {
  const octave = Math.floor(bucket / SUB);
  return octave === 0 ? bucket : ((bucket % SUB) + 1) * 2 ** octave - 1;
}
