import { virtualFunctionsOfOurs } from './virtual-functions-of-ours.ts';

virtualFunctionsOfOurs('7.2');
