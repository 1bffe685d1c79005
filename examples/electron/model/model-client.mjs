/**
 * The app's side of the model process: the calls of redrafter's `Model`, with the model somewhere else.
 *
 * @import { ModelInfo } from 'redrafter'
 * @import { ModelPort } from './port.mjs'
 * @import { Answer, GenerateData, GenerateRequest, LoadData, RemoteChunk, RemoteResult, Request, Stats } from './protocol.mjs'
 */
import { errorData, ModelProcessError, parseAnswer } from './protocol.mjs';

/**
 * Receives the answers of one request.
 * @typedef {object} Waiter
 * @property {(answer: Extract<Answer, { type: 'progress' | 'chunks' }>) => void} news
 * @property {(value: any) => void} done
 * @property {(error: ModelProcessError) => void} fail
 */

/** Talks with one process until that ends; then everything pending and everything later rejects with ERR_PROCESS_GONE. */
export class ModelClient {
  /** @type {Map<number, Waiter>} */
  #waiters = new Map();
  #lastId = 0;
  /** @type {ModelProcessError | undefined} */
  #gone;
  #port;

  /** @param {ModelPort} port */
  constructor(port) {
    this.#port = port;
    port.onMessage((message) => {
      this.#receive(message);
    });
    port.onExit((reason) => {
      this.#end(
        new ModelProcessError('ERR_PROCESS_GONE', `the model process ended: ${reason}`, 'start one, and load again'),
      );
    });
  }

  /**
   * Loads a model directory. The directories are paths as the model process sees them.
   * @param {string} model
   * @param {LoadData & { onProgress?: (fraction: number) => void, signal?: AbortSignal }} [options] Those of `Model.load`.
   * @returns {Promise<ModelInfo>} Rejects with ERR_ALREADY_LOADED, ERR_PROCESS_GONE, and the codes of `Model.load`.
   */
  load(model, { onProgress, signal, ...options } = {}) {
    const id = ++this.#lastId;
    const onAbort = () => {
      this.abort(id);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    const answer = this.#ask({ type: 'load', id, model, options }, (news) => {
      if (news.type === 'progress') onProgress?.(news.fraction);
    });
    if (signal?.aborted) onAbort();
    return answer.finally(() => {
      signal?.removeEventListener('abort', onAbort);
    });
  }

  /**
   * Generates in a session of its own. Returns at once; iterate it, or await its `result()`, or both.
   * @param {GenerateRequest['input']} input Text, token ids, or messages of a conversation.
   * @param {GenerateData} [options] Those of `session.generate`; a seed from 2^53 on as a decimal string.
   */
  generate(input, options = {}) {
    return new RemoteGeneration(++this.#lastId, {
      start: (id, waiter) => {
        this.#send({ type: 'generate', id, input, options }, waiter);
      },
      abort: (id) => {
        this.abort(id);
      },
      acknowledge: (id) => {
        if (this.#waiters.has(id)) this.#port.send({ type: 'ack', id });
      },
    });
  }

  /**
   * Ends a load or generation within one round. Does nothing if it has ended.
   * @param {number} id
   */
  abort(id) {
    if (this.#waiters.has(id)) this.#port.send({ type: 'abort', id });
  }

  /** @returns {Promise<Stats>} */
  stats() {
    return this.#ask({ type: 'stats', id: ++this.#lastId });
  }

  /**
   * Ends all work and frees the model; another can be loaded then.
   * @returns {Promise<null>}
   */
  unload() {
    return this.#ask({ type: 'unload', id: ++this.#lastId });
  }

  /**
   * @param {Request} request
   * @param {Waiter['news']} [news]
   * @returns {Promise<any>}
   */
  #ask(request, news = () => undefined) {
    return new Promise((done, fail) => {
      this.#send(request, { news, done, fail });
    });
  }

  /**
   * @param {Request} request
   * @param {Waiter} waiter
   */
  #send(request, waiter) {
    if (this.#gone) {
      waiter.fail(this.#gone);
      return;
    }
    this.#waiters.set(request.id, waiter);
    try {
      this.#port.send(request);
    } catch (error) {
      // The channel cannot carry a value that the caller gave, a function or a symbol say.
      this.#waiters.delete(request.id);
      waiter.fail(new ModelProcessError('ERR_INVALID_ARGUMENT', errorData(error).message));
    }
  }

  /** @param {unknown} message */
  #receive(message) {
    /** @type {Answer} */
    let answer;
    try {
      answer = parseAnswer(message);
    } catch (error) {
      // Not our model process, or one whose memory is damaged: nothing it says can be relied on.
      this.#end(/** @type {ModelProcessError} */ (error));
      this.#port.kill();
      return;
    }
    const waiter = answer.id === null ? undefined : this.#waiters.get(answer.id);
    if (!waiter) return;
    if (answer.type === 'progress' || answer.type === 'chunks') {
      waiter.news(answer);
      return;
    }
    this.#waiters.delete(/** @type {number} */ (answer.id));
    if (answer.type === 'done') waiter.done(answer.value);
    else waiter.fail(new ModelProcessError(answer.error.code, answer.error.message, answer.error.remedy));
  }

  /** @param {ModelProcessError} error */
  #end(error) {
    this.#gone ??= error;
    const waiters = [...this.#waiters.values()];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.fail(this.#gone);
  }
}

/**
 * A generation in the model process. Chunks that arrived before an error are given out before it. Leaving the loop
 * (`break`, `return()`) ends the generation.
 *
 * @implements {AsyncIterable<RemoteChunk>}
 */
export class RemoteGeneration {
  /** Chunks that were not taken yet; the last of each message is acknowledged when it is. @type {{ chunk: RemoteChunk, last: boolean }[]} */
  #queue = [];
  /** @type {(() => void)[]} */
  #wake = [];
  #over = false;
  /** @type {ModelProcessError | undefined} */
  #error;
  /** @type {Promise<RemoteResult>} */
  #outcome;
  #host;

  /**
   * @param {number} id
   * @param {{ start: (id: number, waiter: Waiter) => void, abort: (id: number) => void, acknowledge: (id: number) => void }} host
   */
  constructor(id, host) {
    /** Names it in `client.abort(id)`. */
    this.id = id;
    this.#host = host;
    this.#outcome = new Promise((resolve, reject) => {
      host.start(id, {
        news: (answer) => {
          if (answer.type !== 'chunks') return;
          answer.chunks.forEach((chunk, i, { length }) => this.#queue.push({ chunk, last: i === length - 1 }));
          this.#awaken();
        },
        done: (/** @type {RemoteResult} */ value) => {
          this.#over = true;
          resolve(value);
          this.#awaken();
        },
        fail: (error) => {
          this.#error = error;
          reject(error);
          this.#awaken();
        },
      });
    });
    // Whoever only iterates gets errors there; they must not count as unhandled here as well.
    this.#outcome.catch(() => undefined);
  }

  /** The whole outcome. Rejects with a ModelProcessError: ERR_NOT_LOADED, ERR_PROCESS_GONE, and what the engine reports. */
  result() {
    return this.#outcome;
  }

  /** Ends it within one round; `result()` resolves with what there is and `finishReason: 'abort'`. */
  abort() {
    this.#host.abort(this.id);
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        const next = this.#queue.shift();
        if (next) {
          if (next.last) this.#host.acknowledge(this.id);
          yield next.chunk;
        } else if (this.#error) throw this.#error;
        else if (this.#over) return;
        else await new Promise((/** @type {(value?: undefined) => void} */ resolve) => this.#wake.push(resolve));
      }
    } finally {
      this.abort();
    }
  }

  #awaken() {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
