import { everyType } from './every-type.ts';

everyType('7.2', 'vhost-user');
everyType('7.2', 'vhost-user own');
