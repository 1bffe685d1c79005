// How long the event loop is held up while models decode and load, beside an idle baseline of the same run. Timer
// delays are measured on the main thread (perf_hooks.monitorEventLoopDelay at 1 ms), so an idle loop shows about 1 ms.
// The large model is random: 1.4 GB of weights and a byte-level BPE tokenizer of 128,000 entries, in a temporary folder.
//
//   node bench/event-loop.mjs --help
//
// Exits with 1 when the 99th percentile reaches 5 ms while a model loads or decodes. A tokenizer loaded by itself is
// shown as well: it has little else to wait for, so its few longer turns (a growing Map, the collector) weigh more.
import { Buffer } from 'node:buffer';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';

import { Command } from 'commander';

import { Model, Tokenizer, version } from '../dist/index.mjs';
import { positive, whole } from './parsing.mjs';

const LIMIT_MS = 5;
/** @typedef {{ seconds: number, threads: number, json?: string }} Flags */
const command = new Command('event-loop')
  .description('how long the event loop is held up while models decode and load (exit code 1: p99 of 5 ms or more)')
  .option('--seconds <n>', 'of each part', positive, 3)
  .option('--threads <n>', 'of the models', whole, availableParallelism())
  .option('--json <file>', 'writes the figures');
const values = /** @type {Flags} */ (command.parse().opts());
const { seconds, threads } = values;
const bundled = new URL('../models/ts-declarations', import.meta.url).pathname;

/** @typedef {{ part: string, bar: boolean, seconds: number, samples: number, p50: number, p99: number, max: number }} Row */
/** @type {Row[]} */
const rows = [];

/**
 * Measures while `work` runs. `bar`: whether the limit holds for it.
 * @template T
 * @param {string} part @param {() => Promise<T>} work
 */
async function measure(part, work, bar = true) {
  await wait(50);
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  const start = performance.now();
  const result = await work();
  await wait(5); // a delay is counted by the timer after it
  histogram.disable();
  const ms = (/** @type {number} */ ns) => Math.round(ns / 1e4) / 100;
  /** @type {Row} */
  const row = {
    part,
    bar,
    seconds: Math.round(performance.now() - start) / 1000,
    samples: histogram.count,
    p50: ms(histogram.percentile(50)),
    p99: ms(histogram.percentile(99)),
    max: ms(histogram.max),
  };
  rows.push(row);
  console.log(
    `${part.padEnd(34)} ${row.seconds.toFixed(2).padStart(6)} s  p50 ${row.p50.toFixed(2).padStart(6)}  ` +
      `p99 ${row.p99.toFixed(2).padStart(6)}  max ${row.max.toFixed(2).padStart(7)} ms`,
  );
  return result;
}

/** @param {Model} model @param {number} requests */
async function decode(model, requests) {
  const until = performance.now() + 1000 * seconds;
  let tokens = 0;
  const prompts = ['interface Point {\n', 'export declare function ', 'type A = {\n', 'declare class '];
  await Promise.all(
    Array.from({ length: requests }, async (_, i) => {
      while (performance.now() < until) {
        const session = await model.createSession();
        const options = { maxTokens: 200, ignoreEos: true, temperature: 0.7, seed: i };
        for await (const { tokenIds } of session.generate(prompts[i % prompts.length] ?? '', options))
          tokens += tokenIds.length;
        await session.dispose();
      }
    }),
  );
  return tokens;
}

/** A tokenizer.json as large models have it: `size` tokens, all but 256 of them made by merges. @param {number} size */
function bpe(size) {
  let [next, state] = [256, 1];
  const tokens = Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(printable ? byte : next++);
  });
  const known = new Set(tokens);
  /** @type {[string, string][]} */
  const merges = [];
  const pick = () => tokens[(state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % tokens.length] ?? '';
  while (tokens.length < size) {
    const [a, b] = [pick(), pick()];
    if (a.length + b.length > 12 || known.has(a + b)) continue;
    known.add(a + b);
    tokens.push(a + b);
    merges.push([a, b]);
  }
  return {
    added_tokens: [{ id: size, content: '<|end|>', special: true }],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

/** Random bf16 weights between -1/32 and 1/32. @param {string} directory */
function writeLarge(directory) {
  mkdirSync(directory);
  const [vocab, hidden, ffn, layers] = [128_256, 2048, 8192, 3];
  writeFileSync(
    join(directory, 'config.json'),
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      vocab_size: vocab,
      hidden_size: hidden,
      num_hidden_layers: layers,
      num_attention_heads: 16,
      num_key_value_heads: 16,
      intermediate_size: ffn,
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      hidden_act: 'silu',
      tie_word_embeddings: false,
    }),
  );
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(bpe(128_000)));
  /** @type {Record<string, number[]>} */
  const shapes = {
    'model.embed_tokens.weight': [vocab, hidden],
    'model.norm.weight': [hidden],
    'lm_head.weight': [vocab, hidden],
  };
  for (let i = 0; i < layers; i++) {
    const p = `model.layers.${i}.`;
    for (const name of ['input_layernorm', 'post_attention_layernorm']) shapes[`${p}${name}.weight`] = [hidden];
    for (const name of ['q', 'k', 'v', 'o']) shapes[`${p}self_attn.${name}_proj.weight`] = [hidden, hidden];
    for (const name of ['gate', 'up']) shapes[`${p}mlp.${name}_proj.weight`] = [ffn, hidden];
    shapes[`${p}mlp.down_proj.weight`] = [hidden, ffn];
  }
  let bytes = 0;
  /** @type {Record<string, unknown>} */
  const header = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const size = 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [bytes, bytes + size] };
    bytes += size;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const weights = new Uint16Array(1 << 23);
  let state = 1;
  for (let i = 0; i < weights.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    weights[i] = (state & 0x80000000 ? 0x8000 : 0) | (0x3c00 + ((state >>> 16) & 0xff)); // 2^-7 to 2^-5, either sign
  }
  const block = Buffer.from(weights.buffer);
  const file = openSync(join(directory, 'model.safetensors'), 'w');
  writeSync(file, Buffer.concat([length, json]));
  for (let left = bytes; left > 0; left -= block.length) writeSync(file, block, 0, Math.min(left, block.length));
  closeSync(file);
  return bytes;
}

const before = loadavg()[0] ?? 0;
const root = mkdtempSync(join(tmpdir(), 'redrafter-event-loop-'));
try {
  const large = join(root, 'large');
  const largeBytes = writeLarge(large);
  await measure('idle', () => wait(1000 * seconds));
  const load = () => Model.load(bundled, { drafter: join(bundled, 'drafter-gru'), threads, kvTokens: 8192 });
  const model = await load();
  await measure('loading, bundled model, 20 times', async () => {
    for (let i = 0; i < 20; i++) await (await load()).dispose();
  });
  await measure('decoding, 1 request', () => decode(model, 1));
  await measure('decoding, 8 requests', () => decode(model, 8));
  await model.dispose();
  await measure('loading a tokenizer of 128,000', () => Tokenizer.load(large), false);
  const big = await measure('loading, 1.4 GB', () => Model.load(large, { threads, contextTokens: 1024 }));
  await measure('decoding, 1.4 GB, 1 request', async () => {
    const session = await big.createSession();
    await session.generate([1, 2, 3], { maxTokens: 10 * Math.ceil(seconds), ignoreEos: true }).result();
  });
  await measure('disposing, 1.4 GB', () => big.dispose());
  if (values.json !== undefined) {
    const date = new Date().toISOString().slice(0, 10);
    const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
    const machine = { cpu: cpus()[0]?.model ?? '', cores: availableParallelism(), node: process.version, load: before };
    writeFileSync(
      values.json,
      `${JSON.stringify({ date, version: version(), commit, machine, threads, largeBytes, rows }, null, 2)}\n`,
    );
  }
} finally {
  rmSync(root, { recursive: true, force: true });
}

const over = rows.filter(({ p99, bar }) => bar && p99 >= LIMIT_MS);
if (over.some(({ part }) => part === 'idle'))
  console.log('the idle baseline is over the limit: the machine is too busy');
if (over.length > 0) console.log(`p99 of ${LIMIT_MS} ms or more: ${over.map(({ part }) => part).join('; ')}`);
process.exitCode = over.length > 0 ? 1 : 0;
