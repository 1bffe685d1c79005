import type { ChatMessage } from './chat.js';
import type { Engine } from './engine.js';
import { aborted, CallSite, fromThrown, invalid, RedrafterError } from './errors.js';
import { Generation, type GenerationHost } from './generation.js';
import { sessionKvOf, type SessionKv } from './kv.js';
import type { NativeEngine, NativeModelInfo } from './native.js';
import type { AppendOptions, GenerateOptions, SaveOptions } from './option-types.js';
import { checkPath, copyIds, describe, resolveAppend, resolveGenerate, resolveSave } from './options.js';
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
    private readonly ids: number[],
    private kvTokens: number,
  ) {
    owner.engine.watch(this, number);
  }

  /** @internal */
  static async open(owner: SessionOwner, site: CallSite, from?: Session): Promise<Session> {
    owner.engine.check();
    const number = owner.engine.nextSession();
    const ids = [...(from?.ids ?? [])];
    const done = await owner.engine.request('done', site, (native, ticket) => {
      if (from === undefined) native.openSession(ticket, number);
      else native.forkSession(ticket, number, from.number);
    });
    return new Session(owner, number, ids, done.kvTokens);
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
    return sessionKvOf(this.owner.engine.usage(), this.closing === undefined ? this.kvTokens : 0);
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
    const context = { vocab: info.vocab, hasDrafter: info.drafter !== null, eosTokenIds };
    const { native: settings, stop, parseSpecialTokens, signal } = resolveGenerate(options, context);
    if (stop.length > 0) this.needTokenizer('stop strings need');
    const { keep, ids } = this.plan(input, parseSpecialTokens);
    const prompt = keep + ids.length;
    if (prompt === 0) throw invalid('there is nothing to continue: the session and the input are empty');
    if (prompt >= info.contextTokens) {
      const room = `the context ends at ${info.contextTokens}`;
      throw new RedrafterError(
        'ERR_CONTEXT',
        `the session would hold ${prompt} tokens before the first new one; ${room}`,
      );
    }
    this.begin(signal);
    const last = ids[ids.length - 1] ?? this.ids[keep - 1];
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
        this.extend(generated);
        this.kvTokens = kvTokens;
        await this.end(site, held);
      },
      failed: (error) => this.recover(site, error, keep),
      shorten: async (kept) => {
        if (this.revision === revision && !this.busy && this.closing === undefined) await this.rewind(prompt + kept);
      },
    };
    const { logprobs, seed, bufferTokens } = settings;
    let generation: Generation;
    try {
      const detokenizer = tokenizer?.detokenizer(last);
      generation = new Generation(host, { detokenizer, stop, logprobs, seed, signal, bufferTokens });
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
    const before = this.ids.length;
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
      throw await this.recover(site, fromThrown(error), before);
    }
  }

  /**
   * A new session with the same tokens. The KV blocks are shared until one of the two writes to them. The session can be
   * forked again, or used, at once. Rejects with ERR_BUSY, ERR_DISPOSED.
   */
  async fork(): Promise<Session> {
    const site = new CallSite();
    this.begin();
    this.busy = false; // the engine carries out calls in order, so later ones do not touch what is forked
    return Session.open(this.owner, site, this);
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
    this.begin();
    try {
      await this.cut(site, tokens);
    } finally {
      this.busy = false;
    }
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

  /** Makes the engine's session as long as ours, then frees it for the next operation. */
  private async end(site: CallSite, held: number): Promise<void> {
    try {
      if (this.closing !== undefined) throw new RedrafterError('ERR_DISPOSED', 'the session was disposed of');
      if (held !== this.ids.length) await this.cut(site, this.ids.length);
    } catch (error) {
      throw site.mark(fromThrown(error));
    } finally {
      this.busy = false;
    }
  }

  /** Puts the session back to its first `before` tokens after an error; resolves to the error to report. */
  private async recover(site: CallSite, error: RedrafterError, before: number): Promise<RedrafterError> {
    this.ids.length = before;
    try {
      if (this.closing !== undefined) throw new RedrafterError('ERR_DISPOSED', 'the session was disposed of');
      await this.cut(site, before);
      return site.mark(error);
    } catch (later) {
      const disposed = fromThrown(later);
      return site.mark(disposed.code === 'ERR_DISPOSED' ? disposed : error);
    } finally {
      this.busy = false;
    }
  }

  private async cut(site: CallSite, tokens: number): Promise<void> {
    const work = this.owner.engine.request('done', site, (native, ticket) => {
      native.rewindSession(ticket, this.number, tokens);
    });
    this.ids.length = tokens;
    this.kvTokens = (await work).kvTokens;
  }

  private plan(input: unknown, parseSpecialTokens: boolean): Plan {
    if (typeof input === 'string') return { keep: this.ids.length, ids: this.encode(input, parseSpecialTokens) };
    const first: unknown = Array.isArray(input) ? input[0] : undefined;
    if (typeof first !== 'object' || first === null) return { keep: this.ids.length, ids: this.copy(input) };
    const tokenizer = this.needTokenizer('messages need');
    const ids = tokenizer.encodeChat(input as ChatMessage[], { parseSpecialTokens });
    let keep = 0;
    while (keep < ids.length && keep < this.ids.length && ids[keep] === this.ids[keep]) keep++;
    return { keep, ids: ids.subarray(keep) };
  }

  private encode(text: string, parseSpecialTokens: boolean): Int32Array {
    const tokenizer = this.needTokenizer('text needs');
    return tokenizer.encode(text, { parseSpecialTokens, addSpecialTokens: this.ids.length === 0 });
  }

  private copy(ids: unknown): Int32Array {
    return copyIds('input', ids, this.owner.info.vocab, this.owner.info.contextTokens);
  }

  private needTokenizer(what: string): Tokenizer {
    const { tokenizer } = this.owner;
    if (tokenizer !== null) return tokenizer;
    throw new RedrafterError('ERR_TOKENIZER', `${what} a tokenizer, and the model directory has no tokenizer.json`, {
      remedy: 'give token ids, or put tokenizer.json into the model directory',
    });
  }
}
