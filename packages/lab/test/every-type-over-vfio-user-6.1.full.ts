import { everyType } from './every-type.ts';

everyType('6.1', 'vfio-user');
everyType('6.1', 'vfio-user plain');
