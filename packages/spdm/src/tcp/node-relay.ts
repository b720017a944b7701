/** A responder that knows nothing itself: every message is answered by a responder elsewhere, in the same form. */
import { openSocketLink, type SocketLink } from './node-link.ts';
import type { Answerer } from './node-server.ts';
import type { SocketForm } from './socket-form.ts';

export interface Relay {
  /** For one connection here: one of its own there. Codes: those of `openSocketLink` and its `exchange`. */
  open(): Answerer;
  /** Ends the connections there. */
  close(): Promise<void>;
}

/** Milliseconds that the responder there may take on top of what SPDM allows it. */
const WITHIN = 5000;

export function relayTo(place: { readonly host: string; readonly port: number }, form: SocketForm): Relay {
  const links = new Set<SocketLink>();
  return {
    open() {
      const opened = openSocketLink({ ...place, form });
      return async (message) => {
        const link = await opened;
        if (!link.ok) return link;
        links.add(link.value);
        return link.value.exchange(message, WITHIN);
      };
    },
    async close() {
      for (const link of links) await link.close();
      links.clear();
    },
  };
}
