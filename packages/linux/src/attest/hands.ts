/** What collecting evidence needs besides `Files`: folders in configfs, and a device that answers what is written to it. */
import type { Result } from '@airlock/core/result.ts';

export interface Folders {
  /** mkdir(2). Codes: those of `Files`, `file-refused` where it is there already. */
  make(path: string): Promise<Result<void>>;
  /** rmdir(2) */
  remove(path: string): Promise<Result<void>>;
}

export interface Exchange {
  /** One open device: what is written to it is answered to the one who wrote. */
  transceive(command: Uint8Array): Promise<Result<Uint8Array>>;
  close(): Promise<void>;
}

export interface EvidenceHands {
  readonly folders: Folders;
  /** Opens a character device for both directions. Codes: those of `Files`. */
  openExchange(path: string): Promise<Result<Exchange>>;
}
