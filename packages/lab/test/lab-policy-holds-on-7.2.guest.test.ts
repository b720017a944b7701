import { labPolicyHolds } from './lab-policy-holds.ts';

labPolicyHolds('7.2', { holdsHotplug: true });
