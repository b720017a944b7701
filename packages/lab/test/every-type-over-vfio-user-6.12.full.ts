import { everyType } from './every-type.ts';

everyType('6.12', 'vfio-user');
everyType('6.12', 'vfio-user plain');
