/** What a person brings to `airlock lab up`: `--device`, `--nvme`, `--tpm`. */
import { nearest } from '@airlock/core/nearest.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { bootProof } from '@airlock/lab/boot-proof.ts';
import type { KernelSeries } from '@airlock/lab/cache.ts';
import { type DeviceOrder, readDeviceOrder } from '@airlock/lab/device-order.ts';
import { driveTour, SHORT_TOUR, TOUR_CONDUCTS } from '@airlock/lab/drive-tour.ts';
import type { Exhibit } from '@airlock/lab/exhibit.ts';
import { MOST_PORTS } from '@airlock/lab/machine.ts';
import { pluggedDevices } from '@airlock/lab/plugged-devices.ts';
import type { DriveConduct } from '@airlock/lab/spdm-drive.ts';
import { safe } from './agent-view.ts';
import { type Context, UsageError, type Values } from './verb.ts';

/** In the order in which they are shown: the proof is of the boot, whatever happens later. */
export async function exhibitsOf(context: Context, values: Values, series: KernelSeries): Promise<readonly Exhibit[]> {
  const orders = await ordersOf(values, series);
  const exhibits: Exhibit[] = [];
  if (values['tpm'] === true) exhibits.push(bootProof());
  if (orders.length > 0) exhibits.push(pluggedDevices(orders, context.cwd, values['allow'] === true));
  else if (values['allow'] === true) throw new UsageError('--allow is for what --device plugs in');
  if (typeof values['nvme'] === 'string') {
    const tour = driveTour(conductsOf(values['nvme']));
    if (!tour.ok) throw new UsageError(`--nvme: ${formatProblem(tour.error)}`);
    exhibits.push(tour.value);
  }
  const ports = exhibits.reduce((sum, exhibit) => sum + exhibit.ports, 0);
  if (ports > MOST_PORTS) throw new UsageError(`the machine has ${MOST_PORTS} free slots, and ${ports} are wanted`);
  if (exhibits.length > 0 && values['compare'] === true)
    throw new UsageError('--compare is of the machine as it is; leave it out with --device, --nvme and --tpm');
  return exhibits;
}

async function ordersOf(values: Values, series: KernelSeries): Promise<readonly DeviceOrder[]> {
  const given = values['device'];
  const orders: DeviceOrder[] = [];
  for (const text of Array.isArray(given) ? given : []) {
    const order = await readDeviceOrder(String(text), series);
    if (!order.ok) throw new UsageError(`--device ${safe(order.error.message)}`);
    orders.push(order.value);
  }
  return orders;
}

/** The honest drive comes first, so that what the others change is seen. */
function conductsOf(text: string): readonly DriveConduct[] {
  const chosen = text.split(',').flatMap((word): readonly DriveConduct[] => {
    if (word === 'tour') return SHORT_TOUR;
    if (word === 'mute')
      throw new UsageError(
        '--nvme mute: QEMU waits for its answer, and the whole machine with it; endless-busy answers',
      );
    const known = TOUR_CONDUCTS.find((one) => one === word);
    if (known !== undefined) return [known];
    const near = nearest(word, ['tour', ...TOUR_CONDUCTS]);
    const list = `one of tour, ${TOUR_CONDUCTS.join(', ')}`;
    throw new UsageError(`--nvme ${safe(word)}: ${near === undefined ? list : `did you mean ${near}? ${list}`}`);
  });
  return [...new Set<DriveConduct>(['honest', ...chosen])];
}
