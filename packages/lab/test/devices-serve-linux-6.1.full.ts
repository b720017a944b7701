import { devicesServeLinux } from './devices-serve-linux.ts';

devicesServeLinux('6.1');
