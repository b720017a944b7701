import { virtualFunctionsOfOurs } from './virtual-functions-of-ours.ts';

virtualFunctionsOfOurs('6.12');
