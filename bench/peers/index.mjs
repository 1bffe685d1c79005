// redrafter beside llama.cpp in Node.js: the same weights, prompts and threads, in turns. See README.md beside this file.
import { basename } from 'node:path';

import { measureBandwidth } from '../../dist/bench/children.js';
import { commitOf, describeMachine, today } from '../../dist/bench/machine.js';
import { measureSteps, prepareSteps } from '../../dist/bench/suites/ops.js';
import { spreadOf } from '../../dist/bench/statistics.js';
import { estimateMemory, version } from '../../dist/index.mjs';
import { barsOf } from './bars.mjs';
import { job, PREFILL_TOKENS, waysOf } from './cases.mjs';
import { Clock } from './clock.mjs';
import { Work } from './files.mjs';
import { compareIds } from './ids.mjs';
import { installPeer } from './install.mjs';
import { readTexts, withDefaults } from './settings.mjs';
import { chosenSize } from './sizes.mjs';
import { inTurns, trial } from './trials.mjs';

/** @typedef {import('../../lib/bench/peers-report.js').PeersReport} Report */
/** @typedef {import('../../lib/bench/peers-report.js').PeersCase} Case */
/** @typedef {import('../../lib/bench/peers-report.js').PeersPrecision} Precision */
/** @typedef {import('./cases.mjs').Setting} Setting */
/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {import('./settings.mjs').Options} Options */
/** @typedef {import('./settings.mjs').Settings} Settings */
/** @typedef {import('./trials.mjs').Measured} Measured */
/** @typedef {{ jobs: import('./trial.mjs').Job[], seconds: number, run: () => Promise<void> }} Step a case, and what it will take */

/** Prompts are cut to this, so that they leave room in small contexts. */
const PROMPT_TOKENS = 256;
/** Ids are compared with a model of at most this factor: what it computes does not depend on it, and it is fast. */
const IDS_FACTOR = 2;
/** Rows of a pass whose cost is looked at, the one that the others are compared with first. */
const ROWS = [1, 4, 8, 16];
/** Guessed seconds of measuring the passes once, and of comparing ids of one dtype. */
const PASSES_S = 8;
const IDS_S = 20;

/** @param {string} model @param {Dtype} dtype */
async function takes(model, dtype) {
  try {
    await estimateMemory(model, { dtype, device: 'cpu' });
    return true;
  } catch (error) {
    if (/** @type {{ code?: unknown }} */ (error).code === 'ERR_INVALID_ARGUMENT') return false;
    throw error;
  }
}

/** @param {Settings} settings @param {string} nodeLlamaCpp its version @returns {Report} with nothing measured yet */
function emptyReport({ model, drafter, threads, peerThreads, ...settings }, nodeLlamaCpp) {
  const { quick, count, tokens, idsTokens, turns } = settings;
  return {
    schema: 1,
    date: today(),
    commit: commitOf(),
    versions: { redrafter: version(), nodeLlamaCpp, llamaCpp: '' },
    machine: describeMachine(),
    device: 'cpu',
    threads,
    peerThreads,
    model: { name: basename(model), drafter: drafter === undefined ? null : basename(drafter) },
    settings: { quick, prompts: count, tokens, idsTokens, turns, prefillTokens: PREFILL_TOKENS },
    engines: {},
    tokenizer: { pre: 'same', texts: count },
    missing: [],
    precisions: [],
    cases: [],
    costs: [],
    ids: [],
    bars: [],
  };
}

/** A run: its settings, what it writes and tells, and what it has measured so far. */
class Run {
  #settings;
  #work;
  #tell;
  #save;
  /** @type {Clock | undefined} */
  #clock;
  report;

  /** @param {Settings} settings @param {Options} options @param {Work} work @param {Report} report */
  constructor(settings, { tell = () => undefined, save = () => undefined }, work, report) {
    this.#settings = settings;
    this.#work = work;
    this.#tell = tell;
    this.#save = save;
    this.report = report;
  }

  /** @param {readonly Precision[]} sizes @param {readonly string[]} texts */
  async measure(sizes, texts) {
    const { threads } = this.#settings;
    const prompts = await this.#tokenized(texts);
    this.report.precisions = [...sizes];
    const steps = [...(await this.#idsSteps(sizes, prompts)), ...(await this.#caseSteps(sizes, prompts))];
    const clock = new Clock(await measureBandwidth(threads), sizes, this.#tell);
    this.#clock = clock;
    clock.plan(steps.flatMap(({ jobs }) => jobs), steps.reduce((sum, { seconds }) => sum + seconds, 0)); // prettier-ignore
    this.#save(this.report); // fails now, not after minutes, if it cannot be written or merged
    await this.#work.write();
    clock.start();
    for (const { run } of steps) {
      await run();
      this.report.bars = barsOf(this.report);
      this.#save(this.report);
    }
  }

  /** @param {Dtype} dtype @param {number} factor @param {number[][]} prompts @param {boolean} ours @returns {Setting} */
  #setting(dtype, factor, prompts, ours) {
    const { threads, peerThreads, tokens } = this.#settings;
    return { files: this.#work.widened(factor), dtype, factor, ours, threads, peerThreads, tokens, prompts };
  }

  /** The prompts as ids, which both engines are given. @param {readonly string[]} texts */
  async #tokenized(texts) {
    const setting = this.#setting('bf16', 1, [[]], true);
    const [model, gguf] = [setting.files.target('bf16'), setting.files.gguf('bf16')];
    await this.#work.write();
    const own = { kind: /** @type {const} */ ('tokenize'), texts: [...texts] };
    const ours = await trial(job(setting, { engine: 'redrafter', model, ...own }));
    const peer = await trial(job(setting, { engine: 'node-llama-cpp', model: gguf, ...own }));
    this.report.tokenizer.pre = JSON.stringify(ours.ids) === JSON.stringify(peer.ids) ? 'same' : 'other';
    this.report.versions.llamaCpp = peer.info['llamaCpp'] ?? '';
    return ours.ids.map((ids) => ids.slice(0, PROMPT_TOKENS));
  }

  /** @param {readonly Precision[]} sizes @param {number[][]} prompts @returns {Promise<Step[]>} */
  async #idsSteps(sizes, prompts) {
    const { only, idsTokens, model } = this.#settings;
    if (!only.includes('ids')) return [];
    const factor = Math.min(IDS_FACTOR, ...sizes.map((size) => size.factor));
    /** @type {Step[]} */
    const steps = [];
    for (const dtype of new Set(/** @type {Dtype[]} */ (['f32', ...sizes.map((size) => size.dtype)]))) {
      if (!(await takes(model, dtype))) continue;
      const setting = this.#setting(dtype, factor, prompts, true);
      setting.files.target(dtype);
      setting.files.gguf(dtype);
      const run = async () => {
        const agreement = await compareIds(setting, idsTokens);
        this.report.ids.push(agreement);
        this.#clock?.note(`${dtype}: ids of ${agreement.same} of ${agreement.prompts} prompts are the same for ${idsTokens} tokens`, IDS_S); // prettier-ignore
      };
      steps.push({ jobs: [], seconds: IDS_S, run });
    }
    return steps;
  }

  /** @param {readonly Precision[]} sizes @param {number[][]} prompts @returns {Promise<Step[]>} */
  async #caseSteps(sizes, prompts) {
    const { only, batches, model, turns } = this.#settings;
    /** @type {Step[]} */
    const steps = [];
    for (const { dtype, factor } of sizes) {
      const known = /** @type {Dtype} */ (dtype);
      const ours = await takes(model, known);
      if (!ours) this.report.missing.push(`redrafter in ${dtype}, which this build does not take`);
      const setting = this.#setting(known, factor, prompts, ours);
      for (const name of only) {
        if (name === 'ids') continue;
        if (name === 'rows') {
          if (ours) steps.push(...(await this.#rowsStep(setting)));
          continue;
        }
        for (const { rows, ways } of waysOf(name, setting, batches)) {
          const jobs = Array.from({ length: turns }, () => ways.map((way) => way.job)).flat();
          steps.push({ jobs, seconds: 0, run: () => this.#case(name, known, rows, ways) });
        }
      }
    }
    return steps;
  }

  /** @param {Case['case']} name @param {Dtype} dtype @param {number} rows @param {import('./trials.mjs').Way[]} ways */
  async #case(name, dtype, rows, ways) {
    if (this.#clock === undefined) return;
    this.#tell(`${dtype}, ${name}:`);
    const { measured, info, readBytesPerSecond } = await inTurns(ways, this.#settings.turns, this.#clock);
    Object.assign(this.report.engines, info);
    this.report.cases.push({
      ...{ case: name, dtype, rows, readBytesPerSecond },
      ways: measured.map(({ figures }) => figures),
      ...comparedIds(measured),
    });
  }

  /** @param {Setting} setting @returns {Promise<Step[]>} */
  async #rowsStep({ files, dtype, threads }) {
    const { turns } = this.#settings;
    const reason = await prepareSteps();
    if (reason !== undefined) {
      this.report.missing.push(`passes by rows in ${dtype}, because ${reason}`);
      return [];
    }
    const model = files.target(dtype);
    const run = async () => {
      /** @type {number[][]} by rows, milliseconds of each turn */
      const times = ROWS.map(() => []);
      for (let turn = 0; turn < turns; turn++) {
        const found = await measureSteps(model, { dtype, threads, rows: ROWS });
        ROWS.forEach((rows, i) => times[i]?.push(found.find((one) => one.rows === rows)?.ms ?? NaN));
      }
      const costs = ROWS.map((rows, i) => {
        const own = times[i] ?? [];
        return {
          dtype,
          rows,
          ms: spreadOf(own),
          cost: spreadOf(own.map((ms, turn) => ms / (times[0]?.[turn] ?? NaN))),
        };
      });
      this.report.costs.push(...costs);
      const told = costs.map(({ rows, cost }) => `${rows} rows ${cost.median.toFixed(2)}`).join(', ');
      this.#clock?.note(`${dtype} passes over that of one row: ${told}`, PASSES_S * turns);
    };
    return [{ jobs: [], seconds: PASSES_S * turns, run }];
  }
}

/** @param {readonly Measured[]} measured @returns {Pick<Case, 'drafted' | 'agreeing'>} */
function comparedIds(measured) {
  const of = (/** @type {string} */ engine, /** @type {string} */ way) =>
    measured.find(({ figures }) => figures.engine === engine && figures.way.split(',')[0] === way)?.ids ?? [];
  const same = (/** @type {number[][]} */ a, /** @type {number[][]} */ b) => {
    const count = Math.min(a.length, b.length);
    const equal = a.filter((ids, i) => i < count && JSON.stringify(ids) === JSON.stringify(b[i])).length;
    return { count, equal };
  };
  const plain = of('redrafter', 'plain');
  const drafted = same(of('redrafter', 'drafting'), plain);
  const agreeing = same(of('node-llama-cpp', 'plain'), plain);
  return {
    drafted: { compared: drafted.count, differing: drafted.count - drafted.equal },
    agreeing: { prompts: agreeing.count, same: agreeing.equal },
  };
}

/**
 * Measures and returns the report. Throws where an input is bad, a trial fails, or the peer cannot be installed.
 * @param {Options} [options]
 * @returns {Promise<Report>}
 */
export async function runPeers(options = {}) {
  const tell = options.tell ?? (() => undefined);
  const settings = withDefaults(options);
  const texts = readTexts(settings.prompts, settings.count);
  const sizes = [];
  for (const dtype of settings.dtypes) sizes.push(await chosenSize(settings.model, dtype, settings));
  const report = emptyReport(settings, installPeer(tell));
  for (const { dtype, factor, parameters, weightBytes } of sizes) {
    tell(
      `${dtype}: widened ${factor} times, ${(parameters / 1e6).toFixed(0)} M parameters, ${(weightBytes / 1e9).toFixed(2)} GB`,
    );
  }
  const work = new Work(settings, tell);
  try {
    await new Run(settings, options, work, report).measure(sizes, texts);
    return report;
  } finally {
    work.close();
  }
}
