/**
 * What the guest's own sysfs says of its devices, read with busybox: the lab's second opinion, which owes nothing to
 * Airlock's code. Pure but for `lookInto`.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Guest } from './guest.ts';

export interface SeenNode {
  /** Bus below /sys/bus. */
  readonly bus: string;
  readonly name: string;
  readonly driver: string | null;
}

export interface SeenDevice {
  /** As Airlock names it: `pci:0000:00:03.0`. */
  readonly id: string;
  /** Outermost first: the PCI function, then what hangs below it on the virtio bus. */
  readonly nodes: readonly SeenNode[];
  /** From the PCI function. */
  readonly ids: { readonly vendor: number; readonly device: number; readonly class: number };
}

export interface View {
  readonly pci: readonly SeenDevice[];
  /** `platform/i8042` → `i8042`, for every bus. */
  readonly drivers: ReadonlyMap<string, string>;
  /** `lab-disk` → `virtio7`: what has grown on the virtio bus from each device that is none of PCI's, by its name. */
  readonly grown: ReadonlyMap<string, string>;
}

export const VIEW_SCRIPT = `
cd /sys/bus
grep -H . pci/devices/*/vendor pci/devices/*/device pci/devices/*/class 2>/dev/null
ls -ld virtio/devices/* */devices/*/driver 2>/dev/null | sed -n 's/^l.* \\([^ ]* -> .*\\)$/\\1/p'
exit 0
`;

export async function lookInto(guest: Guest): Promise<Result<View>> {
  const answer = await guest.run(VIEW_SCRIPT);
  if (!answer.ok) return answer;
  return parseView(answer.value.stdout);
}

/** Codes: `guest-answer`. */
export function parseView(text: string): Result<View> {
  const ids = new Map<string, { vendor?: number; device?: number; class?: number }>();
  const drivers = new Map<string, string>();
  const children = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const value = /^pci\/devices\/([0-9a-f:.]+)\/(vendor|device|class):0x([0-9a-f]{1,6})$/.exec(line);
    const link = /^([\w-]+)\/devices\/(.+?)(\/driver)? -> (.+)$/.exec(line);
    if (value) {
      const [, name = '', field = '', hex = ''] = value;
      ids.set(name, { ...ids.get(name), [field]: Number.parseInt(hex, 16) });
    } else if (link) {
      const [, bus = '', name = '', isDriver, target = ''] = link;
      const path = target.split('/');
      if (isDriver !== undefined) drivers.set(`${bus}/${name}`, path.at(-1) ?? '');
      else {
        // …/pci0000:00/0000:00:03.0/virtio1: the function is the folder above.
        const above = path.at(-2) ?? '';
        children.set(above, [...(children.get(above) ?? []), name]);
      }
    } else if (line !== '') return fail('guest-answer', `not a line of the view: ${line.slice(0, 120)}`);
  }
  if (ids.size === 0) return fail('guest-answer', 'the guest shows no PCI function at all');
  const node = (bus: string, name: string): SeenNode => ({ bus, name, driver: drivers.get(`${bus}/${name}`) ?? null });
  const pci = [...ids]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, id]) => ({
      id: `pci:${name}`,
      nodes: [node('pci', name), ...(children.get(name) ?? []).map((child) => node('virtio', child))],
      ids: { vendor: id.vendor ?? 0, device: id.device ?? 0, class: id.class ?? 0 },
    }));
  const grown = new Map(
    [...children].flatMap(([above, [first]]) =>
      ids.has(above) || first === undefined ? [] : [[above, first] as const],
    ),
  );
  return ok({ pci, drivers, grown });
}

/** The driver that makes the device usable: of the innermost node; for virtio that is not virtio-pci. */
export function usableDriver(device: SeenDevice): string | null {
  const inner = device.nodes.at(-1);
  if (inner === undefined || (inner.bus === 'pci' && inner.driver === 'virtio-pci')) return null;
  return inner.driver;
}

/** Any driver at all, on any node. */
export function touchingDriver(device: SeenDevice): string | null {
  return device.nodes.map((node) => node.driver).findLast((driver) => driver !== null) ?? null;
}

/** The driver of a device by Airlock's id, whatever its bus; `undefined` when the guest does not have it. */
export function driverOf(view: View, id: string): string | null | undefined {
  if (id.startsWith('pci:')) {
    const pci = view.pci.find((device) => device.id === id);
    return pci === undefined ? undefined : usableDriver(pci);
  }
  if (id.startsWith('vdpa:')) {
    // Usable is what programs reach it through.
    const virtio = view.grown.get(id.slice('vdpa:'.length));
    return virtio === undefined ? null : (view.drivers.get(`virtio/${virtio}`) ?? null);
  }
  // What Airlock calls a platform device may be on the PNP bus.
  const name = id.slice(id.indexOf(':') + 1);
  return view.drivers.get(id.replace(':', '/')) ?? view.drivers.get(`pnp/${name}`) ?? null;
}
