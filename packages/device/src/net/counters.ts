/** What became of every frame. Nothing is dropped without being counted here. */
export interface NetCounters {
  /** Frames and bytes from the driver to the other end, each segment of a joined one counted. */
  sentFrames: number;
  sentBytes: number;
  /** Frames and bytes from the other end to the driver. */
  receivedFrames: number;
  receivedBytes: number;

  /** From the driver: chains that are shorter than a header and an Ethernet header, or longer than any frame. */
  sentLength: number;
  /** From the driver: headers that contradict their frame or what was negotiated. */
  sentClaims: number;
  /** From the driver: nobody is at the other end. */
  sentUnplugged: number;

  /** For the driver: it did not ask for these addresses or VLANs. */
  receivedUnwanted: number;
  /** For the driver: no buffer, or all that it may have together, is long enough. */
  receivedNoFit: number;
  /** For the driver: joined, but not in a way that could be cut for a driver that does not take it. */
  receivedClaims: number;
  /** Buffers too short for a header, given back empty. */
  shortBuffers: number;
  /** Chains that broke a rule of their ring. */
  malformedChains: number;
  /** Commands on the control queue that were refused. */
  refusedCommands: number;
}

export function zeroCounters(): NetCounters {
  return {
    sentFrames: 0,
    sentBytes: 0,
    receivedFrames: 0,
    receivedBytes: 0,
    sentLength: 0,
    sentClaims: 0,
    sentUnplugged: 0,
    receivedUnwanted: 0,
    receivedNoFit: 0,
    receivedClaims: 0,
    shortBuffers: 0,
    malformedChains: 0,
    refusedCommands: 0,
  };
}

/** Drops that are nobody's wish, in words; the others (frames that the driver's own filter leaves out) are not told. */
const TOLD: Readonly<Record<string, string>> = {
  sentLength: 'sent, with an impossible length',
  sentClaims: 'sent, with a header that is not true of the frame',
  sentUnplugged: 'sent while nobody was there',
  receivedNoFit: 'received, too long for the driver’s buffers or its MTU',
  receivedClaims: 'received, joined in a way that cannot be cut',
  shortBuffers: 'receive buffers too short for a header',
  malformedChains: 'chains that broke a rule of their ring',
  refusedCommands: 'commands refused',
  malformed: 'frames of the peer that broke a rule',
  refused: 'frames that the peer did not take',
  misframed: 'connections ended because lengths were impossible',
};

/** What was dropped, as one line; null when nothing was. */
export function describeDrops(counters: Readonly<Record<string, number>>): string | null {
  const parts = Object.entries(TOLD)
    .map(([name, words]) => ({ count: counters[name] ?? 0, words }))
    .filter(({ count }) => count > 0)
    .map(({ count, words }) => `${count} ${words}`);
  return parts.length === 0 ? null : parts.join('; ');
}
