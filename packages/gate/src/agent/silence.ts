/** Which devices hold our reads, and for how long. */

export interface Silence {
  /**
   * Takes note of one look at one of a device's sources. True when it held this look and the one before, and enough
   * time lies between: one read that was late is a busy machine.
   */
  hear(device: string, source: string, held: boolean, uptime: number): boolean;
  isSilent(device: string): boolean;
  forget(device: string): void;
  /** Is there a device whose second look is still due? */
  readonly undecided: boolean;
}

/** Milliseconds between the first and the second look. */
export const APART_MS = 4000;

export function startSilence(): Silence {
  const since = new Map<string, Map<string, { readonly at: number; readonly confirmed: boolean }>>();

  return {
    hear(device, source, held, uptime) {
      const sources = since.get(device) ?? new Map<string, { at: number; confirmed: boolean }>();
      if (!held) {
        sources.delete(source);
        if (sources.size === 0) since.delete(device);
        return false;
      }
      const first = sources.get(source);
      const confirmed = first !== undefined && uptime - first.at >= APART_MS;
      sources.set(source, { at: first?.at ?? uptime, confirmed });
      since.set(device, sources);
      return confirmed;
    },
    isSilent: (device) => since.has(device),
    forget: (device) => void since.delete(device),
    get undecided() {
      for (const sources of since.values()) for (const { confirmed } of sources.values()) if (!confirmed) return true;
      return false;
    },
  };
}
