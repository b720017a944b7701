import { plugCyclesLeaveNothing } from './vfio-user-plug-cycles.ts';

plugCyclesLeaveNothing({ warmUp: 20, cycles: 60, resident: 32 << 10, guest: 8 << 10 });
