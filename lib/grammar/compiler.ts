import { RedrafterError } from '../errors.js';
import { byteLevelText } from '../token-bytes.js';
import type { Tokenizer } from '../tokenizer.js';
import { type Library, type LibraryCompiler, type LibraryMatcher, loadLibrary } from './library.js';
import type { Matcher, Position } from './masks.js';
import { hasBit } from './masks.js';

/** Compiled grammars that are kept for later requests. */
const MOST_COMPILED = 64;

/** A compiler for a vocabulary of texts, and an id behind it that stands for the end of a text. */
async function compilerFor(library: Library, texts: readonly string[]): Promise<LibraryCompiler> {
  const size = texts.length + 1;
  const all = [...texts, '<end>'];
  const info = await library.TokenizerInfo.createTokenizerInfo(all, 'byte_level', false, size, [texts.length]);
  return library.GrammarCompiler.createGrammarCompiler(info, false);
}

async function compileWith(library: Library, compiler: LibraryCompiler, ebnf: string): Promise<Compiled> {
  const grammar = await library.Grammar.fromEBNF(ebnf);
  const compiled = await compiler.compileGrammar(grammar);
  grammar.dispose();
  return compiled;
}

type Compiled = Awaited<ReturnType<LibraryCompiler['compileGrammar']>>;

/** A matcher of a request, whose own ids end its text. */
class GrammarMatcher implements Matcher {
  constructor(
    private readonly library: LibraryMatcher,
    private readonly vocab: number,
    private readonly endings: ReadonlySet<number>,
  ) {}

  async position(): Promise<Position> {
    const bits = await this.library.getNextTokenBitmask();
    const complete = hasBit(bits, this.vocab);
    const mask = bits.slice(0, Math.ceil(this.vocab / 32));
    // The bit of the id behind the vocabulary may be in the last word.
    if (this.vocab % 32 !== 0) mask[mask.length - 1] = (mask[mask.length - 1] ?? 0) & ((1 << (this.vocab % 32)) - 1);
    for (const id of this.endings) mask[id >>> 5] = (mask[id >>> 5] ?? 0) & ~(1 << (id & 31));
    const ends = complete && mask.every((word) => word === 0);
    if (complete) for (const id of this.endings) mask[id >>> 5] = (mask[id >>> 5] ?? 0) | (1 << (id & 31));
    return { mask, ends };
  }

  accept(id: number): void {
    if (!this.library.acceptToken(id)) throw new Error(`token ${id} was chosen against the grammar`);
  }

  back(): void {
    this.library.rollBack(1);
  }

  isEnding(id: number): boolean {
    return this.endings.has(id);
  }

  dispose(): void {
    this.library.dispose();
  }
}

export type { GrammarMatcher };

/** Makes matchers for the vocabulary of a tokenizer. */
export class Compiler {
  private readonly compiled = new Map<string, Compiled>();
  /** Reads grammars that may be wrong, as an error is the end of an instance. */
  private checker: { library: Library; compiler: LibraryCompiler; lines: string[] } | undefined;

  private constructor(
    private readonly library: Library,
    private readonly compiler: LibraryCompiler,
    private readonly vocab: number,
  ) {}

  /** Throws ERR_TOKENIZER. */
  static async create(tokenizer: Tokenizer, vocab: number): Promise<Compiler> {
    if (!tokenizer.hasTokenBytes) {
      throw new RedrafterError('ERR_TOKENIZER', 'grammars need a tokenizer whose tokens are bytes, or mark spaces');
    }
    const library = loadLibrary(() => undefined);
    const texts = Array.from({ length: vocab }, (_, id) => byteLevelText(tokenizer.tokenBytes(id)));
    return new Compiler(library, await compilerFor(library, texts), vocab);
  }

  /** `endings`: ids that may follow a complete text, and nothing else. Throws ERR_GRAMMAR. */
  async matcher(ebnf: string, endings: Iterable<number>): Promise<GrammarMatcher> {
    const compiled = this.compiled.get(ebnf) ?? (await this.compile(ebnf));
    this.compiled.delete(ebnf);
    this.compiled.set(ebnf, compiled); // the last one used
    const library = await this.library.GrammarMatcher.createGrammarMatcher(compiled);
    return new GrammarMatcher(library, this.vocab, new Set(endings));
  }

  private async compile(ebnf: string): Promise<Compiled> {
    await this.check(ebnf);
    const compiled = await compileWith(this.library, this.compiler, ebnf);
    for (const [text, oldest] of this.compiled) {
      if (this.compiled.size < MOST_COMPILED) break;
      oldest.dispose();
      this.compiled.delete(text);
    }
    return compiled;
  }

  /** Compiles for a vocabulary of one token, which takes next to no time. */
  private async check(ebnf: string): Promise<void> {
    if (this.checker === undefined) {
      const lines: string[] = [];
      const library = loadLibrary((line) => lines.push(line));
      this.checker = { library, compiler: await compilerFor(library, ['a']), lines };
    }
    const { library, compiler, lines } = this.checker;
    lines.length = 0;
    try {
      (await compileWith(library, compiler, ebnf)).dispose();
    } catch (cause) {
      this.checker = undefined;
      const why = lines[0]?.replace(/^\[FATAL\] \S+: (EBNF )?/, '').split('\n')[0] ?? 'it cannot be read';
      throw new RedrafterError('ERR_GRAMMAR', `the grammar is wrong: ${why}`, { cause });
    }
  }
}
