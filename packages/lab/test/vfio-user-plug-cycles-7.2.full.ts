import { plugCyclesLeaveNothing } from './vfio-user-plug-cycles.ts';

plugCyclesLeaveNothing({ warmUp: 100, cycles: 1000, resident: 32 << 10, guest: 8 << 10 });
