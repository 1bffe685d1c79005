/** Widened models and drafters: the same function, of larger weights. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { inspect } from '../../lib/system.js';
import { halved } from '../../lib/widen/elements.js';
import { shares } from '../../lib/widen/layout.js';
import { widen } from '../../lib/widen/widen.js';
import { at, range } from '../kit/arrays.js';
import { encode, fromBf16, fromF16 } from '../kit/bf16.js';
import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, writeSafetensors } from '../kit/checkpoint.js';
import { TestEngine } from '../kit/native-engine.js';
import { testing } from '../kit/testing.js';

const golden = fileURLToPath(new URL('../fixtures/golden', import.meta.url));
const FACTORS = [2, 3];
/** That of the golden tests: how far fp32 sums of a few hundred terms may be from the exact ones. */
const TOLERANCE = 1e-4;

const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;

async function widened(directory: string, factor: number): Promise<string> {
  const out = join(temporaryDirectory('wide'), 'out');
  await widen(directory, factor, out);
  return out;
}

describe('a widened model', () => {
  const names = readdirSync(golden).filter((name) => !name.startsWith('drafter'));
  it.each(names)('%s has the log-probabilities of the small one', async (name) => {
    const { ids, logprobs } = json(join(golden, name, 'golden.json')) as { ids: number[]; logprobs: number[][] };
    const vocab = at(logprobs, 0).length;
    for (const factor of FACTORS) {
      const engine = await TestEngine.load(await widened(join(golden, name), factor), { threads: 1 });
      const session = await engine.open();
      for (const i of range(ids.length)) {
        await engine.rewind(session, 0);
        const out = await engine.generate(session, ids.slice(0, i + 1), { maxTokens: 1, logprobs: vocab });
        const worst = Math.max(
          ...out.topIds.map((id, rank) => Math.abs(at(out.topLogprobs, rank) - at(at(logprobs, i), id))),
        );
        expect(worst, `factor ${factor}, position ${i}`).toBeLessThan(TOLERANCE);
      }
      await engine.close();
    }
  });
  it('with tied embeddings gets a head of its own', async () => {
    const from = temporaryDirectory('tied');
    const { ids } = json(join(golden, 'llama', 'golden.json')) as { ids: number[] };
    const config = { ...json(join(golden, 'llama', 'config.json')), tie_word_embeddings: true };
    writeFileSync(join(from, 'config.json'), JSON.stringify(config));
    writeFileSync(join(from, 'model.safetensors'), readFileSync(join(golden, 'llama', 'model.safetensors')));
    const run = async (directory: string): Promise<number[]> => {
      const engine = await TestEngine.load(directory);
      const out = await engine.generate(await engine.open(), ids, { maxTokens: 1, logprobs: 40 });
      await engine.close();
      return out.topLogprobs;
    };
    const small = await run(from);
    for (const factor of FACTORS) {
      (await run(await widened(from, factor))).forEach((logprob, rank) => {
        expect(Math.abs(logprob - at(small, rank))).toBeLessThan(TOLERANCE);
      });
    }
  });
});

describe('a widened drafter', () => {
  const drafter = testing['drafter'] as {
    logprobs(level: string, target: string, drafter: string, hidden: Float32Array, tokens: Int32Array): { logprobs: Float32Array }; // prettier-ignore
  };
  const names = readdirSync(golden).filter((name) => name.startsWith('drafter'));
  it.each(names)('%s has the log-probabilities of the small one', async (name) => {
    const { hidden, tokens, logprobs } = json(join(golden, name, 'golden.json')) as {
      hidden: number[];
      tokens: number[][];
      logprobs: number[][][];
    };
    for (const factor of FACTORS) {
      const target = await widened(join(golden, 'llama'), factor);
      const wide = await widened(join(golden, name), factor);
      const tiled = Float32Array.from(range(factor).flatMap(() => hidden));
      tokens.forEach((own, i) => {
        const found = drafter.logprobs('base', target, wide, tiled, Int32Array.from(own)).logprobs;
        at(logprobs, i)
          .flat()
          .forEach((expected, j) => {
            expect(Math.abs(at(found, j) - expected)).toBeLessThan(TOLERANCE);
          });
      });
    }
  });
});

describe('the bundled model, widened', () => {
  it('generates the same ids and accepts the same drafts, with about factor^2 the weights', async () => {
    const prompts = (await promptIds()).filter((_, i) => i % 16 === 0).map((ids) => ids.slice(0, 60));
    const shape = { beamWidth: 3, beamLength: 4, maxTokens: 40 };
    const run = async (model: string, drafter: string): Promise<unknown[]> => {
      const engine = await TestEngine.load(model, { drafter });
      const all = await Promise.all(prompts.map(async (ids) => engine.generate(await engine.open(), ids, shape)));
      await engine.close();
      return all.map(({ ids, stats }) => [ids, stats.acceptedByDepth, stats.draftedNodes]);
    };
    const small = await run(bundled, trainedDrafters.gru);
    const { totalBytes } = await inspect(bundled);
    for (const factor of FACTORS) {
      const [model, drafter] = [await widened(bundled, factor), await widened(trainedDrafters.gru, factor)];
      expect(await run(model, drafter)).toEqual(small);
      const grown = (await inspect(model)).totalBytes / totalBytes / factor ** 2;
      expect(grown).toBeGreaterThan(0.85);
      expect(grown).toBeLessThanOrEqual(1);
      expect(readdirSync(model)).toContain('tokenizer.json');
    }
  });
});

describe('shares', () => {
  it('add up to one', () => {
    for (const factor of range(64, 1)) {
      expect(shares(factor)).toHaveLength(factor);
      expect(shares(factor).reduce((sum, halvings) => sum + 2 ** -halvings, 0)).toBe(1);
    }
  });
  it.each([
    ['bf16', fromBf16],
    ['f16', fromF16],
  ] as const)('of every %s are rounded to nearest, and exact unless subnormal', (dtype, value) => {
    const all = Uint16Array.from(range(65536));
    for (const halvings of [0, 1, 2, 6]) {
      const bytes = halved(new Uint8Array(all.buffer), dtype, halvings);
      const bits = new Uint16Array(bytes.buffer);
      const expected = encode(
        dtype,
        Float32Array.from(all, (own) => value(own) / 2 ** halvings),
      ) as Uint16Array;
      const wrong = range(65536).filter((i) => at(bits, i) !== at(expected, i) && !Number.isNaN(value(i)));
      expect(wrong.map((i) => i.toString(16))).toEqual([]);
    }
  });
});

describe('widening refuses', () => {
  const out = (): string => join(temporaryDirectory('refused'), 'out');
  it('factors that are none', async () => {
    for (const factor of [0, -1, 1.5, 65, NaN]) {
      await expect(widen(bundled, factor, out())).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    }
  });
  it('to write over what is there', async () => {
    const taken = out();
    mkdirSync(taken);
    writeFileSync(join(taken, 'notes'), 'mine');
    await expect(widen(bundled, 2, taken)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(readdirSync(taken)).toEqual(['notes']);
    await expect(widen(bundled, 2, bundled)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
  it('tensors that it does not know, and writes nothing', async () => {
    const from = temporaryDirectory('unknown');
    writeFileSync(join(from, 'config.json'), readFileSync(join(golden, 'llama', 'config.json')));
    writeSafetensors(from, { 'model.layers.0.self_attn.rotary_gain': { shape: [3], fill: () => 1 } });
    const target = out();
    await expect(widen(from, 2, target)).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringMatching(/rotary_gain/) as string,
    });
    expect(() => readdirSync(target)).toThrow();
  });
  it('a directory that is no model', async () => {
    await expect(widen(temporaryDirectory('empty'), 2, out())).rejects.toMatchObject({ code: 'ERR_FILE' });
  });
});
