// Tokens per step of the bundled drafters by cell and beam shape, on prompts no model saw in training, with greedy and
// sampled decoding. Counts only, no timings: they depend on the instruction-set level at most, not on how busy or fast
// the machine is.
//
//   node bench/acceptance.mjs --help
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Command, Option } from 'commander';

import { Model, version } from '../dist/index.mjs';
import { whole } from './parsing.mjs';

const DTYPES = /** @type {const} */ (['auto', 'f32', 'f16', 'bf16', 'q8_0', 'q4_0']);

/** @typedef {{ model: string, drafterDtype: typeof DTYPES[number], maxTokens: number, prompts: number, json?: string }} Flags */
const command = new Command('acceptance')
  .description('tokens per step of the drafters of a model by cell and beam shape; counts only, no timings')
  .option('--model <dir>', 'model directory', fileURLToPath(new URL('../models/ts-declarations', import.meta.url)))
  .addOption(new Option('--drafter-dtype <dtype>', "the drafters' element type").choices(DTYPES).default('auto'))
  .option('--max-tokens <n>', 'to decode after each prompt', whole, 192)
  .option('--prompts <n>', 'the first so many of prompts.json of the model', whole, 64)
  .option('--json <file>', 'writes the figures');
const values = /** @type {Flags} */ (command.parse().opts());
const { maxTokens } = values;
/** @type {unknown} */
const held = JSON.parse(readFileSync(join(values.model, 'prompts.json'), 'utf8'));
const prompts = /** @type {{ name: string, text: string }[]} */ (held).slice(0, values.prompts);

/** @type {[number, number][]} */
const shapes = [
  [1, 1],
  [1, 3],
  [1, 4],
  [1, 5],
  [2, 5],
  [4, 4],
  [4, 5],
  [8, 5],
  [16, 5],
];
const samplings = [
  { name: 'greedy', temperature: 0 },
  { name: 'T 0.7', temperature: 0.7 },
  { name: 'T 1', temperature: 1 },
];

/**
 * Tokens per step over all prompts: tokens emitted by verification passes / passes, the bonus token included.
 * @param {Model} model
 * @param {number} temperature
 * @param {[number, number]} shape
 */
async function measure(model, temperature, [beamWidth, beamLength]) {
  let [tokens, rounds, nodes] = [0, 0, 0];
  /** @type {number[]} */
  const depth = Array.from({ length: beamLength }, () => 0);
  await Promise.all(
    prompts.map(async ({ text }, i) => {
      const session = await model.createSession();
      const { stats } = await session
        .generate(text, { maxTokens, temperature, seed: i, beamWidth, beamLength })
        .result();
      await session.dispose();
      tokens += stats.tokens - 1;
      rounds += stats.rounds;
      nodes += stats.draftedNodes;
      stats.acceptedByDepth.forEach((count, d) => (depth[d] = (depth[d] ?? 0) + count));
    }),
  );
  return {
    beamWidth,
    beamLength,
    tokensPerStep: tokens / rounds,
    nodesPerStep: nodes / rounds,
    acceptanceByDepth: depth.map((count) => count / rounds),
  };
}

const results = [];
let engine = {};
for (const cell of ['elman', 'gru']) {
  const directory = join(values.model, `drafter-${cell}`);
  const model = await Model.load(values.model, {
    drafter: directory,
    drafterDtype: values.drafterDtype,
    kvTokens: 32768,
  });
  const { device, level, dtype, threads, drafter } = model.info;
  engine = { version: version(), device, level, dtype, drafterDtype: drafter?.dtype, threads };
  for (const { name, temperature } of samplings) {
    for (const shape of shapes) {
      const result = { cell, sampling: name, ...(await measure(model, temperature, shape)) };
      results.push(result);
      console.log(
        `${cell.padEnd(6)} ${name.padEnd(7)} ${shape.join('x').padEnd(5)} ${result.tokensPerStep.toFixed(2)} tokens/step, ` +
          `${result.nodesPerStep.toFixed(1)} nodes, by depth ${result.acceptanceByDepth.map((a) => a.toFixed(2)).join(' ')}`,
      );
    }
  }
  await model.dispose();
}
if (values.json !== undefined) {
  const date = new Date().toISOString().slice(0, 10);
  const report = { date, engine, model: 'ts-declarations', prompts: prompts.length, maxTokens, results };
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 1)}\n`);
}
