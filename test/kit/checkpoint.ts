/** Writes small model and drafter directories: safetensors files with tensors a test made. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { encode } from './bf16.js';
import type { DType } from './ops.js';
import { Random } from './random.js';
import { testing } from './testing.js';

export interface TensorSpec {
  shape: number[];
  /** Value of element i. */
  fill: (i: number) => number;
  /** Default: f32. */
  dtype?: DType;
}

/** Writes tensors as model.safetensors. */
export function writeSafetensors(directory: string, tensors: Record<string, TensorSpec>): void {
  const header: Record<string, unknown> = {};
  const parts: (Float32Array | Uint16Array)[] = [];
  let offset = 0;
  for (const [name, { shape, fill, dtype = 'f32' }] of Object.entries(tensors)) {
    const data = encode(
      dtype,
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => fill(i)),
    );
    header[name] = { dtype: dtype.toUpperCase(), shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
    parts.push(data);
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  const bytes = parts.map((p) => Buffer.from(p.buffer, p.byteOffset, p.byteLength));
  writeFileSync(join(directory, 'model.safetensors'), Buffer.concat([size, json, ...bytes]));
}

/** The tensors of a model.safetensors whose dtypes are all f32, to write again. */
export function readTensors(directory: string): Record<string, TensorSpec> {
  const checkpoint = testing.io.openCheckpoint(directory);
  const tensors: Record<string, TensorSpec> = {};
  for (const { name, shape, bytes } of checkpoint.tensors) {
    const data = checkpoint.read(name, 0, bytes) ?? new Uint8Array(0);
    const values = new Float32Array(Uint8Array.from(data).buffer);
    tensors[name] = { shape, fill: (i) => values[i] ?? NaN };
  }
  checkpoint.close();
  return tensors;
}

/** A new folder; it goes away after all tests (temporary.ts). */
export function temporaryDirectory(name: string): string {
  return mkdtempSync(join(tmpdir(), `redrafter-${name}-`));
}

export interface TinyShape {
  vocab: number;
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  ffn: number;
  maxPositions: number;
}

/** A random Llama with weights scaled so that its logits spread: neither uniform nor degenerate. */
export function writeTinyLlama(directory: string, shape: TinyShape, seed: number): void {
  const random = new Random(seed);
  const { vocab, hidden, layers, heads, kvHeads, headDim, ffn } = shape;
  const matrix = (rows: number, cols: number): TensorSpec => ({
    shape: [rows, cols],
    fill: () => random.normal() / Math.sqrt(cols),
  });
  const ones: TensorSpec = { shape: [hidden], fill: () => 1 + 0.1 * random.normal() };
  const tensors: Record<string, TensorSpec> = {
    'model.embed_tokens.weight': { shape: [vocab, hidden], fill: () => random.normal() },
  };
  for (let i = 0; i < layers; i++) {
    const p = `model.layers.${i}.`;
    tensors[`${p}input_layernorm.weight`] = ones;
    tensors[`${p}self_attn.q_proj.weight`] = matrix(heads * headDim, hidden);
    tensors[`${p}self_attn.k_proj.weight`] = matrix(kvHeads * headDim, hidden);
    tensors[`${p}self_attn.v_proj.weight`] = matrix(kvHeads * headDim, hidden);
    tensors[`${p}self_attn.o_proj.weight`] = matrix(hidden, heads * headDim);
    tensors[`${p}post_attention_layernorm.weight`] = ones;
    tensors[`${p}mlp.gate_proj.weight`] = matrix(ffn, hidden);
    tensors[`${p}mlp.up_proj.weight`] = matrix(ffn, hidden);
    tensors[`${p}mlp.down_proj.weight`] = matrix(hidden, ffn);
  }
  tensors['model.norm.weight'] = ones;
  tensors['lm_head.weight'] = { shape: [vocab, hidden], fill: () => (random.normal() * 2) / Math.sqrt(hidden) };
  mkdirSync(directory, { recursive: true });
  writeSafetensors(directory, tensors);
  writeFileSync(
    join(directory, 'config.json'),
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      vocab_size: vocab,
      hidden_size: hidden,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      head_dim: headDim,
      intermediate_size: ffn,
      max_position_embeddings: shape.maxPositions,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      hidden_act: 'silu',
      tie_word_embeddings: false,
    }),
  );
}

/** A drafter that knows nothing: random weights, or NaN everywhere. */
export function writeTinyDrafter(
  directory: string,
  cell: 'sum' | 'elman' | 'gru',
  vocab: number,
  hidden: number,
  seed: number,
  nan = false,
): void {
  const random = new Random(seed);
  const value = (scale: number) => () => (nan ? NaN : random.normal() * scale);
  const exit = hidden;
  const matrix = (rows: number, cols: number): TensorSpec => ({
    shape: [rows, cols],
    fill: value(1 / Math.sqrt(cols)),
  });
  const tensors: Record<string, TensorSpec> = {};
  if (cell === 'elman') {
    tensors['rnn_w.weight'] = matrix(hidden, hidden);
    tensors['rnn_u.weight'] = matrix(hidden, hidden);
    tensors['rnn_u.bias'] = { shape: [hidden], fill: value(0.1) };
  } else if (cell === 'gru') {
    tensors['gru.weight_ih'] = matrix(3 * hidden, hidden);
    tensors['gru.weight_hh'] = matrix(3 * hidden, hidden);
    tensors['gru.bias_ih'] = { shape: [3 * hidden], fill: value(0.1) };
    tensors['gru.bias_hh'] = { shape: [3 * hidden], fill: value(0.1) };
  }
  tensors['input_proj.weight'] = matrix(exit, 2 * hidden);
  tensors['input_proj.bias'] = { shape: [exit], fill: value(0.1) };
  tensors['blocks.0.weight'] = matrix(exit, exit);
  tensors['blocks.0.bias'] = { shape: [exit], fill: value(0.1) };
  tensors['head.weight'] = { shape: [vocab, exit], fill: value(2 / Math.sqrt(exit)) };
  mkdirSync(directory, { recursive: true });
  writeSafetensors(directory, tensors);
  writeFileSync(
    join(directory, 'config.json'),
    JSON.stringify({
      model_type: 'redrafter_drafter',
      cell,
      vocab_size: vocab,
      hidden_size: hidden,
      exit_dim: exit,
      num_draft_layers: 1,
    }),
  );
}
