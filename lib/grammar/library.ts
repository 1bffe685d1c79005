/** The part of `@mlc-ai/web-xgrammar` that is used here, typed; and how it is loaded. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { compileFunction } from 'node:vm';

import { RedrafterError } from '../errors.js';

interface Disposable {
  dispose(): void;
}

export interface Library {
  TokenizerInfo: {
    createTokenizerInfo(
      vocabulary: string[],
      kind: 'byte_level',
      prependSpace: boolean,
      size: number,
      stopTokenIds: number[],
    ): Promise<Disposable>;
  };
  Grammar: { fromEBNF(ebnf: string): Promise<Disposable> };
  GrammarCompiler: { createGrammarCompiler(info: Disposable, cacheEnabled: boolean): Promise<LibraryCompiler> };
  GrammarMatcher: { createGrammarMatcher(compiled: Disposable): Promise<LibraryMatcher> };
}

export interface LibraryCompiler extends Disposable {
  compileGrammar(grammar: Disposable): Promise<Disposable>;
}

export interface LibraryMatcher extends Disposable {
  acceptToken(id: number): boolean;
  rollBack(tokens: number): void;
  /** A copy. */
  getNextTokenBitmask(): Promise<Int32Array>;
}

const file = createRequire(__filename).resolve('@mlc-ai/web-xgrammar');
let source: string | undefined;

/** The file, but for its only `import()`: text that is compiled apart from files has none. */
function readSource(): string {
  const [before, after, ...more] = readFileSync(file, 'utf8').split(/import\('module'\)/);
  if (before === undefined || after === undefined || more.length > 0) {
    throw new RedrafterError('ERR_INTERNAL', '@mlc-ai/web-xgrammar is not the version that redrafter was built for');
  }
  return `${before}require('node:module')${after}`;
}

/**
 * An instance with a memory of its own. Its one file is CommonJS in a package that calls itself a module, so that neither
 * `import` nor `require` loads it. An error in it is the end of the instance: it says what was wrong to `onError`, and what
 * was called throws something that says nothing.
 */
export function loadLibrary(onError: (line: string) => void): Library {
  source ??= readSource();
  const quiet = { ...console, log: onError, warn: onError, error: onError };
  const body = compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname', 'console'], {
    filename: file,
  });
  const module = { exports: {} as Library };
  body.call(module.exports, module.exports, createRequire(file), module, file, dirname(file), quiet);
  return module.exports;
}
