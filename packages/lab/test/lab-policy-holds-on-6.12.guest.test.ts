import { labPolicyHolds } from './lab-policy-holds.ts';

labPolicyHolds('6.12', { holdsHotplug: false });
