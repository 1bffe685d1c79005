// Runs trials: each in a process of its own, several of each, in turns.
import { fork } from 'node:child_process';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';

import { measureBandwidth } from '../../dist/bench/children.js';
import { median } from '../../dist/bench/statistics.js';

/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {import('./trial.mjs').Result} Result */
/** @typedef {import('../../lib/bench/peers-report.js').PeersWay} PeersWay */
/** @typedef {{ name: string, job: Job, besideBandwidth?: boolean }} Way `besideBandwidth`: that of reading is measured around it */
/** @typedef {{ figures: PeersWay, ids: number[][] }} Measured with the ids of the first trial, which reports leave out */
/** @typedef {import('./clock.mjs').Clock} Clock */

const TRIAL = fileURLToPath(new URL('trial.mjs', import.meta.url));
/** A trial that takes longer hangs. */
const TIMEOUT_MS = 600_000;

/** @param {Job} job @returns {Promise<Result>} */
export function trial(job) {
  return new Promise((resolve, reject) => {
    // The peer writes to stdout, which is for the report.
    const child = fork(TRIAL, [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], execArgv: [] });
    const what = `${job.engine} (${job.way}, ${job.dtype}, ${job.rows} rows)`;
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    let told = false;
    child.once('message', (message) => {
      told = true;
      const { result, error } = /** @type {{ result?: Result, error?: string }} */ (message);
      if (result === undefined) reject(new Error(`${what}: ${error ?? 'no result'}`));
      else resolve(result);
    });
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      if (!told) reject(new Error(`${what}: the process ended with ${signal ?? code ?? 'nothing'}`));
    });
    child.send(job);
  });
}

/** @param {readonly Result[]} results @returns {PeersWay['own']} */
function ownOf(results) {
  const all = results.flatMap(({ own }) => (own === null ? [] : [own]));
  const [first] = all;
  if (first === undefined) return null;
  return {
    verifyMs: all.map((one) => one.verifyMs),
    draftMs: all.map((one) => one.draftMs),
    hostMs: all.map((one) => one.hostMs),
    draftTokens: all.map((one) => one.draftTokens),
    verifyRows: all.map((one) => one.verifyRows),
    bytes: first.bytes,
  };
}

/** @param {Way} way @param {readonly Result[]} results @returns {Measured} */
function measuredOf({ name, job }, results) {
  const rates = results.map(({ tokensPerSecond }) => tokensPerSecond);
  const [first] = results;
  const figures = {
    engine: job.engine,
    way: name,
    tokensPerSecond: rates,
    median: median(rates),
    min: Math.min(...rates),
    max: Math.max(...rates),
    tokensPerStep: median(results.map(({ tokensPerStep }) => tokensPerStep)),
    memoryBytes: Math.max(...results.map(({ memoryBytes }) => memoryBytes)),
    otherIds: results.filter(({ ids }) => JSON.stringify(ids) !== JSON.stringify(first?.ids)).length,
    own: ownOf(results),
  };
  return { figures, ids: first?.ids ?? [] };
}

/**
 * Each turn runs every way once, and begins with another one: what else the machine does then hits all of them.
 * @param {readonly Way[]} ways @param {number} turns @param {Clock} clock
 * @returns {Promise<{ measured: Measured[], info: Record<string, Record<string, string>>, readBytesPerSecond: number[] }>}
 */
export async function inTurns(ways, turns, clock) {
  /** @type {Result[][]} */
  const results = ways.map(() => []);
  /** @type {Record<string, Record<string, string>>} */
  const info = {};
  /** @type {number[]} */
  const readBytesPerSecond = [];
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < ways.length; i++) {
      const index = (i + turn) % ways.length;
      const way = ways[index];
      if (way === undefined) continue;
      const before = way.besideBandwidth === true ? await measureBandwidth(way.job.threads) : 0;
      const result = await trial(way.job);
      // The better of both: what others do to the machine only makes it slower.
      if (before > 0) readBytesPerSecond.push(Math.max(before, await measureBandwidth(way.job.threads)));
      results[index]?.push(result);
      info[way.job.engine] = result.info;
      clock.done(way.job, `turn ${turn + 1} of ${turns}: ${way.job.engine} ${way.name} ${result.tokensPerSecond.toFixed(1)} tokens/s`); // prettier-ignore
    }
  }
  return { measured: ways.map((way, i) => measuredOf(way, results[i] ?? [])), info, readBytesPerSecond };
}
