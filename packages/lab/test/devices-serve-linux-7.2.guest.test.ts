import { devicesServeLinux } from './devices-serve-linux.ts';

devicesServeLinux('7.2');
