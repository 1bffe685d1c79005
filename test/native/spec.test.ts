/** Where a run is cut, and a toy model decoded with drafts of all kinds through the ops of a round. */
import { describe, expect, it } from 'vitest';

import { at, ints, range } from '../kit/arrays.js';
import type { FinishName } from '../kit/ops.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { acceptPath, packTree } from './ops/trees.js';

const { ops } = testing;

type CutFunction = (run: number[], remaining: number, eos: number[], stop: number[]) => [number, FinishName];

const EOS = [2, 9];
const STOP = [5];
/** run, remaining, tokens to emit, why */
const CUTS: [number[], number, number, FinishName][] = [
  [[1], 10, 1, 'none'],
  [[1, 3, 4], 10, 3, 'none'],
  [[2], 10, 1, 'eos'],
  [[1, 2, 3, 4], 10, 2, 'eos'],
  [[1, 3, 4, 9], 10, 4, 'eos'],
  [[2, 2, 2], 10, 1, 'eos'],
  [[5], 10, 1, 'stop'],
  [[1, 5, 2], 10, 2, 'stop'],
  [[1, 2, 5], 10, 2, 'eos'],
  [[1, 3, 4], 3, 3, 'length'],
  [[1, 3, 4], 2, 2, 'length'],
  [[1, 3, 4], 1, 1, 'length'],
  [[1, 3, 4], 4, 3, 'none'],
  // An ending id as the last token allowed says why decoding really ended.
  [[1, 3, 2], 3, 3, 'eos'],
  [[1, 5, 4], 2, 2, 'stop'],
  // An ending id that max tokens cuts off is not seen.
  [[1, 3, 2], 2, 2, 'length'],
  [[2], 1, 1, 'eos'],
];

const cutFaults = (cut: CutFunction): string[] =>
  CUTS.filter(([run, remaining, keep, finish]) => {
    const [kept, why] = cut(run, remaining, EOS, STOP);
    return kept !== keep || why !== finish;
  }).map(([run, remaining]) => `${run.join()} of ${remaining}`);

const nativeCut: CutFunction = (run, remaining, eos, stop) => {
  const { keep, finish } = ops.cutRun(Int32Array.from(run), remaining, Int32Array.from(eos), Int32Array.from(stop));
  return [keep, finish];
};

describe('cut_run', () => {
  it('cuts a run where plain decoding would stop', () => {
    expect(cutFaults(nativeCut)).toEqual([]);
  });
  it('an id that is both an end of text and a stop id counts as the end of text', () => {
    expect(nativeCut([1, 4], 9, [4], [4])).toEqual([2, 'eos']);
  });
  it('control: a run that is not cut at the end of text is noticed', () => {
    const withoutEos: CutFunction = (run, remaining, _, stop) => nativeCut(run, remaining, [], stop);
    expect(cutFaults(withoutEos)).toContain('1,2,3,4 of 10');
    const atTheEnd: CutFunction = (run, remaining, eos) => {
      const keep = Math.min(run.length, remaining);
      return [keep, run.slice(0, keep).some((id) => eos.includes(id)) ? 'eos' : keep === remaining ? 'length' : 'none'];
    };
    expect(cutFaults(atTheEnd)).toContain('1,2,3,4 of 10');
  });
});

const VOCAB = 8;
const level = at(ops.levels(), ops.levels().length - 1);

interface Settings {
  temperature: number;
  topP: number;
  seed: bigint;
}

/** Logits after a text; they depend on its last three tokens. */
function toyLogits(text: number[]): Float32Array {
  return new Random(text.slice(-3).reduce((hash, token) => hash * 11 + token + 1, 0)).floats(VOCAB, 2);
}

/** The target's token after each of the texts; its position is the length of the text. */
function choose(texts: number[][], settings: Settings): Int32Array {
  return ops.sample(level, 1, {
    logits: Float32Array.from(texts.flatMap((text) => Array.from(toyLogits(text)))),
    vocab: VOCAB,
    temperature: new Float32Array(texts.length).fill(settings.temperature),
    topK: new Int32Array(texts.length),
    topP: new Float32Array(texts.length).fill(settings.topP),
    minP: new Float32Array(texts.length),
    seed: new BigUint64Array(texts.length).fill(settings.seed),
    position: Int32Array.from(texts, (text) => text.length),
  });
}

type Drafter = (text: number[], random: Random) => { beams: number[][] };

const DRAFTERS: Record<string, Drafter> = {
  random: (_, random) => {
    const [width, length] = [random.integer(1, 6), random.integer(1, 5)];
    return { beams: range(width).map(() => Array.from(random.integers(length, 0, VOCAB))) };
  },
  greedy: (text) => {
    const beam: number[] = [];
    while (beam.length < 4) {
      beam.push(at(choose([[...text, ...beam]], { temperature: 0, topP: 1, seed: 0n }), 0));
    }
    return { beams: [beam] };
  },
  wide: () => ({ beams: range(VOCAB * VOCAB).map((n) => [n % VOCAB, Math.floor(n / VOCAB)]) }),
};

interface Outcome {
  ids: number[];
  finish: FinishName;
  rounds: number;
}

/** Rounds of pack, choose, accept, cut, as the engine makes them; plain decoding without a drafter. */
function decode(drafter: Drafter | undefined, settings: Settings, most: number, eos: number[]): Outcome {
  const random = new Random(3);
  const text = [1, 4];
  const ids: number[] = [];
  let root: number | undefined;
  for (let rounds = 1; ; rounds++) {
    let run: number[];
    if (root === undefined || drafter === undefined) {
      run = [at(choose([text], settings), 0)];
    } else {
      // The root is the last token of the text; the tree continues it.
      const { beams } = drafter(text, random);
      const length = at(beams, 0).length;
      const packed = beams.flatMap((beam) => [root ?? 0, ...beam]);
      const tree = packTree(level, { beams: Int32Array.from(packed), width: beams.length, length });
      const texts: number[][] = [];
      tree.token.forEach((token, node) => {
        const parent = at(tree.parent, node);
        texts.push(parent < 0 ? text.slice() : [...at(texts, parent), token]);
      });
      const chosen = choose(texts, settings);
      const path = acceptPath(level, { token: tree.token, parent: tree.parent, chosen });
      run = Array.from(path, (node) => at(chosen, node));
    }
    const { keep, finish } = ops.cutRun(Int32Array.from(run), most - ids.length, Int32Array.from(eos), ints());
    ids.push(...run.slice(0, keep));
    text.push(...run.slice(0, keep));
    root = text.at(-1);
    if (finish !== 'none') return { ids, finish, rounds };
  }
}

describe('a toy model decoded with drafts', () => {
  const settings: Settings[] = [0, 0.3, 1, 1.5].flatMap((temperature) =>
    [1n, 2n, 77n].map((seed) => ({ temperature, topP: temperature === 1 ? 0.8 : 1, seed })),
  );
  it.each(Object.keys(DRAFTERS))('gives the text of plain decoding with the %s drafter, in fewer rounds', (name) => {
    for (const one of settings) {
      for (const [most, eos] of [
        [60, []],
        [200, [6]],
        [17, [3]],
      ] as [number, number[]][]) {
        const plain = decode(undefined, one, most, eos);
        const drafted = decode(DRAFTERS[name], one, most, eos);
        expect([drafted.ids, drafted.finish]).toEqual([plain.ids, plain.finish]);
        expect(drafted.rounds).toBeLessThanOrEqual(plain.rounds);
        if (name === 'wide' && plain.ids.length > 3) expect(drafted.rounds).toBeLessThan(plain.rounds);
      }
    }
  });
});
