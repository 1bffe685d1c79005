/** The element type of a drafter: what `auto` comes to, what is refused, and what does not depend on it. */
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { quantize } from '../../../lib/quantize/quantize.js';
import { bundled, trainedDrafters } from '../../kit/bundled.js';
import {
  readTensors,
  temporaryDirectory,
  writeSafetensors,
  writeTinyDrafter,
  writeTinyLlama,
} from '../../kit/checkpoint.js';
import { estimate, type LoadOptions, TestEngine } from '../../kit/native-engine.js';

const shape = { vocab: 90, hidden: 72, layers: 1, heads: 3, kvHeads: 1, headDim: 24, ffn: 100, maxPositions: 256 };
const model = temporaryDirectory('drafter-dtype');
writeTinyLlama(model, shape, 31);

type Stored = 'f32' | 'f16' | 'bf16' | 'mixed' | 'q8_0' | 'q4_0';
const drafters = {} as Record<Stored, string>;
for (const stored of ['f32', 'f16', 'bf16', 'mixed'] as const) {
  drafters[stored] = temporaryDirectory('drafter-dtype');
  writeTinyDrafter(drafters[stored], 'gru', shape.vocab, shape.hidden, 32);
  const tensors = readTensors(drafters[stored]);
  for (const [name, tensor] of Object.entries(tensors)) {
    if (tensor.shape.length < 2) continue; // a vector says nothing about the matrices
    tensor.dtype = stored === 'mixed' ? (name === 'gru.weight_ih' ? 'f32' : 'bf16') : stored;
  }
  writeSafetensors(drafters[stored], tensors);
}
for (const stored of ['q8_0', 'q4_0'] as const) {
  drafters[stored] = join(temporaryDirectory('drafter-dtype'), 'out');
  await quantize(drafters.bf16, stored, drafters[stored]);
}

/** The dtypes of target and drafter; that what is loaded takes what was estimated is checked on the way. */
async function loaded(directory: string, options: LoadOptions): Promise<string[]> {
  const engine = await TestEngine.load(directory, options);
  const { dtype, drafter, memory } = engine.info;
  await engine.close();
  expect(memory).toEqual(await estimate(directory, options));
  return [dtype, drafter?.dtype ?? 'none'];
}

const failure = (directory: string, options: LoadOptions): Promise<string> =>
  loaded(directory, options).then(String, (error: unknown) => (error as Error).message);

describe('auto', () => {
  it.each([
    // dtype, and what a drafter gets that is stored as f32, f16, bf16, partly f32, q8_0, q4_0
    ['auto', 'f32 q8_0 q8_0 mixed q8_0 q4_0'],
    ['bf16', 'bf16 q8_0 q8_0 bf16 q8_0 q4_0'],
    ['f16', 'f16 q8_0 q8_0 f16 q8_0 q4_0'],
    ['f32', 'f32 f32 f32 f32 q8_0 q4_0'],
    ['q8_0', 'q4_0 q4_0 q4_0 q4_0 q8_0 q4_0'],
    ['q4_0', 'q4_0 q4_0 q4_0 q4_0 q8_0 q4_0'],
  ])('beside a target of dtype %s', async (dtype, expected) => {
    const found: string[] = [];
    for (const drafter of Object.values(drafters)) {
      const [target, its = ''] = await loaded(model, { drafter, dtype, device: 'cpu:oracle' });
      expect(target).toBe(dtype === 'auto' ? 'f32' : dtype);
      found.push(its);
    }
    expect(found.join(' ')).toBe(expected);
  });

  it('is 8 bits for the bundled drafters, half of what they take as stored', async () => {
    for (const drafter of [trainedDrafters.gru, trainedDrafters.elman]) {
      const options = { drafter, device: 'cpu:oracle' };
      expect(await loaded(bundled, options)).toEqual(['bf16', 'q8_0']);
      const own = (await estimate(bundled, options)).drafterBytes;
      const stored = (await estimate(bundled, { ...options, drafterDtype: 'bf16' })).drafterBytes;
      expect(own / stored).toBeCloseTo(8.5 / 16, 1);
    }
  });

  it('is 4 bits beside a target that is stored quantised', async () => {
    const target = join(temporaryDirectory('drafter-dtype'), 'out');
    await quantize(model, 'q8_0', target);
    const options = { drafter: drafters.bf16, device: 'cpu:oracle' };
    expect(await loaded(target, options)).toEqual(['q8_0', 'q4_0']);
  });

  it('is as dtype at the level base, where 8 bits take longer, and 8 bits beside a quantised target', async () => {
    expect(await loaded(model, { drafter: drafters.bf16, device: 'cpu:base' })).toEqual(['f32', 'bf16']);
    expect(await loaded(model, { drafter: drafters.bf16, device: 'cpu:base', dtype: 'q4_0' })).toEqual([
      'q4_0',
      'q8_0',
    ]);
  });

  it('is as dtype on CUDA, which has no such matrices', async () => {
    const device = 'cuda:host';
    for (const [dtype, expected] of [
      ['auto', 'bf16'],
      ['bf16', 'bf16'],
      ['f16', 'f16'],
    ] as const) {
      expect(await loaded(model, { drafter: drafters.bf16, device, dtype })).toEqual([expected, expected]);
    }
  });
});

describe('given', () => {
  it.each(['f32', 'f16', 'bf16', 'q8_0', 'q4_0'])('%s, beside any target', async (drafterDtype) => {
    for (const dtype of ['f32', 'bf16', 'q4_0']) {
      for (const stored of ['f32', 'bf16', 'mixed'] as const) {
        expect(await loaded(model, { drafter: drafters[stored], dtype, drafterDtype })).toEqual([dtype, drafterDtype]);
      }
    }
  });

  it('is what a drafter that was written like that gives', async () => {
    const decode = async (drafter: string, drafterDtype: string): Promise<object> => {
      const engine = await TestEngine.load(model, { drafter, drafterDtype });
      const { ids, rounds } = await engine.generate(await engine.open(), [1, 2, 3, 4, 5], {
        ...{ maxTokens: 60, temperature: 0.8, seed: 5n, beamWidth: 6, beamLength: 4 },
      });
      await engine.close();
      return { ids, rounds };
    };
    for (const form of ['q8_0', 'q4_0'] as const) {
      expect(await decode(drafters.bf16, form)).toEqual(await decode(drafters[form], 'auto'));
    }
  });

  it('is not looked at without a drafter', async () => {
    expect(await loaded(model, { drafterDtype: 'q8_0' })).toEqual(['f32', 'none']);
  });

  it('is refused where it cannot be had', async () => {
    const drafter = drafters.bf16;
    expect(await failure(model, { drafter, drafterDtype: 'f8' })).toMatch(/ERR_INVALID_ARGUMENT: unknown dtype "f8"/);
    expect(await failure(model, { drafter: drafters.q8_0, drafterDtype: 'bf16' })).toMatch(
      /ERR_INVALID_ARGUMENT: the weights in .* are stored as q8_0, which cannot be loaded as bf16; leave drafterDtype "auto"/,
    );
    for (const drafterDtype of ['q8_0', 'q4_0', 'f32']) {
      expect(await failure(model, { drafter, drafterDtype, device: 'cuda:host' })).toMatch(
        new RegExp(
          `ERR_INVALID_ARGUMENT: device "cuda:host" has no matrices of dtype "${drafterDtype}"; .*drafterDtype`,
        ),
      );
    }
  });
});

it('a session goes on beside a drafter of another dtype', async () => {
  const file = join(temporaryDirectory('drafter-dtype'), 'session');
  const options = { drafter: drafters.bf16, dtype: 'bf16' };
  const first = await TestEngine.load(model, { ...options, drafterDtype: 'bf16' });
  const session = await first.open();
  await first.generate(session, [1, 2, 3], { maxTokens: 30 });
  const { tokens, kvTokens } = await first.save(session, file);
  await first.close();
  const second = await TestEngine.load(model, { ...options, drafterDtype: 'q8_0' });
  expect(second.info.fingerprint).toBe(first.info.fingerprint);
  const restored = await second.restore(file);
  expect([restored.ids.length, restored.kvTokens]).toEqual([tokens, kvTokens]);
  await second.close();
});
