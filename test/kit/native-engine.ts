/**
 * An engine driven at the boundary itself, with promises: for tests that need token ids and KV bytes only. Devices that
 * begin with `cuda` or `cpu:failing` are those of the addon with the bindings of tests (native/testing/levels.h).
 */
import {
  native,
  type NativeEngine,
  type NativeEngineOptions,
  type NativeGenerateOptions,
  type NativeMemory,
  type NativeMessage,
  type NativeModelInfo,
  type NativeModule,
} from '../../lib/native.js';
import { answerTo, type Matcher } from '../../lib/grammar/masks.js';
import { testing } from './testing.js';

export interface LoadOptions {
  drafter?: string;
  device?: string;
  dtype?: string;
  drafterDtype?: string;
  threads?: number;
  contextTokens?: number;
  kvTokens?: number;
  prefillChunk?: number;
  maxQueuedRequests?: number;
  maxQueuedTokens?: number;
  prefixCacheBytes?: number;
  memoryBudgetBytes?: number;
  /** Seed of draft shapes by chance for each request and round that is `adaptive`, in the place of planned ones. */
  shapeSeed?: number;
  /** Plans by made-up costs, by which drafting pays. */
  flatCosts?: boolean;
  /** Plans by what is measured, on the emulator too. */
  measuredCosts?: boolean;
}

export type GenerateOptions = Partial<Omit<NativeGenerateOptions, 'eosTokenIds' | 'stopTokenIds'>> & {
  eos?: number[];
  stop?: number[];
};

type Finish = Extract<NativeMessage, { type: 'finish' }>;

export interface Generated {
  ids: number[];
  /** Ids of each round, to see where accepted runs were cut. */
  rounds: number[][];
  logprobs: number[];
  topIds: number[];
  topLogprobs: number[];
  reason: Finish['reason'];
  stats: Finish['stats'];
  tokens: number;
  kvTokens: number;
}

/** A failed ticket or engine, with the code the native side gave. */
export class EngineError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(`${code}: ${message}`);
  }
}

const planner = testing['planner'] as { use(kind: 'measured' | 'flat' | 'random', seed?: number): void };

/** What an emulator takes says nothing, so engines there plan by made-up costs. */
function addonFor(device: string, { shapeSeed, flatCosts, measuredCosts }: LoadOptions): NativeModule {
  if (shapeSeed === undefined && flatCosts !== true && !/^cuda|^cpu:failing/.test(device)) return native();
  planner.use(measuredCosts === true ? 'measured' : shapeSeed === undefined ? 'flat' : 'random', shapeSeed);
  return testing['addon'] as NativeModule;
}

/** With what the tests do not ask for filled in. */
export function engineOptions(model: string, options: LoadOptions): NativeEngineOptions {
  return {
    model,
    drafter: options.drafter ?? null,
    device: options.device ?? 'cpu',
    dtype: options.dtype ?? 'auto',
    drafterDtype: options.drafterDtype ?? 'auto',
    threads: options.threads ?? 2,
    contextTokens: options.contextTokens ?? 0,
    kvTokens: options.kvTokens ?? 0,
    prefillChunk: options.prefillChunk ?? 0,
    maxActiveRequests: 0,
    maxQueuedRequests: options.maxQueuedRequests ?? 0,
    maxQueuedTokens: options.maxQueuedTokens ?? 0,
    prefixCacheBytes: options.prefixCacheBytes ?? -1,
    memoryBudgetBytes: options.memoryBudgetBytes ?? 0,
  };
}

/** With what the tests do not ask for filled in: plain, greedy, uncontrolled, never pausing. */
export function generateOptions(options: GenerateOptions = {}): NativeGenerateOptions {
  const { eos = [], stop = [], ...rest } = options;
  return {
    maxTokens: 64,
    temperature: 0,
    topK: 0,
    topP: 1,
    minP: 0,
    seed: 0n,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    minTokens: 0,
    bannedTokenIds: new Int32Array(0),
    biasTokenIds: new Int32Array(0),
    biases: new Float32Array(0),
    matcher: 0,
    beamWidth: 0,
    beamLength: 0,
    adaptive: false,
    logprobs: -1,
    priority: 0,
    deadlineMs: 0,
    bufferTokens: 2 ** 31 - 1,
    keepTokens: -1,
    slideKeep: -1,
    slideTail: 0,
    eosTokenIds: Int32Array.from(eos),
    stopTokenIds: Int32Array.from(stop),
    ...rest,
  };
}

/** What `TestEngine.load` with these options will take. */
export function estimate(model: string, options: LoadOptions = {}): Promise<NativeMemory> {
  const all = engineOptions(model, options);
  return addonFor(all.device, options).estimateMemory(all);
}

export class TestEngine {
  readonly engine: NativeEngine;
  private readonly addon: NativeModule;
  private readonly tickets = new Map<number, { push(message: NativeMessage): void; fail(error: EngineError): void }>();
  private last = 0;
  private readonly ready: Promise<NativeModelInfo>;
  private readonly ended: Promise<void>;
  info!: NativeModelInfo;
  /** What the engine died of, if it did. */
  failure: EngineError | undefined;

  private constructor(model: string, options: LoadOptions) {
    let onReady!: (info: NativeModelInfo) => void;
    let onFailed!: (error: EngineError) => void;
    let onClosed!: () => void;
    this.ready = new Promise((resolve, reject) => {
      onReady = resolve;
      onFailed = reject;
    });
    this.ended = new Promise((resolve) => {
      onClosed = resolve;
    });
    const all = engineOptions(model, options);
    this.addon = addonFor(all.device, options);
    this.engine = new this.addon.Engine(all, (messages) => {
      for (const message of messages) {
        if (message.type === 'ready') onReady(message.info);
        else if (message.type === 'failed') {
          this.failure = new EngineError(message.code, message.message);
          onFailed(this.failure);
        } else if (message.type === 'closed') onClosed();
        else if (message.type === 'error')
          this.tickets.get(message.ticket)?.fail(new EngineError(message.code, message.message));
        else if ('ticket' in message) this.tickets.get(message.ticket)?.push(message);
      }
    });
  }

  static async load(model: string, options: LoadOptions = {}): Promise<TestEngine> {
    const engine = new TestEngine(model, options);
    try {
      engine.info = await engine.ready;
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  }

  /** Begins to load and closes at once. Whether it had not been loaded before. */
  static async abandon(model: string, options: LoadOptions = {}): Promise<boolean> {
    const engine = new TestEngine(model, options);
    const outcome = engine.ready.then(
      () => 'ready',
      () => 'failed',
    );
    await engine.close();
    return (await Promise.race([outcome, Promise.resolve('neither')])) !== 'ready';
  }

  async close(): Promise<void> {
    this.engine.close();
    await this.ended;
  }

  private submit<T>(start: (ticket: number) => void, onMessage: (message: NativeMessage) => T | undefined): Promise<T> {
    const ticket = ++this.last;
    return new Promise((resolve, reject) => {
      this.tickets.set(ticket, {
        push: (message) => {
          const result = onMessage(message);
          if (result === undefined) return;
          this.tickets.delete(ticket);
          resolve(result);
        },
        fail: (error) => {
          this.tickets.delete(ticket);
          reject(error);
        },
      });
      start(ticket);
    });
  }

  private done(start: (ticket: number) => void): Promise<{ tokens: number; kvTokens: number }> {
    return this.submit(start, (message) => (message.type === 'done' ? message : undefined));
  }

  async open(prefixKey = ''): Promise<number> {
    const session = ++this.last;
    await this.done((ticket) => {
      this.engine.openSession(ticket, session, prefixKey);
    });
    return session;
  }

  async fork(from: number): Promise<number> {
    const session = ++this.last;
    await this.done((ticket) => {
      this.engine.forkSession(ticket, session, from);
    });
    return session;
  }

  append(session: number, ids: readonly number[]): Promise<{ tokens: number; kvTokens: number }> {
    return this.done((ticket) => {
      this.engine.append(ticket, session, Int32Array.from(ids));
    });
  }

  rewind(session: number, tokens: number, ids: number[] = []): Promise<{ tokens: number; kvTokens: number }> {
    return this.done((ticket) => {
      this.engine.rewindSession(ticket, session, tokens, Int32Array.from(ids));
    });
  }

  clearPrefixes(prefixKey = ''): Promise<{ tokens: number; kvTokens: number }> {
    return this.done((ticket) => {
      this.engine.clearPrefixes(ticket, 0, prefixKey);
    });
  }

  closeSession(session: number): Promise<{ tokens: number; kvTokens: number }> {
    return this.done((ticket) => {
      this.engine.closeSession(ticket, session);
    });
  }

  save(session: number, path: string): Promise<{ tokens: number; kvTokens: number }> {
    return this.done((ticket) => {
      this.engine.saveSession(ticket, session, path);
    });
  }

  async restore(path: string): Promise<{ session: number; ids: number[]; kvTokens: number }> {
    const session = ++this.last;
    const { ids, kvTokens } = await this.submit(
      (ticket) => {
        this.engine.restoreSession(ticket, session, path);
      },
      (message) => (message.type === 'restored' ? message : undefined),
    );
    return { session, ids: [...ids], kvTokens };
  }

  readKv(session: number): Promise<Float32Array> {
    return this.submit(
      (ticket) => {
        this.engine.readKv(ticket, session);
      },
      (message) => (message.type === 'kv' ? message.data : undefined),
    );
  }

  /** Makes masks on this thread, in the place of the one that carries out grammars, until what it returns is called. */
  provideMasks(matchers: ReadonlyMap<number, Matcher>, answer = answerTo): () => void {
    let stopped = false;
    const exchange = this.engine.maskExchange();
    const poll = async (): Promise<void> => {
      for (let last: Int32Array = new Int32Array(0); !stopped;) {
        const question = this.addon.nextMasks(exchange, last, 2);
        last = new Int32Array(0);
        if (question.length === 1) return;
        if (question.length > 0) last = await answer(question, matchers);
        await new Promise(setImmediate);
      }
    };
    void poll();
    return () => {
      stopped = true;
    };
  }

  /** Of the cache, by `session` in particular, and of the queue. */
  kvUsage(session = 0): ReturnType<NativeEngine['usage']> {
    return this.engine.usage(session);
  }

  /**
   * `onRound` may abort: it gets what was generated so far and a function that ends the request, and one that says how much
   * of it was read.
   */
  generate(
    session: number,
    ids: readonly number[],
    options: GenerateOptions = {},
    onRound?: (soFar: number[], abort: (keep: number) => void, read: (tokens: number) => void) => void,
  ): Promise<Generated> {
    const out: Generated = {
      ids: [],
      rounds: [],
      logprobs: [],
      topIds: [],
      topLogprobs: [],
      reason: 'abort',
      stats: undefined as unknown as Finish['stats'],
      tokens: 0,
      kvTokens: 0,
    };
    let ticketOf = 0;
    return this.submit(
      (ticket) => {
        ticketOf = ticket;
        this.engine.generate(ticket, session, Int32Array.from(ids), generateOptions(options));
      },
      (message) => {
        if (message.type === 'tokens') {
          out.ids.push(...message.ids);
          out.rounds.push([...message.ids]);
          out.logprobs.push(...(message.logprobs ?? []));
          out.topIds.push(...(message.topIds ?? []));
          out.topLogprobs.push(...(message.topLogprobs ?? []));
          onRound?.(
            out.ids,
            (keep) => {
              this.engine.abort(ticketOf, keep);
            },
            (tokens) => {
              this.engine.read(ticketOf, tokens);
            },
          );
        } else if (message.type === 'finish') {
          return {
            ...out,
            reason: message.reason,
            stats: message.stats,
            tokens: message.tokens,
            kvTokens: message.kvTokens,
          };
        }
        return undefined;
      },
    );
  }
}
