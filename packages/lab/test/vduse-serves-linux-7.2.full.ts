import { vduseServesLinux } from './vduse-serves-linux.ts';

vduseServesLinux('7.2');
