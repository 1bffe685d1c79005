// A model directory (config.json, safetensors, tokenizer.json) as a GGUF of the architecture `llama`.
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

import { inspect } from '../../../dist/index.mjs';

import { TensorReader } from '../../../dist/widen/reader.js';
import { encode, floatsOf } from './elements.mjs';
import { DTYPES, writeGguf } from './file.mjs';
import { tokenizerMetadata } from './tokenizer.mjs';

/** @typedef {import('./file.mjs').Dtype} Dtype */
/** @typedef {import('./file.mjs').MetaValue} MetaValue */
/** @typedef {import('./file.mjs').Tensor} Tensor */
/** @typedef {import('../../../dist/index.mjs').TensorInfo} TensorInfo */
/** @typedef {{ layers: number, hidden: number, ffn: number, heads: number, kvHeads: number, headDim: number, vocab: number,
 *   maxPositions: number, normEps: number, ropeTheta: number, ropeScaling: string, ropeFactor: number,
 *   eosTokenIds: number[], family: string }} Config */

/** Elements that are read, converted and written at once. */
const SLAB = 1 << 20;

/** What a tensor of a layer is called in a GGUF. @type {Readonly<Record<string, string>>} */
const LAYER_NAMES = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};
/** @type {Readonly<Record<string, string>>} */
const NAMES = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};

/**
 * The name in a GGUF, and the layer a tensor belongs to (-1: none). Null: it holds nothing that is not in the configuration.
 * @param {string} name
 */
export function ggufName(name) {
  const whole = NAMES[name];
  if (whole !== undefined) return { name: whole, layer: -1 };
  if (name.endsWith('.rotary_emb.inv_freq')) return null;
  const [, layer = '', part = '', kind = ''] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  const known = LAYER_NAMES[part];
  if (known === undefined) throw new Error(`nothing is known of the tensor ${name}`);
  return { name: `blk.${layer}.${known}.${kind}`, layer: Number(layer) };
}

/**
 * Where row `row` of a permuted q or k comes from. Hugging Face rotates element i of a head with element i + half of it, this
 * architecture elements 2 i and 2 i + 1.
 * @param {number} row @param {number} headDim
 */
export function sourceRow(row, headDim) {
  const [head, within] = [Math.floor(row / headDim), row % headDim];
  return head * headDim + (within >> 1) + (within & 1) * (headDim / 2);
}

/** @param {Float32Array} values whole heads of rows @param {number} headDim @param {number} columns */
function permuted(values, headDim, columns) {
  const out = new Float32Array(values.length);
  for (let row = 0; row < values.length / columns; row++) {
    const from = sourceRow(row, headDim) * columns;
    out.set(values.subarray(from, from + columns), row * columns);
  }
  return out;
}

/**
 * @param {TensorReader} reader @param {TensorInfo} source @param {Dtype} dtype
 * @param {number} headDim 0: rows keep their order
 */
function* converted(reader, source, dtype, headDim) {
  const columns = headDim > 0 && source.shape.length === 1 ? 1 : (source.shape.at(-1) ?? 1);
  const elements = source.shape.reduce((all, size) => all * size, 1);
  const unit = columns * Math.max(headDim, 1);
  const slab = unit * Math.max(Math.floor(SLAB / unit), 1);
  const elementBytes = source.bytes / elements;
  for (let first = 0; first < elements; first += slab) {
    const count = Math.min(slab, elements - first);
    const values = floatsOf(source.dtype, reader.slice(source, first * elementBytes, count * elementBytes));
    yield encode(dtype, headDim > 0 ? permuted(values, headDim, columns) : values);
  }
}

/**
 * What frequencies of rotation are divided by, one for each pair of a head: the rule of Llama 3 for long contexts.
 * @param {Pick<Config, 'headDim' | 'ropeTheta' | 'ropeFactor'>} config
 * @param {{ low_freq_factor: number, high_freq_factor: number, original_max_position_embeddings: number }} scaling
 */
export function ropeDivisors({ headDim, ropeTheta, ropeFactor }, scaling) {
  const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: original } = scaling;
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * ropeTheta ** ((2 * i) / headDim);
    if (wavelength < original / high) return 1;
    if (wavelength > original / low) return ropeFactor;
    const smooth = (original / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / ropeFactor + smooth);
  });
}

/** @param {string} directory @param {Config} config @returns {Tensor[]} */
function ropeTensors(directory, config) {
  if (config.ropeScaling !== 'llama3') return [];
  /** @type {unknown} */
  const parsed = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8'));
  const { rope_parameters: now, rope_scaling: before } =
    /** @type {Record<string, Parameters<typeof ropeDivisors>[1] | undefined>} */ (parsed);
  const scaling = now ?? before;
  if (scaling === undefined) throw new Error(`${directory} has no rope scaling`);
  const divisors = ropeDivisors(config, scaling);
  return [{ name: 'rope_freqs.weight', dtype: 'f32', shape: [divisors.length], data: () => [encode('f32', divisors)] }];
}

/** @param {string} name @param {Config} config @param {number} layers @param {Dtype} dtype @returns {Record<string, MetaValue>} */
function modelMetadata(name, config, layers, dtype) {
  /** @type {Record<string, MetaValue>} */
  const linear =
    config.ropeScaling === 'linear'
      ? { 'llama.rope.scaling.type': { string: 'linear' }, 'llama.rope.scaling.factor': { f32: config.ropeFactor } }
      : {};
  return {
    'general.architecture': { string: 'llama' },
    'general.name': { string: name },
    'general.file_type': { u32: DTYPES[dtype].fileType },
    'general.quantization_version': { u32: 2 },
    'llama.block_count': { u32: layers },
    'llama.context_length': { u32: config.maxPositions },
    'llama.embedding_length': { u32: config.hidden },
    'llama.feed_forward_length': { u32: config.ffn },
    'llama.attention.head_count': { u32: config.heads },
    'llama.attention.head_count_kv': { u32: config.kvHeads },
    'llama.attention.key_length': { u32: config.headDim },
    'llama.attention.value_length': { u32: config.headDim },
    'llama.attention.layer_norm_rms_epsilon': { f32: config.normEps },
    'llama.rope.dimension_count': { u32: config.headDim },
    'llama.rope.freq_base': { f32: config.ropeTheta },
    'llama.vocab_size': { u32: config.vocab },
    ...linear,
  };
}

/**
 * Writes the model. Matrices get the dtype, vectors stay fp32; without an own head, the embedding is used for it.
 * @param {string} directory @param {string} out @param {{ dtype: Dtype, layers?: number }} options `layers`: only the first ones
 * @returns {Promise<{ tensorBytes: number, parameters: number }>}
 */
export async function convert(directory, out, { dtype, layers: cut }) {
  const { kind, config: checked, tensors } = await inspect(directory);
  const config = /** @type {Config} */ (/** @type {unknown} */ (checked));
  if (kind !== 'model' || !['llama', 'mistral'].includes(config.family)) {
    throw new Error(`${directory}: only models of the Llama and Mistral families are written as a GGUF`);
  }
  if (config.ropeScaling === 'yarn') throw new Error(`${directory}: rope scaling yarn is not written as a GGUF`);
  const layers = cut ?? config.layers;
  if (!Number.isInteger(layers) || layers < 1 || layers > config.layers) {
    throw new Error(`cannot take ${layers} of the ${config.layers} layers`);
  }
  const reader = new TensorReader();
  try {
    const written = tensors.flatMap((source) => {
      const known = ggufName(source.name);
      if (known === null || known.layer >= layers) return [];
      const isTied = checked['tiedEmbeddings'] === true && source.name === 'lm_head.weight';
      if (isTied) return [];
      const headDim = /attn_[qk]\./.test(known.name) ? config.headDim : 0;
      const own = source.shape.length > 1 ? dtype : 'f32';
      return [
        { name: known.name, dtype: own, shape: source.shape, data: () => converted(reader, source, own, headDim) },
      ];
    });
    const metadata = {
      ...modelMetadata(basename(directory), config, layers, dtype),
      ...tokenizerMetadata(directory, config.vocab, config.eosTokenIds),
    };
    const bytes = writeGguf(out, metadata, [...written, ...ropeTensors(directory, config)]);
    const parameters = written.reduce((sum, { shape }) => sum + shape.reduce((all, size) => all * size, 1), 0);
    return { tensorBytes: bytes, parameters };
  } finally {
    reader.close();
  }
}
