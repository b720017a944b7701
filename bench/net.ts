/**
 * Frames to a network card, and back: one front-end in C drives ours and one in C in turn. See `support/net-sides.ts` for
 * what is fair in it.
 */

import type { Bench } from './side-by-side.ts';
import { prepareNet, type Scenario } from './support/net-sides.ts';

const scenarios: readonly Scenario[] = [
  { traffic: 'send', size: 64, packed: false },
  { traffic: 'send', size: 1400, packed: false },
  { traffic: 'echo', size: 64, packed: false },
  { traffic: 'echo', size: 1400, packed: false },
  { traffic: 'echo', size: 64, packed: true },
];

export const benches: readonly Bench[] = scenarios.map((scenario) => {
  const { traffic, size, packed } = scenario;
  const what = traffic === 'send' ? 'taken and thrown away' : 'sent back, 128 on their way';
  return {
    name: `net-${traffic}-${size}${packed ? '-packed' : ''}`,
    title: `frames of ${size} bytes ${what}, ${packed ? 'packed' : 'split'} rings, DPDK’s virtio-user in front`,
    unit: 'frames',
    show: 'rate',
    turns: 7,
    turnLength: 0,
    prepare: () => prepareNet(scenario),
  };
});
