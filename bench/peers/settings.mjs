// What may be given, and what counts where nothing is.
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { CASES } from './cases.mjs';
import { DTYPES } from './gguf/file.mjs';

/** @typedef {import('./cases.mjs').Case} Case */
/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/**
 * @typedef {object} Options
 * @property {string} [model] model directory of the Llama or Mistral family; default: the bundled one
 * @property {string} [drafter] drafter directory; default: `drafter-gru` in that of the model, if there is one
 * @property {number} [weightsGb] both are widened by the least factor that makes the weights of a dtype as many 10^9 bytes, as
 *   they are stored; default: 1 with the bundled model, else 0, which widens nothing
 * @property {number} [factor] how many times the units of both are replicated, 1 to 64, whatever that makes
 * @property {Dtype[]} [dtypes] default: bf16 and q8_0
 * @property {Case[]} [only] default: all
 * @property {number} [threads] of each engine; default: one per processor
 * @property {number[]} [peerThreads] the peer is tried with each of these; default: as many as `threads`, and 1
 * @property {string} [prompts] JSON array of `{ text }`; default: prompts.json of the model, else of the bundled one
 * @property {number} [count] prompts that are taken from it, spread over it; default: 4, quick 2
 * @property {number} [tokens] to decode after each; default: 48, quick 32
 * @property {number} [idsTokens] to decode after each where ids are compared; default: 256, quick 64
 * @property {number} [turns] trials of each way; default: 3, quick 1
 * @property {number[]} [batches] sequences at once in `batch`; default: 2, 4, 8, 16, 32
 * @property {boolean} [quick] a rough run: fewer prompts, tokens and turns, and the peer with `threads` alone
 * @property {string} [work] folder that keeps the files for another run; default: a temporary one
 * @property {(line: string) => void} [tell] takes progress
 * @property {(report: import('../../lib/bench/peers-report.js').PeersReport) => void} [save] takes the report after each case
 */
/** @typedef {ReturnType<typeof withDefaults>} Settings */

const bundled = fileURLToPath(new URL('../../models/ts-declarations', import.meta.url));

/** @param {Options} options */
export function withDefaults(options) {
  const model = options.model ?? bundled;
  const own = join(model, 'prompts.json');
  const beside = join(model, 'drafter-gru');
  const quick = options.quick ?? false;
  const threads = options.threads ?? availableParallelism();
  const settings = {
    model,
    drafter: options.drafter ?? (existsSync(beside) ? beside : undefined),
    weightsGb: options.weightsGb ?? (resolve(model) === resolve(bundled) ? 1 : 0),
    factor: options.factor,
    dtypes: options.dtypes ?? /** @type {Dtype[]} */ (['bf16', 'q8_0']),
    only: options.only ?? [...CASES],
    threads,
    peerThreads: options.peerThreads ?? (quick ? [threads] : [...new Set([threads, 1])]),
    prompts: options.prompts ?? (existsSync(own) ? own : join(bundled, 'prompts.json')),
    count: options.count ?? (quick ? 2 : 4),
    tokens: options.tokens ?? (quick ? 32 : 48),
    idsTokens: options.idsTokens ?? (quick ? 64 : 256),
    turns: options.turns ?? (quick ? 1 : 3),
    batches: options.batches ?? [2, 4, 8, 16, 32],
    quick,
    work: options.work,
  };
  for (const name of /** @type {const} */ (['factor', 'threads', 'count', 'tokens', 'idsTokens', 'turns'])) {
    const value = settings[name] ?? 1;
    if (!Number.isInteger(value) || value < 1) throw new Error(`${name} must be a whole number above 0, got ${value}`);
  }
  const { weightsGb } = settings;
  if (!(weightsGb >= 0 && weightsGb <= 1000)) throw new Error(`weightsGb must be from 0 to 1000, got ${weightsGb}`);
  const unknown = [
    ...settings.dtypes.filter((dtype) => !Object.hasOwn(DTYPES, dtype)),
    ...settings.only.filter((name) => !CASES.includes(name)),
    ...[...settings.batches, ...settings.peerThreads]
      .filter((n) => !Number.isInteger(n) || n < 1 || n > 256)
      .map(String),
  ];
  if (unknown.length > 0) throw new Error(`not known: ${unknown.join(', ')}`);
  return settings;
}

/** @param {string} file @param {number} count @returns {string[]} as many, spread over the file */
export function readTexts(file, count) {
  /** @type {unknown} */
  const parsed = JSON.parse(readFileSync(file, 'utf8'));
  if (!Array.isArray(parsed) || parsed.length === 0) throw new Error(`${file} is no JSON array of { text }`);
  const texts = parsed.map((/** @type {{ text?: unknown } | null} */ one) => one?.text);
  const picked = Array.from({ length: count }, (_, i) => texts[Math.floor((i * texts.length) / count) % texts.length]);
  return picked.map((text) => {
    if (typeof text !== 'string' || text === '') throw new Error(`${file} is no JSON array of { text }`);
    return text;
  });
}
