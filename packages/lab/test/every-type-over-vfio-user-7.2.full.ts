import { everyTypeOverVfioUser } from './every-type-over-vfio-user.ts';

everyTypeOverVfioUser('7.2', 'vfio-user');
everyTypeOverVfioUser('7.2', 'vfio-user plain');
