/**
 * The model process: loads a model, generates, and speaks the messages of protocol.mjs with the app that started it,
 * by `utilityProcess.fork` in Electron, or by `child_process.fork` or `new Worker` in Node.js.
 *
 * It holds at most one model; an app that wants two starts two processes. Generations run side by side, each in a
 * session of its own. A bad message gets an error as its answer; nothing that an app sends ends the process.
 *
 * @import { HostPort } from './port.mjs'
 * @import { GenerateRequest, LoadRequest, RemoteChunk, RemoteResult, Request, Stats } from './protocol.mjs'
 */
import { Model } from 'redrafter';

import { DraftedRuns } from './drafted-runs.mjs';
import { hostPort } from './port.mjs';
import { errorData, idOf, ModelProcessError, parseRequest, WINDOW } from './protocol.mjs';

/**
 * Chunks on their way to the app. At most WINDOW messages are under way; while the app is slow, chunks gather here
 * and leave together. So an app that stops reading costs the memory of its own `maxTokens`, never a growing channel,
 * and the engine, which serves other requests too, does not wait for it.
 */
class Outbox {
  /** @type {RemoteChunk[]} */
  #waiting = [];
  #underWay = 0;
  #send;

  /** @param {(chunks: RemoteChunk[]) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /** @param {RemoteChunk} chunk */
  push(chunk) {
    this.#waiting.push(chunk);
    if (this.#underWay < WINDOW) this.flush();
  }

  acknowledged() {
    if (this.#underWay > 0) this.#underWay--;
    if (this.#underWay < WINDOW) this.flush();
  }

  flush() {
    if (this.#waiting.length === 0) return;
    this.#underWay++;
    this.#send(this.#waiting.splice(0));
  }
}

/** A request that is being carried out. */
class Work {
  #controller = new AbortController();
  /** @type {Outbox | undefined} */
  outbox;
  /** Resolves when the last answer was sent. @type {Promise<void>} */
  ended = Promise.resolve();

  get signal() {
    return this.#controller.signal;
  }

  abort() {
    this.#controller.abort();
  }
}

class ModelProcess {
  /** @type {Model | undefined} */
  #model;
  #loading = false;
  /** @type {Map<number, Work>} */
  #running = new Map();
  #port;

  /** @param {HostPort} port */
  constructor(port) {
    this.#port = port;
    port.onMessage((message) => {
      this.#receive(message);
    });
    port.onClose(() => {
      void this.#unload();
    });
  }

  /** @param {unknown} message */
  #receive(message) {
    /** @type {Request} */
    let request;
    try {
      request = parseRequest(message);
    } catch (error) {
      const id = idOf(message);
      // An error ends its request, so it must not name one that is going on.
      this.#fail(id !== null && this.#running.has(id) ? null : id, error);
      return;
    }
    const { id } = request;
    const known = this.#running.get(id);
    if (request.type === 'abort') known?.abort();
    else if (request.type === 'ack') known?.outbox?.acknowledged();
    else if (known) this.#fail(null, new ModelProcessError('ERR_PROTOCOL', `request ${id} is already running`));
    else this.#start(request);
  }

  /** @param {Request} request */
  #start(request) {
    const { id } = request;
    const work = new Work();
    this.#running.set(id, work);
    work.ended = this.#carryOut(request, work)
      .then(
        (value) => {
          this.#port.send({ type: 'done', id, value });
        },
        (/** @type {unknown} */ error) => {
          this.#fail(id, error);
        },
      )
      .finally(() => this.#running.delete(id));
  }

  /**
   * @param {number | null} id
   * @param {unknown} error
   */
  #fail(id, error) {
    this.#port.send({ type: 'error', id, error: errorData(error) });
  }

  /**
   * @param {Request} request
   * @param {Work} work
   * @returns {Promise<unknown>}
   */
  async #carryOut(request, work) {
    switch (request.type) {
      case 'load':
        return this.#load(request, work);
      case 'generate':
        return this.#generate(request, work);
      case 'stats':
        return this.#stats();
      default:
        await this.#unload(work);
        return null;
    }
  }

  /**
   * @param {LoadRequest} request
   * @param {Work} work
   */
  async #load({ id, model, options }, { signal }) {
    if (this.#loading || this.#model) {
      throw new ModelProcessError('ERR_ALREADY_LOADED', 'this process has a model', 'unload it, or start a process');
    }
    this.#loading = true;
    try {
      const onProgress = (/** @type {number} */ fraction) => {
        this.#port.send({ type: 'progress', id, fraction });
      };
      this.#model = await Model.load(model, { ...options, signal, onProgress });
      return this.#model.info;
    } finally {
      this.#loading = false;
    }
  }

  /**
   * @param {GenerateRequest} request
   * @param {Work} work
   * @returns {Promise<RemoteResult>}
   */
  async #generate({ id, input, options }, work) {
    const model = this.#model;
    if (!model) throw new ModelProcessError('ERR_NOT_LOADED', 'this process has no model', 'load one first');
    const outbox = new Outbox((chunks) => {
      this.#port.send({ type: 'chunks', id, chunks });
    });
    work.outbox = outbox;
    const session = await model.createSession();
    try {
      const { seed, ...rest } = options;
      const generation = session.generate(input, seed === undefined ? rest : { ...rest, seed: numberOf(seed) });
      work.signal.addEventListener('abort', () => {
        generation.abort();
      });
      if (work.signal.aborted) generation.abort();
      const runs = new DraftedRuns(model.tokenizer?.detokenizer(session.tokenIds.at(-1)));
      for await (const chunk of generation) outbox.push({ ...chunk, runs: runs.split(chunk) });
      outbox.flush();
      const result = await generation.result();
      return { ...result, seed: String(result.seed) };
    } finally {
      await session.dispose();
    }
  }

  /** @returns {Stats} */
  #stats() {
    return {
      model: this.#model?.info ?? null,
      kv: this.#model?.kvUsage() ?? null,
      memory: this.#model?.memoryUsage() ?? null,
      totals: this.#model?.stats ?? null,
      running: this.#running.size - 1, // without this request
      rssBytes: process.memoryUsage.rss(),
    };
  }

  /**
   * Ends all work, then frees the model; everything about that work is said before.
   * @param {Work} [self] The request to unload, which does not wait for itself.
   */
  async #unload(self) {
    const others = [...this.#running.values()].filter((work) => work !== self);
    for (const work of others) work.abort();
    await Promise.all(others.map(({ ended }) => ended));
    const model = this.#model;
    this.#model = undefined;
    await model?.dispose();
  }
}

/**
 * A seed from 2^53 on does not fit in a JSON number and travels as decimal digits. Anything else is left as it is,
 * for the engine to refuse.
 * @param {string | number} seed
 */
const numberOf = (seed) =>
  typeof seed === 'string' && /^\d{1,20}$/.test(seed) ? BigInt(seed) : /** @type {number} */ (seed);

new ModelProcess(hostPort());
