import { virtualFunctionsAreJudged } from './virtual-functions-are-judged.ts';

virtualFunctionsAreJudged('6.1');
