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
    private readonly vocab: number,
    private readonly seed: number,
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
