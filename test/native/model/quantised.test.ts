/** Quantised weights, converted while they are read or stored so: the same bits; and what is refused. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { toHalf } from '../../../lib/quantize/groups.js';
import { quantize } from '../../../lib/quantize/quantize.js';
import { estimateMemory } from '../../../lib/index.js';
import { toF16 } from '../../kit/bf16.js';
import {
  readTensors,
  temporaryDirectory,
  writeSafetensors,
  writeTinyDrafter,
  writeTinyLlama,
} from '../../kit/checkpoint.js';
import { bundled, trainedDrafters } from '../../kit/bundled.js';
import { TestEngine } from '../../kit/native-engine.js';
import { QUANTISED } from '../../kit/quantised.js';
import { Random } from '../../kit/random.js';

const shape = { vocab: 90, hidden: 72, layers: 2, heads: 3, kvHeads: 1, headDim: 24, ffn: 100, maxPositions: 256 };
const model = temporaryDirectory('quantised');
const drafter = temporaryDirectory('quantised');
writeTinyLlama(model, shape, 31);
writeTinyDrafter(drafter, 'gru', shape.vocab, shape.hidden, 32);

type Form = (typeof QUANTISED)[number];

async function written(from: string, form: Form): Promise<string> {
  const out = join(temporaryDirectory('quantised'), 'out');
  await quantize(from, form, out);
  return out;
}

interface Decoded {
  dtype: string;
  ids: number[];
  rounds: number[][];
  logprobs: number[];
  kv: Float32Array;
  memory: object;
}

async function decode(directory: string, options: object, beams: object = {}): Promise<Decoded> {
  const engine = await TestEngine.load(directory, options);
  try {
    const session = await engine.open();
    const { ids, rounds, logprobs } = await engine.generate(session, [1, 2, 3, 4, 5], {
      ...{ maxTokens: 60, temperature: 0.8, seed: 5n, logprobs: 0 },
      ...beams,
    });
    const { dtype, memory } = engine.info;
    return { dtype, ids, rounds, logprobs, kv: await engine.readKv(session), memory };
  } finally {
    await engine.close();
  }
}

/** A copy with changes to its configuration and to the bytes of its weights. */
function changed(
  from: string,
  config: object,
  change: (bytes: Buffer, begin: number) => void = () => undefined,
): string {
  const copy = temporaryDirectory('quantised');
  cpSync(from, copy, { recursive: true });
  const before = JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')) as object;
  writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...before, ...config }));
  const bytes = readFileSync(join(from, 'model.safetensors'));
  change(bytes, 8 + Number(bytes.readBigUInt64LE()));
  writeFileSync(join(copy, 'model.safetensors'), bytes);
  return copy;
}

const failure = async (directory: string, options: object = {}): Promise<string> => {
  const engine = await TestEngine.load(directory, options).catch((error: unknown) => (error as Error).message);
  if (typeof engine === 'string') return engine;
  await engine.close();
  return 'loaded';
};

describe('loading', () => {
  it.each(QUANTISED)('%s: what is quantised while it is read equals what was written so', async (dtype) => {
    const directory = await written(model, dtype);
    const stored = await decode(directory, {});
    const converted = await decode(model, { dtype });
    expect(stored).toEqual(converted);
    expect([stored.dtype, (await decode(directory, { dtype })).dtype]).toEqual([dtype, dtype]);
    expect((await decode(model, {})).kv).not.toEqual(stored.kv);
  });

  it('a bf16 model of several slices, with a drafter, gives the same bits and takes the same memory', async () => {
    for (const dtype of QUANTISED) {
      const own = await written(trainedDrafters.gru, 'q4_0');
      const beams = { beamWidth: 6, beamLength: 4 };
      const options = { kvTokens: 1024, contextTokens: 256 };
      const converted = await decode(bundled, { ...options, dtype, drafter: trainedDrafters.gru }, beams);
      const stored = await decode(await written(bundled, dtype), { ...options, drafter: own }, beams);
      expect(stored).toEqual(converted);
    }
  });

  it('what is loaded takes what was estimated, and a fraction of f32', async () => {
    const whole = await estimateMemory(bundled, { drafter: trainedDrafters.gru, dtype: 'f32', threads: 1 });
    for (const dtype of QUANTISED) {
      const options = { drafter: trainedDrafters.gru, dtype, threads: 1, kvTokens: 1024 };
      const estimate = await estimateMemory(bundled, options);
      const engine = await TestEngine.load(bundled, options);
      expect(engine.info.memory).toEqual(estimate);
      await engine.close();
      expect(estimate.weightBytes / whole.weightBytes).toBeCloseTo(dtype === 'q8_0' ? 8.5 / 32 : 4.5 / 32, 2);
      expect(estimate.drafterBytes / whole.drafterBytes).toBeCloseTo(4.5 / 32, 2);
      const refused = estimate.totalBytes - 1;
      expect(await failure(bundled, { ...options, memoryBudgetBytes: refused })).toContain('ERR_OOM');
      expect(await failure(bundled, { ...options, memoryBudgetBytes: refused + 1 })).toBe('loaded');
    }
  });

  it('models of other dtypes have other fingerprints', async () => {
    const prints = new Set<unknown>();
    for (const dtype of ['auto', 'bf16', ...QUANTISED]) {
      const engine = await TestEngine.load(model, { dtype });
      prints.add(engine.info.fingerprint);
      await engine.close();
    }
    expect(prints.size).toBe(4);
  });
});

describe('scales', () => {
  it('are rounded to f16 as by other arithmetic', () => {
    const random = new Random(3);
    for (let i = 0; i < 100_000; i++) {
      const value = Math.fround((random.uint32() / 2 ** 32 - 0.5) * 2 ** ((i % 44) - 27));
      expect(toHalf(value)).toBe(toF16(value));
    }
    for (const value of [0, 2 ** -25, 2 ** -25 * 1.0001, 2 ** -24, 2 ** -14, 65504, 65519, 65520, -1e9]) {
      expect(toHalf(Math.fround(value))).toBe(toF16(Math.fround(value)));
    }
  });

  it('of tiny and of huge weights are the same natively and in JavaScript', async () => {
    const scaled = temporaryDirectory('quantised');
    cpSync(join(model, 'config.json'), join(scaled, 'config.json'));
    const tensors = readTensors(model);
    for (const [i, spec] of Object.values(tensors).entries()) {
      const { fill } = spec;
      if (spec.shape.length === 2) spec.fill = (at) => fill(at) * 2 ** (((at >> 5) % 50) - (i % 2 === 0 ? 45 : 160));
    }
    writeSafetensors(scaled, tensors);
    for (const dtype of QUANTISED) {
      expect(await decode(await written(scaled, dtype), {})).toEqual(await decode(scaled, { dtype }));
    }
  });
});

describe('refusals', () => {
  const method = (more: object): object => ({
    quantization_config: { quant_method: 'redrafter', format: 'q8_0', group_size: 32, ...more },
  });

  it('of weights that have no scale, by name and place', async () => {
    const name = 'model.layers.1.mlp.up_proj.weight';
    for (const value of [NaN, Infinity, 1e9]) {
      const bad = temporaryDirectory('quantised');
      cpSync(join(model, 'config.json'), join(bad, 'config.json'));
      const tensors = readTensors(model);
      const fill = tensors[name]?.fill ?? (() => NaN);
      tensors[name] = { shape: [100, 72], fill: (i) => (i === 5 * 72 + 70 ? value : fill(i)) };
      writeSafetensors(bad, tensors);
      for (const dtype of QUANTISED) {
        const message = `cannot hold element [5, 70] of tensor "${name}"`;
        expect(await failure(bad, { dtype })).toContain(message);
        await expect(written(bad, dtype)).rejects.toMatchObject({
          code: 'ERR_INVALID_ARGUMENT',
          message: expect.stringContaining(message) as string,
        });
      }
    }
  });

  it('of what the configuration does not fit', async () => {
    const q8 = await written(model, 'q8_0');
    for (const [directory, options, expected] of [
      [
        q8,
        { dtype: 'q4_0' },
        /ERR_INVALID_ARGUMENT: the weights in .* are stored as q8_0, which cannot be loaded as q4_0/,
      ],
      [q8, { dtype: 'f32' }, /ERR_INVALID_ARGUMENT: .*cannot be loaded as f32/],
      [
        changed(q8, method({ format: 'q4_0' })),
        {},
        /ERR_MODEL_FORMAT: tensor ".*" has shape \[90, 102\], but a q4_0 matrix of 90 x 72 has \[90, 54\]/,
      ],
      [changed(q8, method({ format: 'q5_0' })), {}, /ERR_CONFIG: .*"format" is "q5_0", it must be "q8_0" or "q4_0"/],
      [changed(q8, method({ group_size: 64 })), {}, /ERR_CONFIG: .*"group_size"/],
      [
        changed(q8, method({ quant_method: 'gptq' })),
        {},
        /ERR_CONFIG: .*"quantization_config" is present: of quantized checkpoints only/,
      ],
      [changed(q8, { quantization_config: null }), {}, /ERR_MODEL_FORMAT: tensor ".*" has shape \[90, 102\]/],
      [
        changed(model, method({})),
        {},
        /ERR_MODEL_FORMAT: tensor ".*" is f32, but config.json says that matrices are quantised as q8_0/,
      ],
      [q8, { device: 'cuda:host' }, /ERR_INVALID_ARGUMENT: weights are stored as q8_0, which cuda has no matrices of/],
      [
        model,
        { device: 'cuda:host', dtype: 'q4_0' },
        /ERR_INVALID_ARGUMENT: device "cuda:host" has no matrices of dtype "q4_0"/,
      ],
    ] as const) {
      // prettier-ignore
      expect(await failure(directory, options)).toMatch(expected);
    }
  });

  it('of scales that are no numbers, by place', async () => {
    for (const dtype of QUANTISED) {
      const directory = changed(await written(model, dtype), {}, (bytes, begin) => {
        bytes.writeUInt16LE(0x7e00, begin + (dtype === 'q8_0' ? 34 : 18) * 4);
      });
      expect(await failure(directory)).toMatch(/ERR_MODEL_FORMAT: tensor ".*": the scale of group 1 of row 1 is not a finite number/); // prettier-ignore
    }
  });

  it('of what is quantised already', async () => {
    for (const directory of [model, drafter]) {
      const twice = await written(directory, 'q8_0');
      await expect(written(twice, 'q4_0')).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    }
  });
});
