/**
 * The forward pass against an independent PyTorch implementation (train/golden.py): every family, rope scaling, weight
 * dtype, and a sharded checkpoint. Log-probabilities of all ids at every position.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { TestEngine } from '../../kit/native-engine.js';

const root = fileURLToPath(new URL('../../fixtures/golden', import.meta.url));
const names = [
  'llama',
  'llama-linear',
  'llama-llama3',
  'llama-yarn',
  'llama-bias',
  'mistral',
  'qwen2',
  'qwen3',
  'qwen3-sharded',
];

interface Golden {
  ids: number[];
  logprobs: number[][];
}

// fp32 sums of a few hundred terms through two layers, beside logits of order 1 to 10: 1e-4 absolute is what
// "logits agree" means for a reference of the same weights in fp32.
const tolerance = 1e-4;

async function worstError(directory: string, golden: Golden, device: string, vocab: number): Promise<number> {
  const engine = await TestEngine.load(directory, { device, threads: 1 });
  let worst = 0;
  for (let i = 0; i < golden.ids.length; i++) {
    const session = await engine.open();
    const out = await engine.generate(session, golden.ids.slice(0, i + 1), { maxTokens: 1, logprobs: vocab });
    expect(out.topIds.length).toBe(vocab);
    out.topIds.forEach((id, rank) => {
      const expected = golden.logprobs[i]?.[id] ?? NaN;
      const error = Math.abs((out.topLogprobs[rank] ?? NaN) - expected);
      if (!(error <= worst)) worst = error;
    });
    await engine.closeSession(session);
  }
  await engine.close();
  return worst;
}

describe('golden log-probabilities', () => {
  for (const name of names) {
    const directory = join(root, name);
    const golden = JSON.parse(readFileSync(join(directory, 'golden.json'), 'utf8')) as Golden;
    const { vocab_size: vocab } = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as {
      vocab_size: number;
    };
    for (const device of ['cpu', 'cpu:oracle']) {
      it(`${name} on ${device}`, async () => {
        expect(await worstError(directory, golden, device, vocab)).toBeLessThan(tolerance);
      });
    }
  }

  it('would notice a wrong rope scaling (negative control)', async () => {
    const golden = JSON.parse(readFileSync(join(root, 'llama-linear', 'golden.json'), 'utf8')) as Golden;
    expect(await worstError(join(root, 'llama'), golden, 'cpu', 96)).toBeGreaterThan(10 * tolerance);
  });
});
