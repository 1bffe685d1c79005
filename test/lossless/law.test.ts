/**
 * The law of sampled output, through the whole engine with drafting on: the frequencies of the first token, of pairs
 * and of triples against the target's own probabilities. Triples cross the borders of rounds. Nothing is conditioned on
 * how much was accepted.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { TestEngine, type GenerateOptions } from '../kit/native-engine.js';
import { chiSquareTail } from '../kit/statistics.js';

const vocab = 8;
const prompt = [1, 5, 2];
const directory = temporaryDirectory('law');
let engine: TestEngine;

beforeAll(async () => {
  const shape = { vocab, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 32, maxPositions: 64 };
  writeTinyLlama(join(directory, 'model'), shape, 21);
  writeTinyDrafter(join(directory, 'drafter'), 'gru', vocab, 32, 22);
  const options = { drafter: join(directory, 'drafter'), threads: 1, maxQueuedTokens: 500 * prompt.length };
  engine = await TestEngine.load(join(directory, 'model'), options);
});

afterAll(async () => {
  await engine.close();
});

/** The target's next-token probabilities at a temperature, from its raw log-probabilities. */
async function lawAfter(ids: readonly number[], temperature: number): Promise<number[]> {
  const session = await engine.open();
  const { topIds, topLogprobs } = await engine.generate(session, ids, { maxTokens: 1, logprobs: vocab });
  await engine.closeSession(session);
  const weights = new Array<number>(vocab).fill(0);
  topIds.forEach((id, rank) => {
    weights[id] = Math.exp((topLogprobs[rank] ?? NaN) / temperature);
  });
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** Probabilities of all continuations of three tokens, by their ids in base `vocab`. */
async function tripleLaw(temperature: number): Promise<number[]> {
  const law: number[] = [];
  const first = await lawAfter(prompt, temperature);
  for (let a = 0; a < vocab; a++) {
    const second = await lawAfter([...prompt, a], temperature);
    for (let b = 0; b < vocab; b++) {
      const third = await lawAfter([...prompt, a, b], temperature);
      for (let c = 0; c < vocab; c++) law.push((first[a] ?? 0) * (second[b] ?? 0) * (third[c] ?? 0));
    }
  }
  return law;
}

/** p-value of Pearson's test; cells expected less than 8 times are pooled. */
function pValue(counts: number[], law: number[]): number {
  let [statistic, cells, pooledCount, pooledLaw] = [0, 0, 0, 0];
  counts.forEach((count, i) => {
    const expected = (law[i] ?? 0) * samples;
    if (expected < 8) {
      pooledCount += count;
      pooledLaw += expected;
      return;
    }
    statistic += (count - expected) ** 2 / expected;
    cells++;
  });
  if (pooledLaw > 0) {
    statistic += (pooledCount - pooledLaw) ** 2 / pooledLaw;
    cells++;
  }
  return chiSquareTail(statistic, cells - 1);
}

async function sample(count: number, options: GenerateOptions): Promise<number[]> {
  const triples = new Array<number>(vocab ** 3).fill(0);
  for (let start = 0; start < count; start += 500) {
    await Promise.all(
      Array.from({ length: Math.min(500, count - start) }, async (_, i) => {
        const session = await engine.open();
        const { ids } = await engine.generate(session, prompt, { maxTokens: 3, seed: BigInt(start + i), ...options });
        await engine.closeSession(session);
        const index = ids.reduce((at, id) => at * vocab + id, 0);
        triples[index] = (triples[index] ?? 0) + 1;
      }),
    );
  }
  return triples;
}

/** Sums triples to the first token or the first two. */
function marginal(triples: number[], tokens: 1 | 2): number[] {
  const size = vocab ** (3 - tokens);
  return Array.from({ length: vocab ** tokens }, (_, i) =>
    triples.slice(i * size, (i + 1) * size).reduce((a, b) => a + b, 0),
  );
}

// Power: a total-variation distance d from the law adds at least 4 d^2 n to the statistic (Cauchy-Schwarz). With
// n = 20,000 and d = 0.05 that is 200. The limit of p = 1e-6 lies at 38 for 8 cells and 130 for 64: both see it with
// probability > 0.999. For up to 512 cells it lies 170 above the mean, with standard deviation 32 + 2 sqrt(200): there a
// distance of 0.06 is seen with that probability. Seeds are fixed, so nothing here is flaky.
const samples = 20_000;
const alpha = 1e-6;

describe('sampled output follows the target', () => {
  for (const [temperature, beamWidth, beamLength] of [
    [1, 4, 2],
    [0.6, 8, 3],
    [1.4, 1, 3],
  ] as const) {
    it(`T ${temperature}, beams ${beamWidth}x${beamLength}`, async () => {
      const law = await tripleLaw(temperature);
      expect(law.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
      const triples = await sample(samples, { temperature, beamWidth, beamLength });
      expect(pValue(triples, law)).toBeGreaterThan(alpha);
      expect(pValue(marginal(triples, 2), marginal(law, 2))).toBeGreaterThan(alpha);
      expect(pValue(marginal(triples, 1), marginal(law, 1))).toBeGreaterThan(alpha);
    }, 120_000);
  }

  it('and the test would see a distance of 0.05 (negative control)', async () => {
    const law = await tripleLaw(1);
    const triples = await sample(samples, { temperature: 1, beamWidth: 4, beamLength: 2 });
    // Move 5 % of all samples from the likelier half of the first tokens to the other half.
    const order = marginal(law, 1)
      .map((p, id) => ({ p, id }))
      .sort((a, b) => b.p - a.p)
      .map(({ id }) => id);
    const first = marginal(triples, 1);
    first[order[0] ?? 0] = (first[order[0] ?? 0] ?? 0) - samples * 0.05;
    first[order[1] ?? 0] = (first[order[1] ?? 0] ?? 0) + samples * 0.05;
    expect(pValue(first, marginal(law, 1))).toBeLessThan(alpha);
  }, 120_000);
});
