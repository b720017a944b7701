import { labPolicyHolds } from './lab-policy-holds.ts';

labPolicyHolds('6.1', { holdsHotplug: false });
