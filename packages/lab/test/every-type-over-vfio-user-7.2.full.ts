import { everyType } from './every-type.ts';

everyType('7.2', 'vfio-user');
everyType('7.2', 'vfio-user plain');
