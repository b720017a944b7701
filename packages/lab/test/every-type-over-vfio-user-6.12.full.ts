import { everyTypeOverVfioUser } from './every-type-over-vfio-user.ts';

everyTypeOverVfioUser('6.12', 'vfio-user');
everyTypeOverVfioUser('6.12', 'vfio-user plain');
