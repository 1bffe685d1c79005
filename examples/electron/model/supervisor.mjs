/**
 * Keeps a model process running: starts it, loads the model, and after a crash starts it again, later each time. What
 * was being generated is not repeated, as its first half has been shown already; it rejects with ERR_PROCESS_GONE.
 *
 * @import { ModelInfo } from 'redrafter'
 * @import { ModelPort } from './port.mjs'
 * @import { ErrorData, LoadData } from './protocol.mjs'
 */
import { ModelClient } from './model-client.mjs';
import { errorData, ModelProcessError } from './protocol.mjs';

/**
 * @typedef {{ name: 'loading', pid: number | undefined, fraction: number }
 *   | { name: 'ready', pid: number | undefined, info: ModelInfo }
 *   | { name: 'restarting', reason: string, attempt: number, delayMs: number }
 *   | { name: 'failed', error: ErrorData }
 *   | { name: 'stopped' }} State `failed`: it is not tried again, because the answer would be the same, or because it
 *   crashed too often; `start()` tries nevertheless.
 *
 * @typedef {object} SupervisorOptions
 * @property {() => ModelPort} start Starts the process.
 * @property {string} model
 * @property {LoadData} [options] Those of `Model.load`.
 * @property {(state: State) => void} onState
 * @property {(attempt: number) => number} [delayMs] Milliseconds to wait before restart number `attempt`, from 1.
 *   Default: 0.5 s, doubled each time, at most 30 s.
 * @property {number} [maxAttempts] Restarts in a row before giving up. Default: 6.
 * @property {number} [steadyMs] A process that was ready for so many milliseconds starts the count anew. Default: 60000.
 */

/** @param {number} attempt */
const doubling = (attempt) => Math.min(500 * 2 ** (attempt - 1), 30_000);

/** How long `stop` waits for the model to be freed before it ends the process, in milliseconds. */
const GRACE_MS = 2000;

export class Supervisor {
  /** @type {State} */
  #state = { name: 'stopped' };
  /** @type {{ port: ModelPort, client: ModelClient } | undefined} */
  #current;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;
  #attempt = 0;
  #options;

  /** @param {SupervisorOptions} options */
  constructor(options) {
    this.#options = { delayMs: doubling, maxAttempts: 6, steadyMs: 60_000, ...options };
  }

  get state() {
    return this.#state;
  }

  /** Starts the process, unless one is running. */
  start() {
    if (this.#current) return;
    clearTimeout(this.#timer);
    if (this.#state.name !== 'restarting') this.#attempt = 0;
    this.#launch();
  }

  /**
   * The client of the process that is ready now.
   * @throws {ModelProcessError} ERR_NOT_LOADED
   */
  get client() {
    if (this.#state.name === 'ready' && this.#current) return this.#current.client;
    throw new ModelProcessError('ERR_NOT_LOADED', `the model process is ${this.#state.name}`, 'wait until it is ready');
  }

  /** Ends the process at once, as a crash would. What follows is what follows a crash. */
  kill() {
    this.#current?.port.kill();
  }

  /** Frees the model and ends the process, for good. */
  async stop() {
    clearTimeout(this.#timer);
    const current = this.#current;
    this.#current = undefined;
    this.#setState({ name: 'stopped' });
    if (!current) return;
    const late = new Promise((resolve) => setTimeout(resolve, GRACE_MS).unref());
    await Promise.race([late, current.client.unload().catch(() => undefined)]);
    current.port.kill();
  }

  #launch() {
    const port = this.#options.start();
    const current = { port, client: new ModelClient(port) };
    let readySince = Infinity;
    this.#current = current;
    this.#setState({ name: 'loading', pid: port.pid, fraction: 0 });
    port.onExit((reason) => {
      if (this.#current !== current) return;
      this.#current = undefined;
      if (performance.now() - readySince >= this.#options.steadyMs) this.#attempt = 0;
      this.#restart(reason);
    });
    const onProgress = (/** @type {number} */ fraction) => {
      if (this.#current === current) this.#setState({ name: 'loading', pid: port.pid, fraction });
    };
    current.client.load(this.#options.model, { ...this.#options.options, onProgress }).then(
      (info) => {
        if (this.#current !== current) return;
        readySince = performance.now();
        this.#setState({ name: 'ready', pid: port.pid, info });
      },
      (/** @type {unknown} */ error) => {
        const data = errorData(error);
        if (this.#current !== current || data.code === 'ERR_PROCESS_GONE') return; // then onExit decides
        this.#current = undefined;
        port.kill();
        this.#setState({ name: 'failed', error: data });
      },
    );
  }

  /** @param {string} reason */
  #restart(reason) {
    const attempt = ++this.#attempt;
    if (attempt > this.#options.maxAttempts) {
      const message = `the model process ended ${attempt} times, the last time by ${reason}`;
      this.#setState({ name: 'failed', error: { code: 'ERR_PROCESS_GONE', message, remedy: null } });
      return;
    }
    const delayMs = this.#options.delayMs(attempt);
    this.#setState({ name: 'restarting', reason, attempt, delayMs });
    this.#timer = setTimeout(() => {
      this.#launch();
    }, delayMs);
  }

  /** @param {State} state */
  #setState(state) {
    this.#state = state;
    this.#options.onState(state);
  }
}
