// What a backend gets from the library, and what its event loop pays: requests come by a Poisson process, at rates from
// light to more than can be answered, with drafting adaptive, fixed and off. See README.md beside this file.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

import { Model, version } from 'redrafter';

import { describeMachine, today } from '../../dist/bench/machine.js';
import { Engine } from '../../dist/engine.js';
import { ask, round, runCell } from './cell.mjs';
import { settledMemory, touchMemory } from './memory.mjs';
import { bundled, flags, python } from './options.mjs';
import { planArrivals, planRequests } from './plan.mjs';
import { barTable, below, equal, GOALS, loadTable, table } from './report.mjs';
import { soak, soakBars } from './soak.mjs';

/** Arrivals, as parts of what plain decoding can answer; the last ones are beyond it. */
const LOADS = [0.25, 0.5, 0.75, 1, 1.5, 2];
/** What the rates take in all, with drafting as slow as none. */
const SECONDS = 180;
/** Requests that run alone first: they warm up, and every cell must give their ids again. */
const ALONE = 12;
/** What the capacity is measured with. */
const [CAPACITY_REQUESTS, CAPACITY_AT_ONCE] = [128, 32];
/** Requests of each mode, at full load, that are not counted. */
const WARM_UP = 100;

/** @typedef {import('./options.mjs').Mode} Mode */

/** @param {string} line */
const tell = (line) => process.stderr.write(`${line}\n`);

function readTexts() {
  const own = join(flags.model, 'prompts.json');
  const file = flags.prompts ?? (existsSync(own) ? own : join(bundled, 'prompts.json'));
  /** @type {unknown} */
  const prompts = JSON.parse(readFileSync(file, 'utf8'));
  return /** @type {{ text: string }[]} */ (prompts).map(({ text }) => text);
}

/**
 * Counts what native code hands over: every batch is one call from it, and one wake of the event loop.
 * The method is internal, so this looks at whether it counts.
 */
function countBatches() {
  const counts = { batches: 0, messages: 0 };
  const prototype = /** @type {{ receive: (messages: readonly unknown[]) => void }} */ (
    /** @type {unknown} */ (Engine.prototype)
  );
  const { receive } = prototype;
  /** @this {unknown} @param {readonly unknown[]} messages */
  prototype.receive = function (messages) {
    counts.batches++;
    counts.messages += messages.length;
    receive.call(this, messages);
  };
  return () => {
    if (counts.batches === 0) throw new Error('no batch was counted: Engine.receive does not take them any more');
    return { ...counts };
  };
}

/** @param {Mode} mode */
function draftingOf(mode) {
  if (mode === 'off') return { drafting: false };
  return mode === 'fixed' ? flags.shape : {};
}

/**
 * Whether a generation without a shape has it chosen for each round. Builds that do so count in its statistics the
 * rounds that drafted; in the others such a generation has one fixed shape.
 * @param {Model} model
 */
async function isAdaptive(model) {
  const session = await model.createSession();
  const { stats } = await session.generate([1], { maxTokens: 4, ignoreEos: true }).result();
  await session.dispose();
  return 'draftedRounds' in stats;
}

/**
 * Requests per second that plain decoding answers when there are always others to answer. The better of two, as whatever else
 * the machine does only makes it slower.
 * @param {Model} model @param {string[]} texts
 */
async function capacityOf(model, texts) {
  let best = 0;
  for (let i = 0; i < 2; i++) {
    const requests = planRequests(flags.seed, CAPACITY_REQUESTS, texts);
    const queue = requests.values();
    const start = performance.now();
    const worker = async () => {
      for (const request of queue) await ask(model, request, draftingOf('off'), start);
    };
    await Promise.all(Array.from({ length: Math.min(CAPACITY_AT_ONCE, flags.maxQueued) }, worker));
    best = Math.max(best, (requests.length * 1000) / (performance.now() - start));
  }
  return best;
}

/** Ids by request, and how many answers had others: each is compared with the first one that there was. */
class Answers {
  /** @type {Map<number, string>} */
  #ids = new Map();
  compared = 0;
  differing = 0;

  /** @param {import('./cell.mjs').Outcome} outcome */
  add({ index, tokenIds }) {
    const ids = tokenIds.join(' ');
    const known = this.#ids.get(index);
    if (known === undefined) this.#ids.set(index, ids);
    else {
      this.compared++;
      if (known !== ids) this.differing++;
    }
  }
}

/** @param {Model} model */
async function load(model) {
  const texts = readTexts();
  const batches = countBatches();
  const adaptive = await isAdaptive(model);
  const modes = flags.modes.filter((mode) => mode !== 'adaptive' || adaptive);
  if (modes.length < flags.modes.length) tell('adaptive drafting: not in this build');

  const answers = new Answers();
  const { freeBlocks } = model.kvUsage();
  await touchMemory(model);
  for (const request of planRequests(flags.seed, Math.min(ALONE, flags.requests ?? ALONE), texts)) {
    const outcome = await ask(model, request, draftingOf('off'), performance.now());
    if (outcome !== undefined) answers.add(outcome);
  }
  const capacity = flags.rates === undefined ? await capacityOf(model, texts) : undefined;
  const rates = flags.rates ?? LOADS.map((part) => round(part * (capacity ?? 0)));
  const longest = rates.reduce((sum, rate) => sum + 1 / Math.min(rate, capacity ?? rate), 0);
  const count = flags.requests ?? Math.max(Math.floor(SECONDS / (longest * modes.length)), 1);
  const requests = planRequests(flags.seed, count, texts);
  const expected = (count * longest * modes.length).toFixed(0);
  tell(`${count} requests at each of ${rates.length} rates, ${modes.length} ways: about ${expected} s`);

  // What only full load uses is used once, before memory is looked at.
  const first = requests.slice(0, WARM_UP);
  const all = planArrivals(flags.seed, first.length, Math.max(...rates));
  for (const mode of modes)
    await runCell(model, { requests: first, arrivalsMs: all, drafting: draftingOf(mode), batches });
  const warmBytes = await settledMemory();

  /** @type {import('./report.mjs').Row[]} */
  const rows = [];
  for (const [i, perSecond] of rates.entries()) {
    const arrivalsMs = planArrivals(flags.seed, count, perSecond);
    // Side by side in time, and no mode always the first: what else the machine does then hits all of them.
    for (const mode of modes.map((_, j) => modes[(i + j) % modes.length] ?? 'off')) {
      const { done, figures } = await runCell(model, { requests, arrivalsMs, drafting: draftingOf(mode), batches });
      for (const outcome of done) answers.add(outcome);
      const load = capacity === undefined ? '-' : (perSecond / capacity).toFixed(2);
      rows.push({ load, perSecond, drafting: mode, ...figures });
      tell(`${perSecond.toFixed(1)} requests/s, ${mode}: ${figures.tokensPerSecond.toFixed(0)} tokens/s`);
    }
  }
  rows.sort((a, b) => a.perSecond - b.perSecond || modes.indexOf(mode(a)) - modes.indexOf(mode(b)));
  const fullLoad = rows.filter(({ perSecond }) => perSecond === Math.max(...rates));
  const bars = [
    below('event-loop delay p99 at full load, ms', Math.max(...fullLoad.map((r) => r.eventLoopDelayMs.p99)), GOALS.eventLoopDelayMs), // prettier-ignore
    below('resident memory, end less warm-up, bytes', (await settledMemory()) - warmBytes, GOALS.memoryGrowthBytes),
    equal('KV blocks lost', freeBlocks - model.kvUsage().freeBlocks, 0),
    equal('answers with other ids', answers.differing, 0),
  ];
  process.stdout.write(`${loadTable(rows)}\n${barTable(bars)}`);
  const { differing, compared } = answers;
  return { adaptive, capacity: capacity ?? null, requestsPerCell: count, answers: { compared, differing }, rows, bars };
}

/** @param {{ drafting: string }} row */
const mode = ({ drafting }) => /** @type {Mode} */ (drafting);

/** @param {Model} model @param {number} count */
async function soakModel(model, count) {
  const onProgress = (/** @type {number} */ done) => {
    tell(`${done} of ${count} requests`);
  };
  const result = await soak(model, { seed: flags.seed, count, texts: readTexts(), onProgress });
  const bars = soakBars(result);
  const { memory, ...figures } = result;
  process.stdout.write(table(Object.entries(figures).map(([name, value]) => [name, `${value}`])));
  process.stdout.write(`\n${table([['requests', 'bytes'], ...memory.map((m) => [`${m.requests}`, `${m.bytes}`])])}\n`); // prettier-ignore
  process.stdout.write(barTable(bars));
  return { ...result, bars };
}

/** @param {Model} model */
function describeRun(model) {
  const { device, level, dtype, threads, contextTokens, kvTokens } = model.info;
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
    encoding: 'utf8',
    cwd: fileURLToPath(new URL('.', import.meta.url)),
  });
  return {
    date: today(),
    version: version(),
    commit: commit.trim(),
    machine: describeMachine(),
    engine: { device, level, dtype, threads, contextTokens, kvTokens, maxQueuedRequests: flags.maxQueued },
    model: basename(directory),
    drafter: basename(drafter),
    seed: flags.seed,
    fixedShape: flags.shape,
  };
}

const { soak: soaking, model: directory, drafter = join(directory, 'drafter-gru') } = flags;
const model = await Model.load(directory, {
  drafter,
  threads: flags.threads,
  kvTokens: flags.kvTokens,
  maxQueuedRequests: soaking === undefined ? flags.maxQueued : 1024,
});
const run = describeRun(model);
const result = soaking === undefined ? await load(model) : await soakModel(model, soaking === true ? 10_000 : soaking);
await model.dispose();
const { json, plot } = flags;
if (json !== undefined) writeFileSync(json, `${JSON.stringify({ ...run, ...result }, undefined, 1)}\n`);
if (json !== undefined && plot !== undefined)
  execFileSync(python, [fileURLToPath(new URL('plot_load.py', import.meta.url)), json, plot], { stdio: 'inherit' });
if (result.bars.some(({ holds }) => !holds)) process.exitCode = 1;
