// How long it will take: guessed from sizes and the machine's speed before, corrected by what was done meanwhile.
import { performance } from 'node:perf_hooks';

/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {import('../../lib/bench/peers-report.js').PeersPrecision} Precision */

/** Seconds of a process and of what it does once, and of loading a byte. */
const START_S = 1;
const LOAD_S = 1 / 1.2e9;
/** Passes over the weights for a token, by way: reading them once, as fast as memory allows, is 1. */
const PASSES = { plain: 1.2, drafting: 0.7, lookup: 2, draft: 2.4 };
const PEER_PLAIN = 1.8;
/** Seconds of writing the files of a parameter. */
const WRITE_S = 8e-8;
/** Multiply-adds of a prompt in a second and thread. */
const MULTIPLY_ADDS = 1e11;
/** Tokens beside the prompts' that a trial decodes, and readings of a prompt. */
const WARM_UP = 16;
const READINGS = 3;

/** @param {number} seconds */
const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;

/** Tells what was done and what is left. */
export class Clock {
  #bandwidth;
  #tell;
  #started = performance.now();
  #total = 0;
  #planned = 0;
  #trials = 0;
  #did = 0;
  #spent = 0;
  /** @type {Map<string, Precision>} */
  #sizes;

  /** @param {number} bandwidth bytes per second @param {readonly Precision[]} sizes @param {(line: string) => void} tell */
  constructor(bandwidth, sizes, tell) {
    this.#bandwidth = bandwidth;
    this.#sizes = new Map(sizes.map((size) => [size.dtype, size]));
    this.#tell = tell;
  }

  /** Guessed seconds of a trial. @param {Job} job */
  #guess({ dtype, engine, way, kind, prompts, tokens, rows, threads }) {
    const { weightBytes = 0, parameters = 0 } = this.#sizes.get(dtype) ?? {};
    const load = START_S + weightBytes * LOAD_S;
    const read = prompts.reduce((sum, prompt) => sum + prompt.length, 0);
    const slower = engine === 'redrafter' ? 1 : 2;
    const prefill = (slower * read * parameters) / (MULTIPLY_ADDS * threads);
    if (kind === 'prefill') return load + READINGS * prefill;
    const passes = engine !== 'redrafter' && way === 'plain' ? PEER_PLAIN : PASSES[way];
    const steps = Math.ceil(prompts.length / rows) * tokens + WARM_UP;
    // Rows of a batch share the reading of weights, until their arithmetic takes longer.
    return load + prefill + (steps * passes * Math.max(1, rows / 8) * weightBytes) / this.#bandwidth;
  }

  /** @param {readonly Job[]} jobs trials that there will be @param {number} seconds of what else is done */
  plan(jobs, seconds) {
    this.#trials = jobs.length;
    this.#total = seconds + jobs.reduce((sum, job) => sum + this.#guess(job), 0);
    const files = [...this.#sizes.values()].reduce((sum, { parameters }) => sum + parameters * WRITE_S, 0);
    this.#tell(`${jobs.length} trials: about ${Math.ceil(this.#total / 60)} minutes, if nothing else runs here, and up to ${Math.ceil(files / 60)} before to write the files`); // prettier-ignore
  }

  /** From now on the clock counts. */
  start() {
    this.#started = performance.now();
  }

  /** A trial has ended. @param {Job} job @param {string} what */
  done(job, what) {
    this.#did++;
    this.#planned += this.#guess(job);
    this.note(`${job.dtype} ${job.rows > 1 ? `${job.rows} at once, ` : ''}${what}`);
  }

  /** Something else has. @param {string} what @param {number} [seconds] that it was planned to take */
  note(what, seconds = 0) {
    this.#planned += seconds;
    this.#spent = (performance.now() - this.#started) / 1000;
    const left = this.#planned > 0 ? (this.#spent / this.#planned) * (this.#total - this.#planned) : this.#total;
    this.#tell(
      `[${this.#did}/${this.#trials}, ${minutes(this.#spent)}, about ${minutes(Math.max(0, left))} left] ${what}`,
    );
  }
}
