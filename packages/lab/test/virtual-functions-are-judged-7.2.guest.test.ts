import { virtualFunctionsAreJudged } from './virtual-functions-are-judged.ts';

virtualFunctionsAreJudged('7.2');
