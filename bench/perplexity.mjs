// What a dtype costs in quality: the perplexity of the bundled model on files that it never saw (train/held-out.json), in
// windows that each begin with nothing before them. A token's log-probability is asked for by generating it: a bias decides the
// choice, and log-probabilities are of the logits before biases.
//
//   node bench/perplexity.mjs --help
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Command, Option } from 'commander';

import { Model, version } from '../dist/index.mjs';
import { listOf, whole } from './parsing.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const DTYPES = /** @type {const} */ (['f32', 'f16', 'bf16', 'q8_0', 'q4_0']);
/** @typedef {{ model: string, dtypes: (typeof DTYPES)[number][], window: number, tokens: number, device: 'cpu' | 'cuda', json?: string }} Flags */
const command = new Command('perplexity')
  .description('what an element type of the weights costs in quality, on files the bundled model never saw')
  .option('--model <dir>', 'model directory', join(root, 'models/ts-declarations'))
  .option('--dtypes <list>', `of ${DTYPES.join(',')}`, listOf(DTYPES), ['f32', 'bf16', 'q8_0', 'q4_0'])
  .option('--window <n>', 'tokens before which there is nothing', whole, 512)
  .option('--tokens <n>', 'at most so many in all', whole, 1_000_000)
  .addOption(new Option('--device <device>', 'where the model runs').choices(['cpu', 'cuda']).default('cpu'))
  .option('--json <file>', 'writes the figures');
const values = /** @type {Flags} */ (command.parse().opts());
const { window, device } = values;

/** @type {unknown} */
const listed = JSON.parse(readFileSync(join(root, 'train/held-out.json'), 'utf8'));
const files = /** @type {{ heldOut: string[] }} */ (listed).heldOut.filter((file) => existsSync(join(root, file)));

/**
 * The windows of all files, until there are enough tokens.
 * @param {Model} model
 */
function windowsOf(model) {
  /** @type {number[][]} */
  const windows = [];
  let left = values.tokens;
  for (const file of files) {
    const ids = [...(model.tokenizer?.encode(readFileSync(join(root, file), 'utf8')) ?? [])];
    for (let at = 0; at + 1 < ids.length && left > 0; at += window) {
      const own = ids.slice(at, at + Math.min(window, left));
      if (own.length > 1) windows.push(own);
      left -= own.length;
    }
  }
  return windows;
}

/**
 * The log-probability of each token of a window but the first.
 * @param {Model} model
 * @param {number[]} ids
 */
async function score(model, ids) {
  const session = await model.createSession();
  const logprobs = [];
  for (let i = 1; i < ids.length; i++) {
    const next = ids[i] ?? 0;
    const options = { maxTokens: 1, temperature: 0, logprobs: 0, logitBias: { [next]: 100 }, ignoreEos: true };
    const { tokenIds, logprobs: entries } = await session.generate(i === 1 ? ids.slice(0, 1) : [], options).result();
    if (tokenIds[0] !== next) throw new Error(`the bias did not decide: ${String(tokenIds[0])} instead of ${next}`);
    logprobs.push(entries?.[0]?.logprob ?? NaN);
  }
  await session.dispose();
  return logprobs;
}

/** @type {{ dtype: string, weightBytes: number, tokens: number, loss: number, perplexity: number, difference?: number, standardError?: number }[]} */
const results = [];
/** Of the first dtype, which the others are compared with, token by token. @type {number[]} */
let first = [];
let level = '';
for (const dtype of values.dtypes) {
  const model = await Model.load(values.model, { dtype, device, contextTokens: window + 1, kvTokens: 64 * window });
  level = model.info.level;
  const windows = windowsOf(model);
  /** @type {number[][]} */
  const scores = [];
  for (let at = 0; at < windows.length; at += 32) {
    scores.push(...(await Promise.all(windows.slice(at, at + 32).map((ids) => score(model, ids)))));
  }
  const logprobs = scores.flat();
  const loss = -logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length;
  const row = {
    dtype,
    weightBytes: model.info.memory.weightBytes,
    tokens: logprobs.length,
    loss,
    perplexity: Math.exp(loss),
  };
  if (first.length === 0) {
    first = logprobs;
    results.push(row);
  } else {
    const worse = first.map((value, i) => value - (logprobs[i] ?? NaN));
    const difference = worse.reduce((sum, value) => sum + value, 0) / worse.length;
    const variance = worse.reduce((sum, value) => sum + (value - difference) ** 2, 0) / (worse.length - 1);
    results.push({ ...row, difference, standardError: Math.sqrt(variance / worse.length) });
  }
  console.log(JSON.stringify(results.at(-1)));
  await model.dispose();
}
if (values.json !== undefined) {
  const report = {
    date: new Date().toISOString().slice(0, 10),
    version,
    level,
    model: 'ts-declarations',
    files,
    window,
    results,
  };
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 1)}\n`);
}
