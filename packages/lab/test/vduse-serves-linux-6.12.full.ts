import { vduseServesLinux } from './vduse-serves-linux.ts';

vduseServesLinux('6.12');
