/** A requester's link over a DOE mailbox. */
import type { Link } from '../requester/procedure.ts';
import type { Clock, Mailbox } from './mailbox.ts';
import { decodeDoeObject, encodeDoeObject } from './object.ts';

/**
 * One data object each way, as `doeBinding` wraps them. The mailbox has its own limits of time, which are those of PCIe;
 * what SPDM allows for cryptography on top is not known to it. Codes: those of `Mailbox`, `doe-object-*`.
 */
export function doeLink(mailbox: Mailbox, clock: Clock): Link {
  return {
    async exchange(bytes) {
      const object = decodeDoeObject(bytes);
      if (!object.ok) return object;
      const { vendor, type, payload } = object.value;
      const answer = await mailbox.exchange(vendor, type, payload);
      return answer.ok ? encodeDoeObject(vendor, type, answer.value) : answer;
    },
    wait: (milliseconds) => clock.wait(milliseconds),
  };
}
