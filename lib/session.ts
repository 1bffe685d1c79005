import type { ChatMessage } from './chat.js';
import type { Engine } from './engine.js';
import { aborted, CallSite, fromThrown, invalid, RedrafterError } from './errors.js';
import { Generation, type GenerationHost } from './generation.js';
import { sessionKvOf, type SessionKv } from './kv.js';
import type { NativeEngine, NativeModelInfo } from './native.js';
import type { AppendOptions, GenerateOptions, SaveOptions, SessionOptions } from './option-types.js';
import {
  checkPath,
  copyIds,
  describe,
  INT_MAX,
  resolveAppend,
  resolveGenerate,
  resolveSave,
  resolveSession,
} from './options.js';
import { commonPrefix, fitPrompt, heldAfter } from './slide.js';
import { StatsTotal, type TotalStats } from './stats.js';
import type { Tokenizer } from './tokenizer.js';

/**
 * What can be given to a session: text (continued as it is), token ids, or messages of a conversation, which are
 * rendered with the model's chat template.
 */
export type SessionInput = string | readonly number[] | Int32Array | readonly ChatMessage[];

/** What sessions of a model share. @internal */
export interface SessionOwner {
  engine: Engine;
  info: NativeModelInfo;
  tokenizer: Tokenizer | null;
  eosTokenIds: readonly number[];
  totals: StatsTotal;
}

/** Input as ids, and how much of the session stays before them. */
interface Plan {
  keep: number;
  ids: Int32Array;
}

/**
 * A sequence of tokens with its part of the KV cache. One operation at a time: a second one gets ERR_BUSY. Create
 * one with `model.createSession()` or {@link Session.fork}.
 *
 * A session that nothing refers to any more gives its part of the cache back when it is garbage-collected, but the
 * collector does not know how much that is and may take its time: call {@link Session.dispose}.
 */
export class Session {
  private readonly totals = new StatsTotal();
  private busy = false;
  private closing: Promise<void> | undefined;
  /** Counts operations, so that a late cut does not hit a session that has moved on. */
  private revision = 0;

  private constructor(
    private readonly owner: SessionOwner,
    private readonly number: number,
    private ids: number[],
    private kvTokens: number,
  ) {
    owner.engine.watch(this, number);
  }

  /** @internal */
  static async open(owner: SessionOwner, site: CallSite, options?: SessionOptions): Promise<Session> {
    const prefixKey = resolveSession(options);
    owner.engine.check();
    const number = owner.engine.nextSession();
    const done = await owner.engine.request('done', site, (native, ticket) => {
      native.openSession(ticket, number, prefixKey);
    });
    return new Session(owner, number, [], done.kvTokens);
  }

  /** @internal */
  static async restore(owner: SessionOwner, site: CallSite, path: unknown, options?: SaveOptions): Promise<Session> {
    const file = checkPath('path', path, 'a file');
    const signal = resolveSave(options);
    owner.engine.check();
    if (signal?.aborted === true) throw aborted(signal);
    const number = owner.engine.nextSession();
    const restore = (native: NativeEngine, ticket: number): void => {
      native.restoreSession(ticket, number, file);
    };
    const { ids, kvTokens } = await owner.engine.request('restored', site, restore, signal);
    return new Session(owner, number, [...ids], kvTokens);
  }

  /** Tokens the session holds. */
  get tokens(): number {
    return this.ids.length;
  }

  /** A copy of their ids. */
  get tokenIds(): Int32Array {
    return Int32Array.from(this.ids);
  }

  /** Use of the KV cache by this session: none once it is disposed of. Throws ERR_DISPOSED after its model. */
  get kv(): SessionKv {
    return sessionKvOf(this.owner.engine.usage(this.number), this.closing === undefined ? this.kvTokens : 0);
  }

  /** Sums over the generations of this session that have ended. A fork starts from zero. */
  get stats(): TotalStats {
    return this.totals.snapshot();
  }

  /**
   * Appends `input` and generates. Returns at once; iterate the {@link Generation} or await its `result()`.
   *
   * Text is continued as it is, after the begin-of-sequence token if the session is empty and the tokenizer adds
   * one. Messages are a whole conversation: the session is first rewound to the part that it shares with them. An
   * empty array of ids continues what the session holds.
   *
   * Throws at once: ERR_INVALID_ARGUMENT, ERR_TOKENIZER, ERR_TEMPLATE, ERR_CONTEXT, ERR_QUEUE_FULL, ERR_BUSY,
   * ERR_DISPOSED, and ERR_ABORTED for a signal that has fired. What fails later rejects iteration and `result()` and leaves the
   * session as it was before; after ERR_ABORTED it keeps what was generated so far.
   */
  generate(input: SessionInput, options?: GenerateOptions): Generation {
    const site = new CallSite();
    const { engine, info, tokenizer, eosTokenIds } = this.owner;
    const { vocab, contextTokens } = info;
    const context = { vocab, contextTokens, hasDrafter: info.drafter !== null, eosTokenIds };
    const { native: settings, stop, parseSpecialTokens, signal } = resolveGenerate(options, context);
    if (stop.length > 0) this.needTokenizer('stop strings need');
    const { slideKeep, slideTail, logprobs, seed, bufferTokens } = settings;
    const slide = slideKeep < 0 ? undefined : { keep: slideKeep, tail: slideTail };
    const planned = this.plan(input, parseSpecialTokens, slide === undefined ? contextTokens : INT_MAX);
    const before = this.ids.slice(0, planned.keep);
    const whole = [...before, ...planned.ids];
    const prompt = fitPrompt(whole, contextTokens, slide);
    const keep = prompt === whole ? planned.keep : commonPrefix(prompt, before);
    const ids = Int32Array.from(prompt.slice(keep));
    this.begin(signal);
    const revision = this.revision;
    let ticket = 0;
    const host: GenerationHost = {
      abort: (keepTokens) => {
        engine.native.abort(ticket, keepTokens);
      },
      read: (tokens) => {
        engine.native.read(ticket, tokens);
      },
      rest: (resting) => {
        engine.rest(ticket, resting);
      },
      ended: async (generated, held, kvTokens, stats) => {
        this.totals.add(stats);
        this.owner.totals.add(stats);
        this.kvTokens = kvTokens;
        await this.end(site, held, heldAfter(prompt, generated, generated.ids.length, slideKeep));
      },
      failed: (error) => this.recover(site, error, before, slide === undefined ? keep : Math.min(keep, slideKeep)),
      shorten: async (generated, kept) => {
        if (this.revision !== revision || this.busy || this.closing !== undefined) return;
        await this.exclusive(site, heldAfter(prompt, generated, kept, slideKeep));
      },
    };
    let generation: Generation;
    try {
      const detokenizer = tokenizer?.detokenizer(prompt[prompt.length - 1]);
      const dropped = whole.length - prompt.length;
      generation = new Generation(host, { detokenizer, stop, logprobs, seed, dropped, signal, bufferTokens });
      ticket = engine.submit(generation, (native, t) => {
        native.generate(t, this.number, ids, { ...settings, keepTokens: keep });
      });
    } catch (error) {
      this.busy = false;
      throw site.mark(fromThrown(error));
    }
    this.ids.length = keep;
    this.kvTokens = Math.min(this.kvTokens, keep);
    this.extend(ids);
    return generation;
  }

  /**
   * Appends text or ids and computes their keys and values, so that a later `generate` or `fork` starts from them.
   * Rejects with ERR_INVALID_ARGUMENT, ERR_TOKENIZER, ERR_CONTEXT, ERR_QUEUE_FULL, ERR_KV_FULL, ERR_BUSY, ERR_DISPOSED,
   * ERR_ABORTED; the session is then as it was before.
   */
  async append(input: string | readonly number[] | Int32Array, options?: AppendOptions): Promise<void> {
    const site = new CallSite();
    const { parseSpecialTokens, signal } = resolveAppend(options);
    const ids = typeof input === 'string' ? this.encode(input, parseSpecialTokens) : this.copy(input);
    this.begin(signal);
    const before = [...this.ids];
    const append = (native: NativeEngine, ticket: number): void => {
      native.append(ticket, this.number, ids);
    };
    try {
      const work = this.owner.engine.request('done', site, append, signal);
      this.extend(ids);
      const done = await work;
      this.kvTokens = done.kvTokens;
      this.busy = false;
    } catch (error) {
      throw await this.recover(site, fromThrown(error), before, before.length);
    }
  }

  /**
   * A new session with the same tokens, and the same `prefixKey` if there is one. The KV blocks are shared until one of
   * the two writes to them. The session can be forked again, or used, at once. Rejects with ERR_BUSY, ERR_DISPOSED.
   */
  async fork(): Promise<Session> {
    const site = new CallSite();
    this.begin();
    this.busy = false; // the engine carries out calls in order, so later ones do not touch what is forked
    const { owner, number: from } = this;
    const number = owner.engine.nextSession();
    const ids = [...this.ids];
    const done = await owner.engine.request('done', site, (native, ticket) => {
      native.forkSession(ticket, number, from);
    });
    return new Session(owner, number, ids, done.kvTokens);
  }

  /**
   * Writes the tokens and their cached keys and values to a file, for {@link Model.restoreSession}; a file that is
   * there is replaced once the new one is complete, and only its owner can read it. The session is saved as it is
   * now and can be used at once while the file is being written: the KV blocks are shared like those of a fork.
   *
   * Rejects with ERR_INVALID_ARGUMENT, ERR_FILE, ERR_OOM, ERR_BUSY, ERR_DISPOSED, ERR_ABORTED; nothing is left then.
   */
  async save(path: string, options?: SaveOptions): Promise<void> {
    const site = new CallSite();
    const file = checkPath('path', path, 'a file');
    const signal = resolveSave(options);
    this.begin(signal);
    this.busy = false; // the engine takes its snapshot before it looks at any later call
    const save = (native: NativeEngine, ticket: number): void => {
      native.saveSession(ticket, this.number, file);
    };
    await this.owner.engine.request('done', site, save, signal);
  }

  /** Keeps the first `tokens` tokens, 0 to `this.tokens`. Rejects with ERR_INVALID_ARGUMENT, ERR_BUSY, ERR_DISPOSED. */
  async rewind(tokens: number): Promise<void> {
    const site = new CallSite();
    if (!Number.isInteger(tokens) || tokens < 0 || tokens > this.ids.length) {
      throw invalid(`tokens must be an integer from 0 to ${this.ids.length}, got ${describe(tokens)}`);
    }
    await this.exclusive(site, { ids: this.ids.slice(0, tokens), common: tokens });
  }

  /** Frees the session's part of the KV cache; work that is running fails with ERR_DISPOSED. Idempotent. */
  dispose(): Promise<void> {
    const site = new CallSite();
    this.owner.engine.unwatch(this);
    this.closing ??= this.owner.engine
      .request('done', site, (native, ticket) => {
        native.closeSession(ticket, this.number);
      })
      .then(
        () => undefined,
        () => undefined, // the engine ended first, and the session with it
      );
    return this.closing;
  }

  /** Allows `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Cached keys and values, [layers, 2, tokens, kvHeads, headDim], for tests. @internal */
  async readKv(): Promise<Float32Array> {
    const message = await this.owner.engine.request('kv', new CallSite(), (native, ticket) => {
      native.readKv(ticket, this.number);
    });
    return message.data;
  }

  private begin(signal?: AbortSignal): void {
    this.owner.engine.check();
    if (this.closing !== undefined) throw new RedrafterError('ERR_DISPOSED', 'the session was disposed of');
    if (this.busy) throw new RedrafterError('ERR_BUSY', 'the session is busy with another operation');
    if (signal?.aborted === true) throw aborted(signal);
    this.busy = true;
    this.revision++;
  }

  /** Not `push(...ids)`: a call takes no more arguments than its stack holds, which a long context exceeds. */
  private extend(ids: Iterable<number>): void {
    for (const id of ids) this.ids.push(id);
  }

  /** After a generation: makes the session hold `ids`, then frees it for the next operation. */
  private async end(site: CallSite, held: number, { ids, common }: { ids: number[]; common: number }): Promise<void> {
    this.ids = ids;
    try {
      if (this.closing !== undefined) throw new RedrafterError('ERR_DISPOSED', 'the session was disposed of');
      if (held !== ids.length || common < ids.length) await this.put(site, ids, common);
    } catch (error) {
      throw site.mark(fromThrown(error));
    } finally {
      this.busy = false;
    }
  }

  /**
   * Puts the session back to what it held before, of which the engine holds the first `common` still; resolves to the
   * error to report.
   */
  private async recover(
    site: CallSite,
    error: RedrafterError,
    before: number[],
    common: number,
  ): Promise<RedrafterError> {
    this.ids = before;
    try {
      if (this.closing !== undefined) throw new RedrafterError('ERR_DISPOSED', 'the session was disposed of');
      await this.put(site, before, common);
      return site.mark(error);
    } catch (later) {
      const disposed = fromThrown(later);
      return site.mark(disposed.code === 'ERR_DISPOSED' ? disposed : error);
    } finally {
      this.busy = false;
    }
  }

  /** An operation that does nothing but make the session hold `ids`. */
  private async exclusive(site: CallSite, { ids, common }: { ids: number[]; common: number }): Promise<void> {
    this.begin();
    try {
      await this.put(site, ids, common);
    } finally {
      this.busy = false;
    }
  }

  /** Makes the session hold `ids`, of which the engine holds the first `common` already. */
  private async put(site: CallSite, ids: number[], common: number): Promise<void> {
    const work = this.owner.engine.request('done', site, (native, ticket) => {
      native.rewindSession(ticket, this.number, common, Int32Array.from(ids.slice(common)));
    });
    this.ids = ids;
    this.kvTokens = (await work).kvTokens;
  }

  /** `most`: token ids that are looked at. */
  private plan(input: unknown, parseSpecialTokens: boolean, most: number): Plan {
    if (typeof input === 'string') return { keep: this.ids.length, ids: this.encode(input, parseSpecialTokens) };
    const first: unknown = Array.isArray(input) ? input[0] : undefined;
    if (typeof first !== 'object' || first === null) return { keep: this.ids.length, ids: this.copy(input, most) };
    const tokenizer = this.needTokenizer('messages need');
    const ids = tokenizer.encodeChat(input as ChatMessage[], { parseSpecialTokens });
    const keep = commonPrefix(ids, this.ids);
    return { keep, ids: ids.subarray(keep) };
  }

  private encode(text: string, parseSpecialTokens: boolean): Int32Array {
    const tokenizer = this.needTokenizer('text needs');
    return tokenizer.encode(text, { parseSpecialTokens, addSpecialTokens: this.ids.length === 0 });
  }

  private copy(ids: unknown, most = this.owner.info.contextTokens): Int32Array {
    return copyIds('input', ids, this.owner.info.vocab, most);
  }

  private needTokenizer(what: string): Tokenizer {
    const { tokenizer } = this.owner;
    if (tokenizer !== null) return tokenizer;
    throw new RedrafterError('ERR_TOKENIZER', `${what} a tokenizer, and the model directory has no tokenizer.json`, {
      remedy: 'give token ids, or put tokenizer.json into the model directory',
    });
  }
}
