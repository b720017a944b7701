import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const AGENT_ERRORS = {
  'agent-running': 'Another agent already listens on the control socket; there is one agent a machine.',
  'agent-missing': 'No agent listens on the control socket.',
  'agent-busy': 'Too many requests wait for the agent, or too many clients are connected; ask again.',
  'agent-only-watches':
    'The agent was started without --enforce, or the policy is not in enforce mode: it changes nothing, so it can neither let a device in nor keep it out.',
  'agent-failed': 'A mistake in the agent itself; what it was about to do is tried again at the next turn.',
  'agent-stopping': 'The agent is ending and takes no more requests.',
  'control-denied': 'Only root (or the user that the agent runs as) may talk to the agent.',
  'control-malformed': 'A line on the control socket is not a request of this protocol.',
  'control-too-long': 'A line on the control socket is longer than the protocol allows; the connection is closed.',
  'control-lost': 'The connection to the agent ended before its answer came.',
  'control-socket': 'The control socket could not be made or reached; the message names the errno.',
  'device-unknown': 'No device of this machine has that name.',
  'device-ambiguous': 'More than one device answers to that name.',
  'device-changed': 'Another device stands there now than the one that was asked for; nothing was done.',
  'device-has-children': 'Other devices sit behind this one and would go with it; nothing was done.',
  'device-stays': 'The device could not be taken off its bus; it is blocked.',
  'device-quarantined':
    'The device misbehaved and is in quarantine; airlock allow DEVICE --revoke lifts that, and nothing else does.',
  'duration-malformed': 'A duration is a number with a unit, such as 90s, 10m, 2h or 1d.',
  'grant-exceeds-policy':
    'The policy does not let an operator raise this device; the message names the rule and what it would need.',
  'grant-malformed': 'A file of grants does not have its form; the grants in it do not count.',
  'grant-not-kept': 'The grant could not be written down where it has to survive; it was not made.',
  'grants-too-many': 'There are as many grants as the agent keeps; revoke some.',
  'grant-missing': 'There is neither a grant nor a block for this device.',
  'hold-malformed':
    'The file of devices in quarantine does not have its form; what was withheld at the last enforcement stays out.',
  'holds-too-many': 'As many devices are held as the agent can write down; this one is held until the agent restarts.',
  'clock-unreadable': 'The time since boot or the boot id could not be read; timed grants do not count.',
  'agent-without-policy': 'There is no policy: none was named, and the gate left none in /run/airlock.',
} as const satisfies ErrorCatalogue;
