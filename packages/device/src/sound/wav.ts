/** A WAV file that grows: 16 bits a sample. Its lengths are right after every `samples`. RIFF, WAVE format 1. */
import type { SoundSink } from './device.ts';

export const WAV_HEADER = 44;

/** Writes bytes of a file; its end is what was written last. */
export type WriteAt = (at: number, bytes: Uint8Array) => void;

/** At most `limit` bytes of samples; what comes then is heard by nobody. */
export function wavSink(write: WriteAt, limit: number): SoundSink {
  let [rate, channels, length] = [48_000, 2, 0];
  return {
    format(newRate, newChannels) {
      // One file has one format: the first stream's.
      if (length === 0) [rate, channels] = [newRate, newChannels];
    },
    samples(bytes) {
      const piece = bytes.subarray(0, Math.max(0, limit - length));
      if (piece.length === 0) return;
      write(WAV_HEADER + length, piece);
      length += piece.length;
      write(0, wavHeader(rate, channels, length));
    },
  };
}

function wavHeader(rate: number, channels: number, length: number): Uint8Array {
  const bytes = new Uint8Array(WAV_HEADER);
  const view = new DataView(bytes.buffer);
  const text = (at: number, letters: string) => {
    for (let i = 0; i < letters.length; i++) bytes[at + i] = letters.charCodeAt(i);
  };
  text(0, 'RIFF');
  view.setUint32(4, WAV_HEADER - 8 + length, true);
  text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels * 2, true);
  view.setUint16(32, channels * 2, true);
  view.setUint16(34, 16, true);
  text(36, 'data');
  view.setUint32(40, length, true);
  return bytes;
}
