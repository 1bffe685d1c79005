/** Weights of gigabytes are held once: the peak of a load is what stays, and dispose() gives it back. */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, expect, it } from 'vitest';

import { temporaryDirectory } from '../kit/checkpoint.js';
import { scriptRunner } from '../kit/script.js';

const root = temporaryDirectory('gigabytes');
afterAll(() => {
  rmSync(root, { recursive: true, force: true });
});

const HIDDEN = 2048;
const [VOCAB, LAYERS, FFN] = [32_000, 15, 8192];

/** A Llama of 1.1 billion zeros in bf16; the file is sparse and takes no room on the disk. */
function writeZeros(directory: string): number {
  mkdirSync(directory);
  const config = {
    architectures: ['LlamaForCausalLM'],
    vocab_size: VOCAB,
    hidden_size: HIDDEN,
    num_hidden_layers: LAYERS,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    intermediate_size: FFN,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: 'silu',
    tie_word_embeddings: false,
  };
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  const square = [HIDDEN, HIDDEN];
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': [VOCAB, HIDDEN],
    'model.norm.weight': [HIDDEN],
    'lm_head.weight': [VOCAB, HIDDEN],
  };
  for (let i = 0; i < LAYERS; i++) {
    const p = `model.layers.${i}.`;
    for (const name of ['input_layernorm', 'post_attention_layernorm']) shapes[`${p}${name}.weight`] = [HIDDEN];
    for (const name of ['q', 'k', 'v', 'o']) shapes[`${p}self_attn.${name}_proj.weight`] = square;
    for (const name of ['gate', 'up']) shapes[`${p}mlp.${name}_proj.weight`] = [FFN, HIDDEN];
    shapes[`${p}mlp.down_proj.weight`] = [HIDDEN, FFN];
  }
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(join(directory, 'model.safetensors'), 'w');
  writeSync(file, Buffer.concat([size, json]));
  ftruncateSync(file, 8 + json.length + offset);
  closeSync(file);
  return offset;
}

/** Bytes the system can still give, where it tells. */
function available(): number {
  if (process.platform !== 'linux') return 0;
  return 1024 * Number(/MemAvailable:\s*(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

it.skipIf(available() < 6 * 2 ** 30)(
  'loading 2.2 GB takes 2.2 GB, and disposal gives them back',
  async () => {
    const model = join(root, 'model');
    const bytes = writeZeros(model);
    expect(bytes).toBeGreaterThan(2.2e9);
    const script = scriptRunner({ model, drafter: '', idsOnly: model });
    const body = `
    const before = status('VmRSS');
    const m = await load({ drafter: false, threads: 2, contextTokens: 256, kvTokens: 1024 });
    const { weightBytes, kvBytes, workspaceBytes } = m.memoryUsage();
    const peak = status('VmHWM');
    await m.dispose();
    console.log(JSON.stringify([before, peak, status('VmRSS')].map((kb) => kb * 1024).concat(weightBytes, kvBytes + workspaceBytes)));`;
    const { code, stdout, stderr } = await script(body, { timeout: 120_000 });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [before = NaN, peak = NaN, after = NaN, weights = NaN, rest = NaN] = JSON.parse(stdout) as number[];
    expect(weights).toBeGreaterThanOrEqual(bytes);
    expect(peak).toBeGreaterThan(weights); // the load was really seen
    expect(peak - before).toBeLessThan((weights + rest) * 1.1);
    expect(after - before).toBeLessThan(0.1 * weights);
  },
  150_000,
);
