/**
 * The messages that signatures and MACs cover, as DSP0274 names them: A (VCA), B, C, D and L1 of the connection. Each is a
 * list of whole messages without their signatures' trailing parts; when a list starts anew is the standard's rule, so
 * that nothing signed for one purpose counts for another.
 */
import { REQUEST } from './messages/codes.ts';
import type { MeasurementBlock } from './messages/measurements.ts';

/** Requests that end a CHALLENGE in preparation: M1 starts anew after them. */
const ABANDON_CHALLENGE: readonly number[] = [
  ...[REQUEST.KEY_EXCHANGE, REQUEST.GET_MEASUREMENTS, REQUEST.FINISH, REQUEST.PSK_EXCHANGE, REQUEST.PSK_FINISH],
  ...[REQUEST.KEY_UPDATE, REQUEST.HEARTBEAT, REQUEST.GET_ENCAPSULATED_REQUEST, REQUEST.END_SESSION],
  ...[REQUEST.GET_MEASUREMENT_EXTENSION_LOG, REQUEST.DELIVER_ENCAPSULATED_RESPONSE],
];

/** Of the connection, or of one session: L1 is kept for each. */
export interface MeasurementTranscript {
  measurements: Uint8Array[];
  /** The blocks in those messages. */
  measured: MeasurementBlock[];
}

export function forgetMeasurements(transcript: MeasurementTranscript): void {
  transcript.measurements = [];
  transcript.measured = [];
}

export class Transcripts implements MeasurementTranscript {
  /** VCA: the six messages from GET_VERSION to ALGORITHMS. */
  vca: Uint8Array[] = [];
  /** GET_DIGESTS to the last CERTIFICATE. */
  identity: Uint8Array[] = [];
  /** The first DIGESTS after VCA, which sessions cover when the responder has several keys. */
  digests: Uint8Array | null = null;
  measurements: Uint8Array[] = [];
  measured: MeasurementBlock[] = [];

  /** To be called before a request and its answer are taken in. */
  begin(request: number, session: MeasurementTranscript | null): void {
    if (request !== REQUEST.GET_MEASUREMENTS) forgetMeasurements(session ?? this);
    if (ABANDON_CHALLENGE.includes(request)) this.identity = [];
    if (request === REQUEST.GET_DIGESTS && session === null) this.identity = [];
  }

  /** Everything, for a connection that starts anew. */
  reset(): void {
    this.vca = [];
    this.identity = [];
    this.digests = null;
    forgetMeasurements(this);
  }
}
