/** Grammars that are no more than a function of the text, so that a reference needs nothing of the engine to follow them. */
import type { Matcher, Position } from '../../lib/grammar/masks.js';

function mix(hash: number, value: number): number {
  const x = Math.imul(hash ^ value, 0x9e3779b1);
  return (x ^ (x >>> 15)) >>> 0;
}

/** What may follow a text: about a third of the vocabulary, by chance; after some texts nothing. */
export function hashPosition(vocab: number, seed: number, ids: readonly number[], ending: boolean): Position {
  const hash = ids.reduce(mix, mix(seed, ids.length));
  const mask = new Int32Array(Math.ceil(vocab / 32));
  for (let id = 0; id < vocab; id++) {
    if (mix(hash, id + 1000) % 3 === 0 || id === hash % vocab) mask[id >> 5] = (mask[id >> 5] ?? 0) | (1 << (id & 31));
  }
  const ends = ending && ids.length > 6 && hash % 5 === 0;
  return { mask: ends ? mask.fill(0) : mask, ends };
}

export class HashMatcher implements Matcher {
  readonly ids: number[] = [];

  constructor(
    protected readonly vocab: number,
    protected readonly seed: number,
    private readonly ending = false,
  ) {}

  position(): Promise<Position> {
    return Promise.resolve(hashPosition(this.vocab, this.seed, this.ids, this.ending));
  }
  accept(id: number): void {
    this.ids.push(id);
  }
  back(): void {
    this.ids.pop();
  }
  isEnding(): boolean {
    return false;
  }
}

/** One id alone may follow, by chance. */
export class ForcedMatcher extends HashMatcher {
  override position(): Promise<Position> {
    const id = this.ids.reduce(mix, mix(this.seed, this.ids.length)) % this.vocab;
    const mask = new Int32Array(Math.ceil(this.vocab / 32));
    mask[id >> 5] = 1 << (id & 31);
    return Promise.resolve({ mask, ends: false });
  }
}

export interface AskedTree {
  matcher: number;
  tokens: Int32Array;
  parents: Int32Array;
  wanted: number;
  /** Where the masks of its nodes begin in the answer. */
  at: number;
}

/** What is asked for, tree by tree. */
export function askedTrees(question: Int32Array): AskedTree[] {
  const trees: AskedTree[] = [];
  for (let [from, at] = [2, 2]; from < question.length;) {
    const [matcher = 0, accepted = 0, nodes = 0, wanted = 0] = question.subarray(from, from + 4);
    const tokens = question.subarray(from + 4 + accepted, (from += 4 + accepted + nodes));
    const parents = question.subarray(from, (from += nodes));
    trees.push({ matcher, tokens, parents, wanted, at: at + 1 });
    at += 1 + nodes;
  }
  return trees;
}
