/** Log-probabilities of requests that share rounds and want different numbers of them, computed together. */
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { range } from '../kit/arrays.js';
import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const VOCAB = 9000;
const directory = temporaryDirectory('logprobs');
const [model, drafter] = [join(directory, 'model'), join(directory, 'drafter')];
const shape = { vocab: VOCAB, hidden: 16, layers: 1, heads: 1, kvHeads: 1, headDim: 16, ffn: 16, maxPositions: 512 };
writeTinyLlama(model, shape, 61);
writeTinyDrafter(drafter, 'gru', VOCAB, 16, 62);

it('are those of each request alone, also where the whole vocabulary is wanted of more tokens than there is room for', async () => {
  const random = new Random(63);
  // There is room for 513 x 64 of the most probable tokens at once; one of these is as large as the vocabulary.
  const wanted = [0, 3, VOCAB, -1, 64, 1, 65, 0];
  const cases = wanted.map((logprobs, i): Case => {
    const options = { maxTokens: 6, logprobs, temperature: i % 2, seed: BigInt(i) };
    return { name: `${logprobs} wanted`, ids: [...random.integers(3, 0, VOCAB)], options };
  });
  const engine = await TestEngine.load(model, { drafter, contextTokens: 256, kvTokens: 4096 });
  const plain: Outcome[] = [];
  for (const each of cases) plain.push(await run(engine, each));
  plain.forEach(({ logprobs, topIds, topLogprobs, ids }, i) => {
    const top = wanted[i] ?? 0;
    expect([logprobs.length, topIds.length, topLogprobs.length]).toEqual([
      top < 0 ? 0 : 6,
      ...[Math.max(0, top) * 6, Math.max(0, top) * 6],
    ]);
    // Greedy tokens are the most probable ones.
    if (i % 2 === 0 && top > 0) expect(topIds.filter((_, n) => n % top === 0)).toEqual(ids);
  });
  for (const drafting of [{}, { beamWidth: 4, beamLength: 3 }]) {
    const together = await Promise.all(cases.map((each) => run(engine, each, drafting)));
    for (const i of range(cases.length)) {
      expectLossless(plain[i] as Outcome, together[i] as Outcome, cases[i]?.name ?? '');
    }
  }
  await engine.close();
});
