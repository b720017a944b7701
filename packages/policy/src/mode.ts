/** Which mode holds now. */
import type { Mode, Policy } from './policy.ts';

/** `secondsSinceBoot` comes from a clock that the host cannot set (/proc/uptime). Learning ends by itself, in enforcing. */
export function modeAt(policy: Policy, secondsSinceBoot: number): Mode {
  if (policy.mode !== 'learn') return policy.mode;
  const learning = policy.learnFor !== undefined && secondsSinceBoot < policy.learnFor;
  return learning ? 'learn' : 'enforce';
}
