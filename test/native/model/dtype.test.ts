/** `dtype`: weights converted while they are read, bit for bit as stated, and lossless decoding with each of them. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { decode, encode } from '../../kit/bf16.js';
import {
  readTensors,
  temporaryDirectory,
  type TensorSpec,
  writeSafetensors,
  writeTinyDrafter,
  writeTinyLlama,
} from '../../kit/checkpoint.js';
import { type Generated, TestEngine } from '../../kit/native-engine.js';
import type { DType } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { testing } from '../../kit/testing.js';

const DTYPES = ['f32', 'f16', 'bf16'] as const;

const bytesOf = (data: Float32Array | Uint16Array): Uint8Array => new Uint8Array(data.buffer, 0, data.byteLength);

function typed(dtype: DType, bytes: Uint8Array): Float32Array | Uint16Array {
  const { buffer } = Uint8Array.from(bytes);
  return dtype === 'f32' ? new Float32Array(buffer) : new Uint16Array(buffer);
}

/** Converts native and by the test's own arithmetic; NaN only has to stay NaN. */
function expectExact(source: Float32Array | Uint16Array, from: DType, to: DType): void {
  const got = typed(to, testing.ops.convert(bytesOf(source), from, to).bytes);
  const values = decode(from, source);
  const expected = encode(to, values);
  const wrong = values.findIndex((value, i) =>
    Number.isNaN(value) ? !Number.isNaN(decode(to, got.slice(i, i + 1))[0]) : !Object.is(got[i], expected[i]),
  );
  expect(wrong < 0 ? undefined : { from, to, value: values[wrong], got: got[wrong], expected: expected[wrong] }).toBe(
    undefined,
  );
}

/** Float32 values of these bit patterns. */
function fromBits(bits: Uint32Array): Float32Array {
  return new Float32Array(bits.buffer);
}

describe('conversion of elements', () => {
  it('is exact for every half and every bfloat16', () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const to of DTYPES) {
      expectExact(all, 'f16', to);
      expectExact(all, 'bf16', to);
    }
  });

  it('is exact for random f32 of every exponent, subnormals, infinities and NaN', () => {
    const random = new Random(1);
    const source = fromBits(Uint32Array.from({ length: 400_000 }, () => random.uint32()));
    const special = Float32Array.of(0, -0, Infinity, -Infinity, NaN, 1e-45, -1e-45, 2 ** -126, 65504, 65519.99, 65520, 65536, -65520, 3.4e38); // prettier-ignore
    for (const to of DTYPES) {
      expectExact(source, 'f32', to);
      expectExact(special, 'f32', to);
    }
  });

  it('rounds ties to even, and the neighbours of ties to their side', () => {
    const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const to of ['f16', 'bf16'] as const) {
      const values = decode(to, halves);
      const near: number[] = [];
      for (let i = 0; i + 1 < values.length; i++) {
        const middle = ((values[i] ?? NaN) + (values[i + 1] ?? NaN)) / 2;
        if (!Number.isFinite(middle)) continue;
        const float = Float32Array.of(middle);
        const bits = new Uint32Array(float.buffer);
        near.push(middle, ...fromBits(Uint32Array.of((bits[0] ?? 0) - 1, (bits[0] ?? 0) + 1)));
      }
      expectExact(Float32Array.from(near), 'f32', to);
    }
  });

  it('tells the first finite element that becomes infinite, and only those', () => {
    const source = Float32Array.of(1, Infinity, NaN, -65519, 65520, 70000);
    expect(testing.ops.convert(bytesOf(source), 'f32', 'f16').overflow).toBe(4);
    expect(testing.ops.convert(bytesOf(source), 'f32', 'bf16').overflow).toBe(-1);
    const largest = fromBits(Uint32Array.of(0x7f7f7fff, 0x7f7f8000)); // rounds down, and up, at the end of bf16
    expect(testing.ops.convert(bytesOf(largest), 'f32', 'bf16').overflow).toBe(1);
  });
});

const shape = { vocab: 60, hidden: 32, layers: 2, heads: 4, kvHeads: 2, headDim: 8, ffn: 48, maxPositions: 256 };

const original = { model: temporaryDirectory('dtype'), drafter: temporaryDirectory('dtype') };
writeTinyLlama(original.model, shape, 21);
writeTinyDrafter(original.drafter, 'gru', shape.vocab, shape.hidden, 22);

/** The same directory with the matrices that `dtypeOf` names a dtype for stored in it. */
function stored(directory: string, dtypeOf: (name: string, i: number) => DType): string {
  const copy = temporaryDirectory('dtype');
  cpSync(join(directory, 'config.json'), join(copy, 'config.json'));
  const tensors = Object.entries(readTensors(directory)).map(([name, spec], i): [string, TensorSpec] => [
    name,
    spec.shape.length === 2 ? { ...spec, dtype: dtypeOf(name, i) } : spec,
  ]);
  writeSafetensors(copy, Object.fromEntries(tensors));
  return copy;
}

interface Decoded {
  dtype: string;
  out: Generated;
  kv: Float32Array;
}

async function run(
  model: string,
  dtype: DType | 'auto',
  drafter?: string,
  shapeOf: object = {},
  temperature = 0,
): Promise<Decoded> {
  const engine = await TestEngine.load(model, { dtype, ...(drafter === undefined ? {} : { drafter }) });
  try {
    const session = await engine.open();
    const options = { maxTokens: 60, temperature, seed: 5n, logprobs: 0, ...shapeOf };
    const out = await engine.generate(session, [1, 2, 3, 4, 5], options);
    return { dtype: engine.info.dtype, out, kv: await engine.readKv(session) };
  } finally {
    await engine.close();
  }
}

describe('loading with a dtype', () => {
  it.each(DTYPES)('%s gives what a checkpoint stored like that gives', async (dtype) => {
    const converted = await run(original.model, dtype);
    const asStored = await run(
      stored(original.model, () => dtype),
      'auto',
    );
    expect([converted.dtype, asStored.dtype]).toEqual([dtype, dtype]);
    expect(converted.out.ids).toEqual(asStored.out.ids);
    expect(converted.out.logprobs).toEqual(asStored.out.logprobs);
    expect(converted.kv).toEqual(asStored.kv);
    // The dtypes do differ in what they compute, or the comparison would prove nothing.
    if (dtype !== 'f32') expect(converted.kv).not.toEqual((await run(original.model, 'f32')).kv);
  });

  it.each(DTYPES)('%s: drafting on equals off, greedy and sampled', async (dtype) => {
    for (const temperature of [0, 1]) {
      const plain = await run(original.model, dtype, undefined, {}, temperature);
      for (const beams of [
        { beamWidth: 1, beamLength: 4 },
        { beamWidth: 8, beamLength: 5 },
      ]) {
        const drafted = await run(original.model, dtype, original.drafter, beams, temperature);
        expect(drafted.out.ids).toEqual(plain.out.ids);
        expect(drafted.out.logprobs).toEqual(plain.out.logprobs);
        expect(drafted.kv).toEqual(plain.kv);
      }
    }
  });

  it('converts the drafter too', async () => {
    const beams = { beamWidth: 4, beamLength: 4 };
    const rounds = async (drafter: string, dtype: DType | 'auto'): Promise<number[][]> =>
      (await run(original.model, dtype, drafter, beams)).out.rounds;
    const drafter = stored(original.drafter, () => 'bf16');
    expect(await rounds(original.drafter, 'bf16')).toEqual(await rounds(drafter, 'bf16'));
    const engine = await TestEngine.load(original.model, { drafter: original.drafter, dtype: 'bf16' });
    const whole = await TestEngine.load(original.model, { drafter: original.drafter });
    const bytes = (of: TestEngine): number => of.info.memory.drafterBytes;
    expect(bytes(engine)).toBeLessThan(0.6 * bytes(whole));
    await engine.close();
    await whole.close();
  });

  it('takes files that mix dtypes, also within one packed matrix', async () => {
    // q, k and v become one matrix, as do gate and up.
    const mixed = stored(original.model, (_, i) => DTYPES[i % 3] ?? 'f32');
    await expect(TestEngine.load(mixed)).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringMatching(/must have the same dtype; load with a dtype/) as string,
    });
    for (const dtype of DTYPES) expect((await run(mixed, dtype)).dtype).toBe(dtype);
    // What was rounded once stays as it is: through f32 nothing more is lost.
    const bf16 = stored(original.model, () => 'bf16');
    expect((await run(bf16, 'f32')).kv).toEqual((await run(bf16, 'bf16')).kv);
    const between = stored(original.model, (name) => (name.includes('mlp') ? 'bf16' : 'f32'));
    expect((await run(between, 'auto')).dtype).toBe('mixed');
  });

  it('reads matrices of several slices', async () => {
    const large = temporaryDirectory('dtype');
    const wide = { ...shape, vocab: 40_000, layers: 1 }; // 5 MB of f32 in the embedding
    writeTinyLlama(large, wide, 23);
    const asStored = stored(large, () => 'bf16');
    expect((await run(large, 'bf16')).out).toMatchObject({ logprobs: (await run(asStored, 'auto')).out.logprobs });
  });

  it('refuses what the dtype cannot hold, by name and place, and keeps infinities', async () => {
    const name = 'model.layers.1.mlp.up_proj.weight';
    const change = (value: number): string => {
      const directory = temporaryDirectory('dtype');
      cpSync(join(original.model, 'config.json'), join(directory, 'config.json'));
      const tensors = readTensors(original.model);
      const fill = tensors[name]?.fill ?? (() => NaN);
      tensors[name] = { shape: [48, 32], fill: (i) => (i === 5 * 32 + 7 ? value : fill(i)) };
      writeSafetensors(directory, tensors);
      return directory;
    };
    const large = change(-70000);
    await expect(TestEngine.load(large, { dtype: 'f16' })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: `ERR_INVALID_ARGUMENT: dtype "f16" cannot hold element [5, 7] of tensor "${name}": -70000 is too large; another dtype may (of a drafter: drafterDtype)`,
    });
    for (const dtype of ['auto', 'f32', 'bf16'] as const) await (await TestEngine.load(large, { dtype })).close();
    await (await TestEngine.load(change(Infinity), { dtype: 'f16' })).close();
    await expect(TestEngine.load(large, { dtype: 'f64' })).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
});
