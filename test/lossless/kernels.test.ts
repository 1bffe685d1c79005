/**
 * Drafted against plain decoding with every op on the CUDA kernels: the whole round, from the draft to the cache it
 * leaves, in the emulator, and on a device where there is one.
 */
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { describeLevels } from '../native/ops/levels.js';
import { differingElements } from './compare.js';

interface Decoded {
  ids: Int32Array;
  kv: Float32Array;
}

interface DecodeOptions {
  fault: string;
  level: string;
  model: string;
  drafter: string;
  ids: Int32Array;
  maxTokens: number;
  beamWidth: number;
  beamLength: number;
  eos: Int32Array;
}

const decode = testing['decode'] as (options: DecodeOptions) => Decoded;

const SHAPE = { vocab: 96, hidden: 40, layers: 2, heads: 4, kvHeads: 2, headDim: 24, ffn: 72, maxPositions: 512 };
const directory = temporaryDirectory('kernels');
const model = join(directory, 'model');
writeTinyLlama(model, SHAPE, 5);
const drafters = (['sum', 'elman', 'gru'] as const).map((cell) => {
  writeTinyDrafter(join(directory, cell), cell, SHAPE.vocab, SHAPE.hidden, 5);
  return cell;
});

describeLevels('decoding', (level) => {
  it.each(drafters)('%s: every beam shape gives the ids and the cache of plain decoding', (cell) => {
    const random = new Random(6);
    for (const prompt of [1, 17, 75]) {
      const base: DecodeOptions = {
        fault: 'none',
        level,
        model,
        drafter: join(directory, cell),
        ids: random.integers(prompt, 0, SHAPE.vocab),
        maxTokens: 14,
        beamWidth: 0,
        beamLength: 0,
        eos: new Int32Array(0),
      };
      const plain = decode(base);
      expect(plain.ids).toHaveLength(14);
      for (const [beamWidth, beamLength] of [
        [1, 1],
        [3, 4],
        [8, 2],
      ] as const) {
        const drafted = decode({ ...base, beamWidth, beamLength });
        expect(drafted.ids, `${beamWidth} x ${beamLength} after ${prompt} tokens`).toEqual(plain.ids);
        expect(differingElements(drafted.kv, plain.kv)).toBe(0);
      }
    }
  });
});
