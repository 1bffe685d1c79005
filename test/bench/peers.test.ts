/** bench/peers without the peer: the GGUF that is written, read back by a reader of its own; its blocks; sizes; what is refused. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { encode, floatsOf, fromF16, toBf16, toF16 } from '../../bench/peers/gguf/elements.mjs';
import { writeGguf } from '../../bench/peers/gguf/file.mjs';
import { convert, ggufName, ropeDivisors, sourceRow } from '../../bench/peers/gguf/model.mjs';
import { preTokenizerName, tokenizerMetadata } from '../../bench/peers/gguf/tokenizer.mjs';
import { runPeers } from '../../bench/peers/index.mjs';
import { chosenSize } from '../../bench/peers/sizes.mjs';
import { Model } from '../../lib/index.js';
import { quantiseRow, rowBytes } from '../../lib/quantize/groups.js';
import { quantize } from '../../lib/quantize/quantize.js';
import { widen } from '../../lib/widen/widen.js';
import * as kit from '../kit/bf16.js';
import { bundled } from '../kit/bundled.js';
import { readTensors, temporaryDirectory, writeSafetensors, writeTinyLlama } from '../kit/checkpoint.js';
import { Random } from '../kit/random.js';
import { type Gguf, readGguf } from './gguf-reader.js';

const directory = temporaryDirectory('bench-peers');
const SHAPE = { vocab: 48, hidden: 64, layers: 3, heads: 4, kvHeads: 2, headDim: 16, ffn: 96, maxPositions: 128 };
const model = join(directory, 'tiny');

/** Byte-level BPE of a few tokens. */
const TOKENIZER = {
  added_tokens: [
    { id: 0, content: '<|end|>', special: true },
    { id: 5, content: '<tool>', special: false },
  ],
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
  model: { type: 'BPE', vocab: { a: 1, b: 2, ab: 3, Ġab: 4 }, merges: ['a b', ['Ġ', 'ab']] },
};

function writeModel(to: string, change: Record<string, unknown> = {}): void {
  writeTinyLlama(to, SHAPE, 7);
  const file = join(to, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, JSON.stringify({ ...config, bos_token_id: 1, eos_token_id: [0, 3], ...change }));
  writeFileSync(join(to, 'tokenizer.json'), JSON.stringify(TOKENIZER));
}

beforeAll(() => {
  writeModel(model);
});

async function written(dtype: Parameters<typeof encode>[0], layers?: number): Promise<Gguf> {
  const out = join(directory, `${dtype}-${layers ?? 'all'}.gguf`);
  await convert(model, out, layers === undefined ? { dtype } : { dtype, layers });
  return readGguf(out);
}

describe('the file', () => {
  it('has the header, the metadata with their types, and aligned tensors', () => {
    const out = join(directory, 'small.gguf');
    const data = new Uint8Array([1, 2, 3, 4]);
    const one = { name: 'one', dtype: 'f32' as const, shape: [1], data: () => [data] };
    const half = { name: 'half', dtype: 'f16' as const, shape: [2, 3], data: () => [new Uint8Array(6).fill(7), new Uint8Array(6).fill(8)] }; // prettier-ignore
    const size = writeGguf(
      out,
      { a: { u32: 4e9 }, b: { f32: 0.5 }, c: { bool: true }, d: { string: 'Ġé' }, e: { strings: ['x', ''] }, f: { i32s: [-1, 3] } }, // prettier-ignore
      [one, half],
    );
    expect(size).toBe(64);
    const read = readGguf(out);
    expect(read.version).toBe(3);
    expect([...read.metadata]).toEqual([
      ['a', { type: 4, value: 4e9 }],
      ['b', { type: 6, value: 0.5 }],
      ['c', { type: 7, value: true }],
      ['d', { type: 8, value: 'Ġé' }],
      ['e', { type: 9, of: 8, value: ['x', ''] }],
      ['f', { type: 9, of: 5, value: [-1, 3] }],
    ]);
    expect(read.dataOffset % 32).toBe(0);
    expect(read.tensors).toMatchObject([
      { name: 'one', type: 0, dimensions: [1], offset: 0 },
      { name: 'half', type: 1, dimensions: [3, 2], offset: 32 },
    ]);
    expect(read.fileBytes).toBe(read.dataOffset + 64);
    expect([...read.bytes('one', 4)]).toEqual([1, 2, 3, 4]);
    expect([...read.bytes('half', 12)]).toEqual([7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8]);
  });

  it('is not there if a tensor gives too little', () => {
    const out = join(directory, 'bad.gguf');
    const short = { name: 'short', dtype: 'f32' as const, shape: [2], data: () => [new Uint8Array(4)] };
    expect(() => writeGguf(out, {}, [short])).toThrow('short gave 4 bytes instead of 8');
    expect(existsSync(out) || existsSync(`${out}.partial`)).toBe(false);
  });
});

describe('elements', () => {
  it('are rounded to nearest, ties to even, as those of the library are', () => {
    const random = new Random(3);
    const edges = [0, -0, 1, 65504, 65519, 65520, 2 ** -14, 2 ** -24, 2 ** -25, 1.5 * 2 ** -25, 2 ** -14 - 2 ** -26, 1 + 2 ** -11, 1 + 3 * 2 ** -11, Infinity, -Infinity]; // prettier-ignore
    const values = [...edges, ...Array.from({ length: 4000 }, () => random.normal() * 2 ** (40 * random.normal()))];
    for (const value of values.map(Math.fround)) {
      expect([toF16(value), toBf16(value)], `${value}`).toEqual([kit.toF16(value), kit.toBf16(value)]);
    }
    expect(fromF16(toF16(NaN))).toBeNaN();
    for (let half = 0; half < 0x7c00; half++) if (toF16(fromF16(half)) !== half) throw new Error(`${half}`);
  });

  it('of bf16 and f16 are widened exactly, others are refused', () => {
    expect([...floatsOf('bf16', new Uint8Array([0x80, 0x3f, 0, 0xc0]))]).toEqual([1, -2]);
    expect([...floatsOf('f16', new Uint8Array([0, 0x3c, 0, 0xb8]))]).toEqual([1, -0.5]);
    expect(() => floatsOf('i32', new Uint8Array(4))).toThrow('dtype i32');
  });

  it('in q8_0: scale over 127, halves away from zero', () => {
    const values = new Float32Array(32);
    values.set([127, 0.5, -0.5, 1.5, -1.5, 2.4999, -126.5, -127]);
    const block = encode('q8_0', values);
    expect(block.length).toBe(34);
    expect(fromF16((block[0] ?? 0) + ((block[1] ?? 0) << 8))).toBe(1);
    expect([...new Int8Array(block.buffer, 2, 8)]).toEqual([127, 1, -1, 2, -2, 2, -127, -127]);
    expect([...encode('q8_0', new Float32Array(32))]).toEqual(new Array(34).fill(0));
  });

  it('in q4_0: the element of the largest magnitude becomes -8, whatever its sign', () => {
    const values = new Float32Array(32);
    values.set([8, 4, -4, 0.4, 0.6, -7.9]);
    values.set([-8, 1], 16); // as large, but later
    const block = encode('q4_0', values);
    expect(block.length).toBe(18);
    expect(fromF16((block[0] ?? 0) + ((block[1] ?? 0) << 8))).toBe(-1);
    const quants = Array.from({ length: 32 }, (_, i) => ((block[2 + (i % 16)] ?? 0) >> (i < 16 ? 0 : 4)) & 15);
    // x / -1 + 8.5, cut: 8 -> 0, 4 -> 4, -4 -> 12, 0.4 -> 8, 0.6 -> 7, -7.9 -> 16, which is too large; -8 -> 15, 1 -> 7.
    expect(quants.slice(0, 7)).toEqual([0, 4, 12, 8, 7, 15, 8]);
    expect(quants.slice(16, 19)).toEqual([15, 7, 8]);
    // The scale of nothing is 0 / -8, which is -0.
    expect([...encode('q4_0', new Float32Array(32))]).toEqual([0, 0x80, ...new Array<number>(16).fill(0x88)]);
  });

  it('come back from blocks within half a step', () => {
    const random = new Random(11);
    const values = Float32Array.from({ length: 320 }, () => random.normal());
    const eight = encode('q8_0', values);
    const four = encode('q4_0', values);
    for (let i = 0; i < 320; i++) {
      const [block, at] = [Math.floor(i / 32), i % 32];
      const scale8 = fromF16((eight[block * 34] ?? 0) + ((eight[block * 34 + 1] ?? 0) << 8));
      const scale4 = fromF16((four[block * 18] ?? 0) + ((four[block * 18 + 1] ?? 0) << 8));
      const back8 = scale8 * (((eight[block * 34 + 2 + at] ?? 0) << 24) >> 24);
      const nibble = ((four[block * 18 + 2 + (at % 16)] ?? 0) >> (at < 16 ? 0 : 4)) & 15;
      expect(Math.abs(back8 - (values[i] ?? 0))).toBeLessThanOrEqual(Math.abs(scale8) * 0.6);
      // The end of the range opposite to the largest element has one step less.
      expect(Math.abs(scale4 * (nibble - 8) - (values[i] ?? 0))).toBeLessThanOrEqual(Math.abs(scale4) * 1.01);
    }
  });

  it('that are no whole blocks are refused', () => {
    expect(() => encode('q8_0', new Float32Array(33))).toThrow('no whole blocks');
  });
});

describe('a model', () => {
  it('has all tensors under their names, q and k permuted for the other rotation', async () => {
    const read = await written('f32');
    const source = readTensors(model);
    const floats = (name: string, count: number) => new Float32Array(read.bytes(name, count * 4).buffer);
    const check = (from: string, to: string, rowAt: (row: number) => number): void => {
      const { shape, fill } = source[from] ?? { shape: [], fill: () => NaN };
      const columns = shape.at(-1) ?? 1;
      const rows = shape.length > 1 ? (shape[0] ?? 1) : 1;
      const values = floats(to, rows * columns);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          if (values[row * columns + column] !== fill(rowAt(row) * columns + column)) throw new Error(`${to} ${row} ${column}`); // prettier-ignore
        }
      }
    };
    const same = (row: number) => row;
    // In this architecture elements 2 i and 2 i + 1 of a head turn together, in the checkpoint i and i + 8.
    const rotated = (row: number) => {
      const [head, pair, second] = [Math.floor(row / 16), Math.floor((row % 16) / 2), row % 2];
      return head * 16 + pair + 8 * second;
    };
    check('model.embed_tokens.weight', 'token_embd.weight', same);
    check('lm_head.weight', 'output.weight', same);
    check('model.norm.weight', 'output_norm.weight', same);
    for (let i = 0; i < SHAPE.layers; i++) {
      const [from, to] = [`model.layers.${i}.`, `blk.${i}.`];
      check(`${from}self_attn.q_proj.weight`, `${to}attn_q.weight`, rotated);
      check(`${from}self_attn.k_proj.weight`, `${to}attn_k.weight`, rotated);
      check(`${from}self_attn.v_proj.weight`, `${to}attn_v.weight`, same);
      check(`${from}self_attn.o_proj.weight`, `${to}attn_output.weight`, same);
      check(`${from}mlp.gate_proj.weight`, `${to}ffn_gate.weight`, same);
      check(`${from}mlp.up_proj.weight`, `${to}ffn_up.weight`, same);
      check(`${from}mlp.down_proj.weight`, `${to}ffn_down.weight`, same);
      check(`${from}input_layernorm.weight`, `${to}attn_norm.weight`, same);
      check(`${from}post_attention_layernorm.weight`, `${to}ffn_norm.weight`, same);
    }
    expect(read.tensors.length).toBe(3 + 9 * SHAPE.layers);
    expect(read.tensors.find(({ name }) => name === 'blk.0.ffn_down.weight')?.dimensions).toEqual([96, 64]);
  });

  it('says what it is', async () => {
    const { metadata } = await written('q8_0');
    const value = (key: string) => metadata.get(key)?.value;
    expect(value('general.architecture')).toBe('llama');
    expect(value('general.file_type')).toBe(7);
    expect(value('llama.block_count')).toBe(3);
    expect(value('llama.embedding_length')).toBe(64);
    expect(value('llama.feed_forward_length')).toBe(96);
    expect(value('llama.attention.head_count')).toBe(4);
    expect(value('llama.attention.head_count_kv')).toBe(2);
    expect(value('llama.attention.key_length')).toBe(16);
    expect(value('llama.rope.dimension_count')).toBe(16);
    expect(value('llama.rope.freq_base')).toBe(10000);
    expect(value('llama.attention.layer_norm_rms_epsilon')).toBeCloseTo(1e-5, 12);
    expect(value('llama.context_length')).toBe(128);
  });

  it.each([
    ['f32', 0],
    ['f16', 1],
    ['bf16', 30],
    ['q8_0', 8],
    ['q4_0', 2],
  ] as const)('keeps matrices as %s and vectors as f32', async (dtype, id) => {
    const read = await written(dtype);
    for (const { name, type, dimensions } of read.tensors) expect(type, name).toBe(dimensions.length > 1 ? id : 0);
    const { fill } = readTensors(model)['model.embed_tokens.weight'] ?? { fill: () => NaN };
    const embedding = Float32Array.from({ length: 48 * 64 }, (_, i) => fill(i)); // prettier-ignore
    const expected = encode(dtype, embedding);
    expect(Buffer.compare(read.bytes('token_embd.weight', expected.length), expected)).toBe(0);
  });

  it('is cut after some layers', async () => {
    const read = await written('f32', 1);
    expect(read.metadata.get('llama.block_count')?.value).toBe(1);
    expect(read.tensors.length).toBe(3 + 9);
    await expect(written('f32', 4)).rejects.toThrow('cannot take 4 of the 3 layers');
  });

  it('without a head of its own has none in the file', async () => {
    const tied = join(directory, 'tied');
    writeModel(tied, { tie_word_embeddings: true });
    const tensors = Object.entries(readTensors(tied)).filter(([name]) => name !== 'lm_head.weight');
    writeSafetensors(tied, Object.fromEntries(tensors));
    await convert(tied, join(directory, 'tied.gguf'), { dtype: 'f32' });
    const names = readGguf(join(directory, 'tied.gguf')).tensors.map(({ name }) => name);
    expect(names).toContain('token_embd.weight');
    expect(names).not.toContain('output.weight');
  });

  it('carries the scaling of its rotation', async () => {
    const scaled = join(directory, 'linear');
    writeModel(scaled, { rope_theta: 5e5, rope_scaling: { rope_type: 'linear', factor: 4 } });
    await convert(scaled, join(directory, 'linear.gguf'), { dtype: 'bf16' });
    const { metadata } = readGguf(join(directory, 'linear.gguf'));
    expect(metadata.get('llama.rope.scaling.type')?.value).toBe('linear');
    expect(metadata.get('llama.rope.scaling.factor')?.value).toBe(4);
    expect(metadata.get('llama.rope.freq_base')?.value).toBe(5e5);

    const long = join(directory, 'llama3');
    const llama3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
    writeModel(long, { rope_scaling: { rope_type: 'llama3', factor: 8, ...llama3 } });
    await convert(long, join(directory, 'llama3.gguf'), { dtype: 'bf16' });
    const read = readGguf(join(directory, 'llama3.gguf'));
    const divisors = [...new Float32Array(read.bytes('rope_freqs.weight', 32).buffer)];
    // Wavelengths 2 pi 10000^(i / 8): 6.3 is short, 19.9 between 64/4 and 64/1, 62.8 too, 199 and beyond are long.
    const between = (wavelength: number) => {
      const smooth = (64 / wavelength - 1) / 3;
      return 1 / ((1 - smooth) / 8 + smooth);
    };
    const wavelengths = [1, 2].map((i) => 2 * Math.PI * 10000 ** (i / 8));
    const expected = [1, ...wavelengths.map(between), 8, 8, 8, 8, 8].map(Math.fround);
    expect(divisors).toEqual(expected);
    expect([...ropeDivisors({ headDim: 16, ropeTheta: 10000, ropeFactor: 8 }, llama3)]).toEqual(divisors);
  });

  it('of another kind is refused by name', async () => {
    const out = join(directory, 'never.gguf');
    const yarn = join(directory, 'yarn');
    writeModel(yarn, { rope_scaling: { rope_type: 'yarn', factor: 4 } });
    await expect(convert(yarn, out, { dtype: 'f32' })).rejects.toThrow('yarn');
    await expect(convert(join(bundled, 'drafter-gru'), out, { dtype: 'f32' })).rejects.toThrow(
      'only models of the Llama',
    );
    await expect(convert(join(directory, 'nowhere'), out, { dtype: 'f32' })).rejects.toMatchObject({
      code: 'ERR_FILE',
    });
    const bare = join(directory, 'bare');
    writeTinyLlama(bare, SHAPE, 1);
    await expect(convert(bare, out, { dtype: 'f32' })).rejects.toThrow('no tokenizer.json');
    const odd = join(directory, 'odd');
    writeTinyLlama(odd, { ...SHAPE, ffn: 80 }, 1);
    cpSync(join(model, 'tokenizer.json'), join(odd, 'tokenizer.json'));
    await expect(convert(odd, out, { dtype: 'q4_0' })).rejects.toThrow('rows of 80 elements, which q4_0 cannot hold');
    expect(existsSync(out)).toBe(false);
    expect(() => ggufName('model.layers.0.self_attn.q_norm.weight')).toThrow('nothing is known');
    expect(ggufName('model.layers.12.self_attn.q_proj.bias')).toEqual({ name: 'blk.12.attn_q.bias', layer: 12 });
    expect([0, 1, 2, 15].map((row) => sourceRow(row + 16, 16))).toEqual([16, 24, 17, 31]);
  });
});

describe('a tokenizer', () => {
  it('becomes tokens, kinds and merges by id', () => {
    const metadata = tokenizerMetadata(model, 7, [0]);
    expect(metadata).toMatchObject({
      'tokenizer.ggml.model': { string: 'gpt2' },
      'tokenizer.ggml.pre': { string: 'gpt-2' },
      'tokenizer.ggml.tokens': { strings: ['<|end|>', 'a', 'b', 'ab', 'Ġab', '<tool>', '[unused 6]'] },
      'tokenizer.ggml.token_type': { i32s: [3, 1, 1, 1, 1, 4, 5] },
      'tokenizer.ggml.merges': { strings: ['a b', 'Ġ ab'] },
      'tokenizer.ggml.bos_token_id': { u32: 1 },
      'tokenizer.ggml.eos_token_id': { u32: 0 },
    });
    expect(() => tokenizerMetadata(model, 5, [])).toThrow('an id 5, but the model has 5 ids');
  });

  it('of the bundled model has all of its tokens', () => {
    const { 'tokenizer.ggml.tokens': tokens, 'tokenizer.ggml.token_type': kinds } = tokenizerMetadata(
      bundled,
      2048,
      [0],
    );
    expect(tokens !== undefined && 'strings' in tokens ? tokens.strings.length : 0).toBe(2048);
    expect(kinds !== undefined && 'i32s' in kinds ? kinds.i32s.filter((kind) => kind !== 1) : []).toEqual([3]);
  });

  it('names how it cuts texts, if that is known', () => {
    expect(preTokenizerName({ type: 'ByteLevel', add_prefix_space: true })).toBeUndefined();
    expect(preTokenizerName(null)).toBeUndefined();
    const split = (Regex: string) => ({
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex }, behavior: 'Isolated' },
        { type: 'ByteLevel', use_regex: false },
      ],
    });
    const common = (digits: string) => `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`; // prettier-ignore
    expect(preTokenizerName(split(common('\\p{N}{1,3}')))).toBe('llama-bpe');
    expect(preTokenizerName(split(common('\\p{N}')))).toBe('qwen2');
    expect(preTokenizerName(split('\\w+'))).toBeUndefined();
  });

  it('of another kind is refused', () => {
    const other = join(directory, 'other');
    writeModel(other);
    writeFileSync(join(other, 'tokenizer.json'), JSON.stringify({ model: { type: 'Unigram' } }));
    expect(() => tokenizerMetadata(other, 48, [])).toThrow('not a byte-level BPE');
  });
});

describe('the size', () => {
  it('of the bundled model in each dtype is 1 GB or more by the least factor', async () => {
    const chosen = async (dtype: 'bf16' | 'q8_0' | 'q4_0') => chosenSize(bundled, dtype, { weightsGb: 1 });
    expect((await chosen('bf16')).factor).toBe(9);
    expect((await chosen('q8_0')).factor).toBe(13);
    for (const dtype of ['bf16', 'q8_0', 'q4_0'] as const) {
      const { factor, weightBytes } = await chosen(dtype);
      const { weightBytes: less } = await chosenSize(bundled, dtype, { weightsGb: 1, factor: factor - 1 });
      expect(weightBytes).toBeGreaterThanOrEqual(1e9);
      expect(less).toBeLessThan(1e9);
    }
    expect((await chosenSize(bundled, 'bf16', { weightsGb: 0 })).factor).toBe(1);
    await expect(chosenSize(model, 'bf16', { weightsGb: 100 })).rejects.toThrow('64 times is the most');
  });

  it('is that of the files', async () => {
    const wide = join(directory, 'wide');
    const { bytes } = await widen(model, 3, wide);
    const { weightBytes, parameters } = await chosenSize(model, 'f32', { weightsGb: 0, factor: 3 });
    expect([weightBytes, parameters]).toEqual([bytes, bytes / 4]);
    const out = join(directory, 'wide.gguf');
    await convert(wide, out, { dtype: 'q8_0' });
    const read = readGguf(out);
    const size = (await chosenSize(model, 'q8_0', { weightsGb: 0, factor: 3 })).weightBytes;
    expect(read.fileBytes - read.dataOffset).toBe(size);
  });
});

describe('quantised blocks', () => {
  const edges = [0, -0, 1e-38, -1e-38, 6e-8, 127, -127, 0.5, -0.5, 1e4, -8, 8];

  it.each(['q8_0', 'q4_0'] as const)('%s: the bytes that quantising writes', (form) => {
    const random = new Random(17);
    for (let n = 0; n < 3000; n++) {
      const scale = 2 ** ((n % 40) - 26);
      const values = Float32Array.from({ length: 96 }, (_, i) => n % 5 === 0 ? (edges[(i * 7 + n) % edges.length] ?? 0) : random.normal() * scale); // prettier-ignore
      const expected = new Uint8Array(rowBytes(form, 96));
      expect(quantiseRow(values, form, expected, 0)).toBe(-1);
      if (Buffer.compare(encode(form, values), expected) !== 0) throw new Error(`${form}, row ${n}: other bytes`);
    }
  });

  it.each(['q8_0', 'q4_0'] as const)('%s: the bits that loading makes of the same weights', async (form) => {
    const decoded = async (from: string, dtype: 'auto' | 'q8_0' | 'q4_0') => {
      const loaded = await Model.load(from, { device: 'cpu', dtype, threads: 1 });
      const session = await loaded.createSession();
      const { tokenIds, logprobs } = await session.generate([1, 2, 3, 4], { maxTokens: 40, ignoreEos: true, temperature: 0.8, seed: 3, logprobs: 5 }).result(); // prettier-ignore
      await loaded.dispose();
      return { tokenIds, logprobs };
    };
    const stored = join(directory, `stored-${form}`);
    await quantize(model, form, stored);
    const file = join(stored, 'model.safetensors');
    const tensors = readTensors(model);
    const bytes = readFileSync(file);
    const begin = 8 + Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, begin)) as Record<string, { data_offsets: [number, number]; shape: number[] }>; // prettier-ignore
    let matrices = 0;
    for (const [name, { data_offsets: at }] of Object.entries(header)) {
      const { shape = [], fill } = tensors[name] ?? {};
      if (shape.length < 2 || fill === undefined) continue;
      const values = Float32Array.from({ length: shape.reduce((all, size) => all * size, 1) }, (_, i) => fill(i));
      bytes.fill(0, begin + at[0], begin + at[1]);
      bytes.set(encode(form, values), begin + at[0]);
      matrices++;
    }
    writeFileSync(file, bytes);
    expect(matrices).toBe(2 + 7 * SHAPE.layers);
    const expected = await decoded(model, form);
    expect(await decoded(stored, 'auto')).toEqual(expected);
    const at = begin + (header['lm_head.weight']?.data_offsets[0] ?? 0) + 5;
    bytes[at] = (bytes[at] ?? 0) ^ 0x40;
    writeFileSync(file, bytes);
    expect(await decoded(stored, 'auto')).not.toEqual(expected); // negative control
  });
});

describe('the command', () => {
  const main = join(import.meta.dirname, '../../bench/peers/main.mjs');
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 30_000 });

  it('explains itself', () => {
    const { status, stdout } = run('--help');
    expect(status).toBe(0);
    for (const option of ['--weights-gb', '--factor', '--quick', '--dtypes', '--only', '--json', '--html', '--merge']) {
      expect(stdout).toContain(option);
    }
  });

  it('refuses what it does not know', () => {
    expect(run('--only', 'decode,nothing').stderr).toContain('must be of ids,decode,rows,prefill,batch');
    expect(run('--dtypes', 'q2').stderr).toContain('must be of f32,f16,bf16,q8_0,q4_0');
    expect(run('--merge').stderr).toContain('--merge needs --json');
  });

  it('says what is wrong with an input before it installs or measures anything', async () => {
    await expect(runPeers({ turns: 0 })).rejects.toThrow('turns must be a whole number above 0, got 0');
    await expect(runPeers({ weightsGb: -1 })).rejects.toThrow('weightsGb must be from 0 to 1000, got -1');
    await expect(runPeers({ batches: [0] })).rejects.toThrow('not known: 0');
    const prompts = join(directory, 'prompts.json');
    writeFileSync(prompts, '[{ "text": 3 }]');
    await expect(runPeers({ prompts })).rejects.toThrow('no JSON array of { text }');
  });
});
