// One trial, in a process of its own: one engine, loaded in one way, warmed up, and measured once. A job comes as a message, a
// result goes back as one.
import { resourceUsage } from 'node:process';

import { loadOurs } from './ours.mjs';
import { loadPeer } from './peer.mjs';

/**
 * @typedef {object} Job
 * @property {'redrafter' | 'node-llama-cpp'} engine
 * @property {'plain' | 'drafting' | 'lookup' | 'draft'} way
 * @property {'decode' | 'prefill' | 'margin' | 'tokenize'} kind what is measured
 * @property {string} model a directory, or a GGUF file
 * @property {string} [drafter] directory of a recurrent drafter
 * @property {string} [draft] GGUF of a draft model
 * @property {string} dtype
 * @property {number} threads
 * @property {number} rows sequences that decode at the same time
 * @property {number} contextTokens of each
 * @property {boolean} [exact] KV in f32
 * @property {number[][]} prompts ids; more than `rows` of them follow one another
 * @property {number} tokens to decode after each
 * @property {string[]} [texts] to tokenize
 */
/**
 * @typedef {object} Result
 * @property {number} tokensPerSecond decoded, or of the prompt with `prefill`; 0 where nothing was timed
 * @property {number[][]} ids by prompt, or text
 * @property {number[]} margins by prompt
 * @property {number} tokensPerStep
 * @property {OwnResult | null} own of redrafter alone
 * @property {number} memoryBytes the most that the process had resident
 * @property {Record<string, string>} info
 */

/**
 * A mean for each of the lists that reports have.
 * @typedef {import('../../lib/bench/peers-report.js').OwnFigures} OwnFigures
 * @typedef {{ [key in Exclude<keyof OwnFigures, 'bytes'>]: number } & Pick<OwnFigures, 'bytes'>} OwnResult
 */

/** Tokens that are decoded first and not counted. */
const WARM_UP_TOKENS = 16;
/** How often a prompt is read; the shortest time counts, as what disturbs one only makes it longer. */
const PREFILLS = 3;

/** @param {Job} job @returns {Promise<Result>} */
async function run(job) {
  const engine = await (job.engine === 'redrafter' ? loadOurs(job) : loadPeer(job));
  const { prompts, rows, tokens } = job;
  /** @type {number[][]} */
  const ids = [];
  /** @type {number[]} */
  const margins = [];
  let [count, ms, tokensPerStep] = [0, 0, 1];
  /** @type {OwnResult | null} */
  let own = null;
  if (job.kind === 'decode') {
    await engine.decode(prompts.slice(0, rows), Math.min(WARM_UP_TOKENS, tokens));
    await engine.take();
    for (let i = 0; i < prompts.length; i += rows) {
      const done = await engine.decode(prompts.slice(i, i + rows), tokens);
      ids.push(...done.ids);
      count += done.ids.length * tokens;
      ms += done.ms;
    }
    ({ tokensPerStep, own } = await engine.take());
  } else if (job.kind === 'prefill') {
    for (const prompt of prompts) {
      const times = [];
      await engine.firstToken(prompt.slice(0, WARM_UP_TOKENS));
      for (let i = 0; i < PREFILLS; i++) {
        const first = await engine.firstToken(prompt);
        times.push(first.ms);
        if (i === 0) ids.push(first.ids);
      }
      count += prompt.length;
      ms += Math.min(...times);
    }
  } else if (job.kind === 'margin') {
    for (const prompt of prompts) margins.push(await engine.margin(prompt));
  } else {
    for (const text of job.texts ?? []) ids.push(engine.tokenize(text));
  }
  const info = engine.info();
  await engine.dispose();
  const tokensPerSecond = ms > 0 ? (count * 1000) / ms : 0;
  return { tokensPerSecond, ids, margins, tokensPerStep, own, memoryBytes: resourceUsage().maxRSS * 1024, info };
}

process.once('message', (job) => {
  run(/** @type {Job} */ (job)).then(
    (result) => process.send?.({ result }, () => process.exit(0)),
    (/** @type {unknown} */ error) =>
      process.send?.({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }, () =>
        process.exit(1),
      ),
  );
});
