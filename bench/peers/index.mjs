// redrafter beside llama.cpp in Node.js: the same weights, prompts and threads, in turns. See README.md beside this file.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { estimateMemory, inspect, version } from '../../dist/index.mjs';
import { barsOf } from './bars.mjs';
import { CASES, job, waysOf } from './cases.mjs';
import { Files } from './files.mjs';
import { DTYPES } from './gguf/file.mjs';
import { compareIds } from './ids.mjs';
import { installPeer } from './install.mjs';
import { inTurns, trial } from './trials.mjs';

/** @typedef {import('./bars.mjs').Bar} Bar */
/** @typedef {import('./cases.mjs').Case} Case */
/** @typedef {import('./cases.mjs').Setting} Setting */
/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {import('./ids.mjs').Agreement} Agreement */
/** @typedef {Omit<import('./trials.mjs').Measured, 'ids'>} Figures */
/** @typedef {{ case: Exclude<Case, 'ids'>, dtype: Dtype, rows: number, ways: Figures[] }} Row */
/**
 * @typedef {object} Options
 * @property {string} [model] model directory of the Llama or Mistral family; default: the bundled one
 * @property {string} [drafter] drafter directory; default: `drafter-gru` in that of the model, if there is one
 * @property {number} [factor] how many times the units of both are replicated, 1 to 64; default: 5 with the bundled model, else 1
 * @property {Dtype[]} [dtypes] default: f32 and bf16
 * @property {Case[]} [only] default: all
 * @property {number} [threads] of each engine; default: one per processor
 * @property {number[]} [peerThreads] the peer is tried with each of these; default: as many as `threads`
 * @property {string} [prompts] JSON array of `{ text }`; default: prompts.json of the model, else of the bundled one
 * @property {number} [count] prompts that are taken from it, spread over it; default: 4
 * @property {number} [tokens] to decode after each; default: 64
 * @property {number} [idsTokens] to decode after each where ids are compared; default: 256
 * @property {number} [turns] trials of each way; default: 3
 * @property {number[]} [batches] sequences at once in `batch`; default: 2, 4, 8, 16, 32
 * @property {string} [work] folder that keeps the files for another run; default: a temporary one
 * @property {(line: string) => void} [tell] takes progress
 */
/**
 * @typedef {object} Report
 * @property {1} schema
 * @property {string} date
 * @property {string} commit
 * @property {{ redrafter: string, nodeLlamaCpp: string, llamaCpp: string }} versions
 * @property {{ cpu: string, cores: number, memoryBytes: number, node: string, load: number }} machine `load`: average of one
 *   minute, before
 * @property {string} device of both engines
 * @property {number} threads
 * @property {{ name: string, drafter: string | null, factor: number, widened: boolean, parameters: number }} model
 * @property {{ tokens: number, idsTokens: number, prompts: number, turns: number, prefillTokens: number }} settings
 * @property {Record<string, Record<string, string>>} engines what each says of itself
 * @property {{ pre: 'same' | 'other', texts: number }} tokenizer whether the peer's, from the same file, gives the same ids
 * @property {string[]} missing dtypes that this build of redrafter does not take
 * @property {Row[]} cases
 * @property {Agreement[]} ids
 * @property {Bar[]} bars
 */

const bundled = fileURLToPath(new URL('../../models/ts-declarations', import.meta.url));
/** Prompts are cut to this, so that they leave room in small contexts. */
const PROMPT_TOKENS = 256;

/** @param {string} file @param {number} count @returns {string[]} as many, spread over the file */
function readTexts(file, count) {
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

/** @param {string} model @param {string} dtype */
async function takes(model, dtype) {
  try {
    await estimateMemory(model, { dtype: /** @type {'bf16'} */ (dtype), device: 'cpu' });
    return true;
  } catch (error) {
    if (/** @type {{ code?: unknown }} */ (error).code === 'ERR_INVALID_ARGUMENT') return false;
    throw error;
  }
}

/** @param {Options} options */
function withDefaults(options) {
  const model = options.model ?? bundled;
  const own = join(model, 'prompts.json');
  const beside = join(model, 'drafter-gru');
  const settings = {
    model,
    drafter: options.drafter ?? (existsSync(beside) ? beside : undefined),
    factor: options.factor ?? (model === bundled ? 5 : 1),
    dtypes: options.dtypes ?? /** @type {Dtype[]} */ (['f32', 'bf16']),
    only: options.only ?? [...CASES],
    threads: options.threads ?? availableParallelism(),
    peerThreads: options.peerThreads ?? [options.threads ?? availableParallelism()],
    prompts: options.prompts ?? (existsSync(own) ? own : join(bundled, 'prompts.json')),
    count: options.count ?? 4,
    tokens: options.tokens ?? 64,
    idsTokens: options.idsTokens ?? 256,
    turns: options.turns ?? 3,
    batches: options.batches ?? [2, 4, 8, 16, 32],
    work: options.work,
  };
  for (const name of /** @type {const} */ (['factor', 'threads', 'count', 'tokens', 'idsTokens', 'turns'])) {
    const value = settings[name];
    if (!Number.isInteger(value) || value < 1) throw new Error(`${name} must be a whole number above 0, got ${value}`);
  }
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

/** The commit that is measured. */
function commitOf() {
  const options = /** @type {const} */ ({ encoding: 'utf8', cwd: fileURLToPath(new URL('.', import.meta.url)) });
  return execFileSync('git', ['rev-parse', '--short', 'HEAD'], options).trim();
}

/**
 * Measures and returns the report. Throws where an input is bad, a trial fails, or the peer cannot be installed.
 * @param {Options} [options]
 * @returns {Promise<Report>}
 */
export async function runPeers(options = {}) {
  const tell = options.tell ?? (() => undefined);
  const settings = withDefaults(options);
  const { model, factor, threads, peerThreads, tokens, idsTokens, turns } = settings;
  const texts = readTexts(settings.prompts, settings.count);
  const load = loadavg()[0] ?? 0;
  const nodeLlamaCpp = installPeer(tell);
  const files = new Files(settings, tell);
  try {
    const target = await files.target();
    const { tensors } = await inspect(target);
    /** @type {Report} */
    const report = {
      schema: 1,
      date: new Date().toISOString().slice(0, 10),
      commit: commitOf(),
      versions: { redrafter: version(), nodeLlamaCpp, llamaCpp: '' },
      machine: {
        cpu: cpus()[0]?.model ?? '',
        cores: availableParallelism(),
        memoryBytes: totalmem(),
        node: process.version,
        load,
      },
      device: 'cpu',
      threads,
      model: {
        name: basename(model),
        drafter: settings.drafter === undefined ? null : basename(settings.drafter),
        factor,
        widened: factor > 1,
        parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((all, size) => all * size, 1), 0),
      },
      settings: { tokens, idsTokens, prompts: texts.length, turns, prefillTokens: 512 },
      engines: {},
      tokenizer: { pre: 'same', texts: texts.length },
      missing: [],
      cases: [],
      ids: [],
      bars: [],
    };
    const prompts = await tokenized(files, texts, report);
    for (const dtype of settings.dtypes) {
      const ours = await takes(target, dtype);
      if (!ours) {
        report.missing.push(dtype);
        tell(`redrafter does not take ${dtype} in this build: the peer alone is measured`);
      }
      await measure({ files, dtype, ours, threads, peerThreads, tokens, prompts }, settings, report, tell);
    }
    report.bars = barsOf(report);
    return report;
  } finally {
    files.close();
  }
}

/**
 * The prompts as ids, which both engines are given.
 * @param {Files} files @param {string[]} texts @param {Report} report
 */
async function tokenized(files, texts, report) {
  /** @type {Setting} */
  const setting = { files, dtype: 'bf16', ours: true, threads: 1, peerThreads: [1], tokens: 1, prompts: [[]] };
  const own = { kind: /** @type {const} */ ('tokenize'), texts };
  const ours = await trial(job(setting, { engine: 'redrafter', model: await files.target(), ...own }));
  const peer = await trial(job(setting, { engine: 'node-llama-cpp', model: await files.cut('bf16'), ...own }));
  report.tokenizer.pre = JSON.stringify(ours.ids) === JSON.stringify(peer.ids) ? 'same' : 'other';
  report.versions.llamaCpp = peer.info['llamaCpp'] ?? '';
  return ours.ids.map((ids) => ids.slice(0, PROMPT_TOKENS));
}

/** @param {import('./trials.mjs').Measured} measured @returns {Figures} */
function withoutIds(measured) {
  const { engine, way, tokensPerSecond, median, min, max, tokensPerStep, memoryBytes, otherIds } = measured;
  return { engine, way, tokensPerSecond, median, min, max, tokensPerStep, memoryBytes, otherIds };
}

/**
 * @param {Setting} setting @param {ReturnType<typeof withDefaults>} settings @param {Report} report
 * @param {(line: string) => void} tell
 */
async function measure(setting, { only, batches, turns, idsTokens }, report, tell) {
  const { dtype } = setting;
  for (const name of only) {
    if (name === 'ids') {
      if (setting.ours) report.ids.push(await compareIds(setting, idsTokens, tell));
      continue;
    }
    for (const { rows, ways } of await waysOf(name, setting, batches)) {
      tell(`${name}:`);
      const { measured, info } = await inTurns(ways, turns, tell);
      Object.assign(report.engines, info);
      report.cases.push({ case: name, dtype, rows, ways: measured.map(withoutIds) });
    }
  }
}
