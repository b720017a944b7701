/**
 * The first thing that happens to a PCI function that was just plugged in, or that somebody bound although it is denied: no driver may bind to it, and one that the
 * kernel bound (as Linux before 7.2 does in spite of autoprobe) is taken off, before anybody has looked at what it is.
 * A look at the whole machine takes a while; this takes a few writes. The turn that follows decides, and binds it again
 * where the policy lets it in.
 */
import type { EventBody } from '@airlock/core/event.ts';
import type { Step } from '@airlock/core/plan.ts';
import type { Uevent } from '@airlock/transport/uevent.ts';
import { applyPlan, type Hands } from '../apply.ts';

export interface SeizeParts {
  readonly hands: Hands;
  /** Has any look seen this device yet? Those are the turns' business: events of theirs are also made by `udevadm trigger`. */
  readonly known: (device: string) => boolean;
  /** The device went away: whatever comes into its place is another one. */
  readonly depart: (device: string) => void;
  /** Did the latest judgement deny this device, whatever binding would show? */
  readonly denied: (device: string) => boolean;
  /** Tells that somebody bound a known device that is denied. */
  readonly blame: (device: string, driver: string) => void;
  readonly note: (event: EventBody) => void;
}

export interface Seizing {
  /** Begins, and does not wait. */
  hear(uevent: Uevent): void;
  /** The driver that the kernel had bound to a device when it was seized; forgotten once told. */
  boundTo(device: string): string | undefined;
  /** Resolves when what is under way now has ended. */
  rest(): Promise<void>;
}

/** Functions that are being held at a time, and that wait for it; what is beyond that the next turn finds. */
const AT_ONCE = 32;
const WAITING = 8192;
const REMEMBERED = 256;
const FUNCTION = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;

export function startSeizing({ hands, known, depart, denied, blame, note }: SeizeParts): Seizing {
  const underWay = new Map<string, Promise<void>>();
  const waiting = new Map<string, string>();
  const again = new Set<string>();
  const drivers = new Map<string, string>();

  async function seize(device: string, node: string): Promise<void> {
    // Held first, so that whatever is bound by then is the last.
    await step({ kind: 'pin', device, bus: 'pci', node, driver: 'none' });
    const link = await hands.files.link(`/sys/bus/pci/devices/${node}/driver`);
    if (!link.ok) return;
    const driver = link.value.slice(link.value.lastIndexOf('/') + 1);
    if (!known(device) && drivers.size < REMEMBERED) drivers.set(device, driver);
    if (known(device)) blame(device, driver);
    await step({ kind: 'unbind', device, bus: 'pci', node, driver });
  }

  async function step(one: Step): Promise<void> {
    for (const { step, outcome } of await applyPlan({ version: 1, steps: [one] }, hands)) {
      // That it is held is told by the turn that follows, unless it is not.
      if (step.kind !== 'pin' || outcome.status !== 'enforced') note({ kind: 'step', step, outcome });
    }
  }

  function begin(device: string, node: string): void {
    const work = seize(device, node)
      .catch(() => undefined)
      .then(() => {
        underWay.delete(device);
        // Something happened to it meanwhile: the kernel may have bound it after we looked.
        if (again.delete(device) && (!known(device) || denied(device))) begin(device, node);
        beginNext();
      });
    underWay.set(device, work);
  }

  function beginNext(): void {
    while (underWay.size < AT_ONCE) {
      const [next] = waiting;
      if (next === undefined) return;
      const [device, node] = next;
      waiting.delete(device);
      if (!known(device) || denied(device)) begin(device, node);
    }
  }

  return {
    hear({ action, subsystem, devpath, values }) {
      if (subsystem !== 'pci' || (action !== 'add' && action !== 'bind' && action !== 'remove')) return;
      const node = devpath.slice(devpath.lastIndexOf('/') + 1);
      const device = `pci:${node}`;
      if (!FUNCTION.test(node)) return;
      if (action === 'remove') {
        // One that root made by writing to `uevent` (udevadm trigger) says nothing of the device.
        if (!values.has('SYNTH_UUID')) depart(device);
        waiting.delete(device);
        return;
      }
      if (known(device) && !(action === 'bind' && denied(device))) return;
      if (underWay.has(device)) again.add(device);
      else if (underWay.size < AT_ONCE) begin(device, node);
      else if (waiting.size < WAITING) waiting.set(device, node);
    },
    boundTo(device) {
      const driver = drivers.get(device);
      drivers.delete(device);
      return driver;
    },
    async rest() {
      await Promise.all(underWay.values());
      // Those of now, each once: a host that goes on plugging in holds no turn up.
      const mine = [...waiting.keys()];
      for (let left = mine.length; left > 0 && mine.some((device) => waiting.has(device)); left--) {
        await Promise.race(underWay.values());
      }
      await Promise.all(mine.flatMap((device) => underWay.get(device) ?? []));
    },
  };
}
