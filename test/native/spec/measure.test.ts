/** Measuring costs while a model is loaded can be abandoned, before each run. */
import { describe, expect, it } from 'vitest';

import { resolveLoad } from '../../../lib/options.js';
import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../../kit/checkpoint.js';
import { testing } from '../../kit/testing.js';

interface Measured {
  asked: number;
  code: string;
  freeBlocks: number;
  blocks: number;
}

const SHAPE = { vocab: 61, hidden: 16, layers: 2, heads: 4, kvHeads: 2, headDim: 4, ffn: 24, maxPositions: 64 };

const measure = testing['measure'] as (options: object, limitMs: number, asks: number) => Measured;

describe('measuring costs', () => {
  const model = temporaryDirectory('measure-model');
  const drafter = temporaryDirectory('measure-drafter');
  writeTinyLlama(model, SHAPE, 1);
  writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 2);
  const options = resolveLoad(model, { drafter, device: 'cpu', threads: 1 }).native;

  it('asks before each run, and gives its blocks back', () => {
    const { asked, code, freeBlocks, blocks } = measure(options, 20, 1e9);
    expect(code).toBe('');
    expect(asked).toBeGreaterThan(8); // two sizes of passes and draft steps, at least
    expect(freeBlocks).toBe(blocks);
  });

  it('ends at the first no, wherever that comes', () => {
    for (let asks = 1; asks <= 8; asks++) {
      const { freeBlocks, blocks, ...rest } = measure(options, 0, asks);
      expect(rest).toEqual(asks <= 6 ? { asked: asks, code: 'ERR_ABORTED' } : { asked: 6, code: '' });
      expect(freeBlocks).toBe(blocks);
    }
  });
});
