import { everyTypeOverVfioUser } from './every-type-over-vfio-user.ts';

everyTypeOverVfioUser('6.1', 'vfio-user');
everyTypeOverVfioUser('6.1', 'vfio-user plain');
