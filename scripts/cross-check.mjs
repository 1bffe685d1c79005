// Decodes with the bundled model on every level of the CPU backend, with and without drafting, and writes what came out
// to a file, as JSON: Node.js under Wine has no process.stdout. scripts/cross.mjs runs it on other platforms;
// REDRAFTER_PREBUILD picks the build.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Model, RedrafterError } from '../dist/index.js';
import { root } from './tools.mjs';

const MAX_TOKENS = 48;
const PROMPTS = ['interface Point {\n', 'export declare function read(path: string'];
const SAMPLINGS = [{ temperature: 0 }, { temperature: 0.8, topP: 0.95, seed: 7 }];

/**
 * The model on one level; undefined where this build or processor does not have it.
 * @param {`cpu:${string}`} device
 */
async function load(device) {
  const directory = join(root, 'models/ts-declarations');
  const options = { drafter: join(directory, 'drafter-gru'), device, threads: 1, contextTokens: 256 };
  try {
    return await Model.load(directory, options);
  } catch (error) {
    if (error instanceof RedrafterError && ['ERR_BACKEND', 'ERR_INVALID_ARGUMENT'].includes(error.code))
      return undefined;
    throw error;
  }
}

const [output = ''] = process.argv.slice(2);
/** Outputs that drafting changed; none may. @type {string[]} */
const changed = [];
/** @type {Record<string, { ids: number[][], logprobs: number[][] }>} */
const levels = {};
for (const level of ['avx512vnni', 'avx512', 'avx2', 'neon', 'base']) {
  const name = /** @type {const} */ (`cpu:${level}`);
  const model = await load(name);
  if (model === undefined) continue;
  /** @type {{ ids: number[][], logprobs: number[][] }} */
  const decoded = { ids: [], logprobs: [] };
  for (const prompt of PROMPTS) {
    for (const sampling of SAMPLINGS) {
      /** @param {boolean} drafting */
      const generate = async (drafting) => {
        const session = await model.createSession();
        const { tokenIds, logprobs } = await session
          .generate(prompt, { ...sampling, maxTokens: MAX_TOKENS, drafting, beamWidth: 4, logprobs: 0 })
          .result();
        return { ids: [...tokenIds], logprobs: (logprobs ?? []).map((entry) => entry.logprob) };
      };
      const plain = await generate(false);
      const drafted = await generate(true);
      if (JSON.stringify(plain) !== JSON.stringify(drafted)) {
        changed.push(`${name} ${JSON.stringify({ prompt, ...sampling })}`);
      }
      decoded.ids.push(plain.ids);
      decoded.logprobs.push(plain.logprobs);
    }
  }
  levels[name] = decoded;
  await model.dispose();
}
writeFileSync(output, JSON.stringify({ levels, changed }));
