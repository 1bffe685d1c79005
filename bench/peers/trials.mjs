// Runs trials: each in a process of its own, several of each, in turns.
import { fork } from 'node:child_process';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';

/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {import('./trial.mjs').Result} Result */
/** @typedef {{ name: string, job: Job }} Way */
/**
 * What the trials of one way gave.
 * @typedef {object} Measured
 * @property {string} engine
 * @property {string} way
 * @property {number[]} tokensPerSecond of each trial
 * @property {number} median
 * @property {number} min
 * @property {number} max
 * @property {number} tokensPerStep tokens per forward pass of the target, and sequence
 * @property {number} memoryBytes the most of any trial
 * @property {number} otherIds trials that gave other ids than the first one
 * @property {number[][]} ids of the first one; not in reports
 */

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

/** @param {readonly number[]} values */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const [low = NaN, high = NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return (low + high) / 2;
}

/**
 * Each turn runs every way once, and begins with another one: what else the machine does then hits all of them.
 * @param {readonly Way[]} ways @param {number} turns @param {(line: string) => void} tell
 * @returns {Promise<{ measured: Measured[], info: Record<string, Record<string, string>> }>}
 */
export async function inTurns(ways, turns, tell) {
  /** @type {Result[][]} */
  const results = ways.map(() => []);
  /** @type {Record<string, Record<string, string>>} */
  const info = {};
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < ways.length; i++) {
      const index = (i + turn) % ways.length;
      const way = ways[index];
      if (way === undefined) continue;
      const result = await trial(way.job);
      results[index]?.push(result);
      info[way.job.engine] = result.info;
      const { engine, dtype, rows } = way.job;
      tell(`${dtype}, ${rows} at once, turn ${turn + 1} of ${turns}: ${engine} ${way.name} ${result.tokensPerSecond.toFixed(1)} tokens/s`); // prettier-ignore
    }
  }
  const measured = ways.map(({ name, job }, i) => {
    const own = results[i] ?? [];
    const rates = own.map(({ tokensPerSecond }) => tokensPerSecond);
    return {
      engine: job.engine,
      way: name,
      tokensPerSecond: rates,
      median: median(rates),
      min: Math.min(...rates),
      max: Math.max(...rates),
      tokensPerStep: own[0]?.tokensPerStep ?? 1,
      memoryBytes: Math.max(...own.map(({ memoryBytes }) => memoryBytes)),
      otherIds: own.filter(({ ids }) => JSON.stringify(ids) !== JSON.stringify(own[0]?.ids)).length,
      ids: own[0]?.ids ?? [],
    };
  });
  return { measured, info };
}
