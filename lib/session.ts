import type { ChatMessage } from './chat.js';
import type { Engine, TicketMessage } from './engine.js';
import { aborted, CallSite, fromThrown, invalid, RedrafterError } from './errors.js';
import { Generation, type GenerationHost } from './generation.js';
import type { Grammars } from './grammar/grammars.js';
import { sessionKvOf, type SessionKv } from './kv.js';
import type { NativeEngine, NativeModelInfo } from './native.js';
import type {
  AppendOptions,
  GenerateManyOptions,
  GenerateOptions,
  SaveOptions,
  SessionOptions,
} from './option-types.js';
import {
  checkPath,
  copyIds,
  describe,
  INT_MAX,
  resolveAppend,
  resolveGenerate,
  resolveGenerateMany,
  resolveSave,
  resolveSession,
  seedOfSample,
  type GenerateContext,
  type ResolvedGenerate,
} from './options.js';
import { commonPrefix, fitPrompt, heldAfter } from './slide.js';
import { noStats, StatsTotal, type TotalStats } from './stats.js';
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
  grammars: Grammars;
}

/** Input as ids, and how much of the session stays before them. */
interface Plan {
  keep: number;
  ids: Int32Array;
}

/** The last message of a generation that was aborted before the engine had it. */
function endedBefore(promptTokens: number): Extract<TicketMessage, { type: 'finish' }> {
  const stats = { ...noStats(), promptTokens };
  return { type: 'finish', ticket: 0, reason: 'abort', stats, tokens: 0, kvTokens: 0 };
}

/** What a generation begins with. */
interface Prompt extends Plan {
  /** What stays of the session before the input. */
  before: number[];
  /** The prompt as a whole, and how many tokens were dropped to make it fit. */
  tokens: number[];
  dropped: number;
}

const reusedByReads = new WeakMap<Session, number>();

/** Tokens whose KV was there already when an input was last read by itself. */
export function reusedByRead(session: Session): number {
  return reusedByReads.get(session) ?? 0;
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
    const resolved = resolveGenerate(options, this.generateContext);
    const prompt = this.planGeneration(input, resolved);
    this.begin(resolved.signal);
    return this.run(site, prompt, resolved);
  }

  /**
   * Appends `input`, reads it once, and generates `n` continuations of it from forks that share its KV blocks. Resolves
   * when the input is read, to the {@link Generation}s, which stream side by side. Sample i is what `generate` gives with
   * the seed `seed` + i (modulo 2^64); without `seed` a random one is taken. With temperature 0 all are the same.
   *
   * The session then holds what it held and the input, none of the samples; they can be disposed of and used independently.
   * Each sample needs KV blocks for its own tokens, and waits for others to end where there are too few. Its blocks are
   * free again when it ends. `session.stats` counts the samples. Each pauses by itself when it is not read.
   *
   * Rejects as `generate` throws, and with ERR_KV_FULL; the session is then as it was before. ERR_QUEUE_FULL also comes when
   * the queue has no room for all samples: then none runs. What goes wrong in a sample later is that sample's error.
   */
  async generateMany(input: SessionInput, options?: GenerateManyOptions): Promise<Generation[]> {
    const site = new CallSite();
    const { n, ...resolved } = resolveGenerateMany(options, this.generateContext);
    const prompt = this.planGeneration(input, resolved);
    const before = [...this.ids];
    this.begin(resolved.signal);
    await this.read(site, prompt, resolved.signal);
    const { tokens, dropped } = prompt;
    const whole = { before: tokens, tokens, keep: tokens.length, ids: new Int32Array(0), dropped };
    let forks: Session[] = [];
    let samples: Generation[];
    try {
      forks = await this.splitTimes(site, n, resolved.signal);
      samples = forks.map((fork, i) => {
        const native = { ...resolved.native, seed: seedOfSample(resolved.native.seed, i) };
        fork.busy = true;
        return fork.run(site, whole, { ...resolved, native }, this);
      });
    } catch (error) {
      await Promise.all(forks.map((fork) => fork.dispose()));
      throw await this.recover(site, fromThrown(error), before, prompt.keep);
    }
    this.busy = false;
    return samples;
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
    await this.read(site, { keep: this.ids.length, ids }, signal);
    this.busy = false;
  }

  /**
   * A new session with the same tokens, and the same `prefixKey` if there is one. The KV blocks are shared until one of
   * the two writes to them. The session can be forked again, or used, at once. Rejects with ERR_BUSY, ERR_DISPOSED.
   */
  async fork(): Promise<Session> {
    const site = new CallSite();
    this.begin();
    this.busy = false; // the engine carries out calls in order, so later ones do not touch what is forked
    return this.split(site);
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

  private get generateContext(): GenerateContext {
    const { info, eosTokenIds } = this.owner;
    const { vocab, contextTokens, drafter } = info;
    return { vocab, contextTokens, hasDrafter: drafter !== null, eosTokenIds };
  }

  /** What a generation begins with, which leaves room for a token. */
  private planGeneration(input: SessionInput, resolved: ResolvedGenerate): Prompt {
    const { native, stop, grammar, parseSpecialTokens } = resolved;
    if (grammar !== undefined) this.needTokenizer('a grammar needs');
    if (stop.length > 0) this.needTokenizer('stop strings need');
    const { contextTokens } = this.owner.info;
    const slide = native.slideKeep < 0 ? undefined : { keep: native.slideKeep, tail: native.slideTail };
    const planned = this.plan(input, parseSpecialTokens, slide === undefined ? contextTokens : INT_MAX);
    const before = this.ids.slice(0, planned.keep);
    const whole = [...before, ...planned.ids];
    const tokens = fitPrompt(whole, contextTokens, slide);
    const keep = tokens === whole ? planned.keep : commonPrefix(tokens, before);
    return { before, tokens, keep, ids: Int32Array.from(tokens.slice(keep)), dropped: whole.length - tokens.length };
  }

  /** Generates. A fork made for one sample of `origin` counts there and ends with its generation. */
  private run(site: CallSite, prompt: Prompt, resolved: ResolvedGenerate, origin?: Session): Generation {
    const { engine, tokenizer, totals, grammars } = this.owner;
    const { native: settings, grammar, stop, signal } = resolved;
    const { slideKeep, logprobs, seed, bufferTokens } = settings;
    const { before, tokens, keep, ids, dropped } = prompt;
    const revision = this.revision;
    let ticket = 0;
    let matcher = 0;
    let read = 0;
    const opening = new AbortController();
    const host: GenerationHost = {
      abort: (keepTokens) => {
        if (ticket === 0) opening.abort();
        else engine.native.abort(ticket, keepTokens);
      },
      read: (count) => {
        read = count;
        if (ticket !== 0) engine.native.read(ticket, count);
      },
      rest: (resting) => {
        engine.rest(ticket, resting);
      },
      ended: async (generated, held, kvTokens, stats) => {
        grammars.close(matcher);
        (origin ?? this).totals.add(stats);
        totals.add(stats);
        this.kvTokens = kvTokens;
        if (origin !== undefined) await this.dispose();
        else if (ticket === 0) await this.end(site, -1, { ids: tokens, common: keep });
        else await this.end(site, held, heldAfter(tokens, generated, generated.ids.length, slideKeep));
      },
      failed: async (error) => {
        grammars.close(matcher);
        if (origin === undefined)
          return this.recover(site, error, before, slideKeep < 0 ? keep : Math.min(keep, slideKeep));
        await this.dispose();
        return site.mark(error);
      },
      shorten: async (generated, kept) => {
        if (this.revision !== revision || this.busy || this.closing !== undefined) return;
        await this.exclusive(site, heldAfter(tokens, generated, kept, slideKeep));
      },
    };
    let generation: Generation;
    const submit = (): void => {
      ticket = engine.submit(generation, (native, t) => {
        native.generate(t, this.number, ids, { ...settings, keepTokens: keep, matcher });
      });
      if (read !== 0) engine.native.read(ticket, read);
    };
    try {
      const detokenizer = tokenizer?.detokenizer(tokens[tokens.length - 1]);
      generation = new Generation(host, { detokenizer, stop, logprobs, seed, dropped, signal, bufferTokens });
      if (grammar === undefined) submit();
    } catch (error) {
      this.busy = false;
      throw site.mark(fromThrown(error));
    }
    if (grammar !== undefined) {
      // It is submitted once there is a matcher; until then it ends without the engine's having known of it.
      const endings = Int32Array.from([...settings.eosTokenIds, ...settings.stopTokenIds]);
      const work = grammars.open(grammar, endings, opening.signal, (error) => {
        generation.lost(error);
      });
      void work.then(
        (opened) => {
          matcher = opened;
          try {
            if (opening.signal.aborted) generation.message(endedBefore(tokens.length));
            else submit();
          } catch (error) {
            generation.fail(fromThrown(error));
          }
        },
        (error: unknown) => {
          if (opening.signal.aborted) generation.message(endedBefore(tokens.length));
          else generation.fail(fromThrown(error));
        },
      );
    }
    this.ids.length = keep;
    this.kvTokens = Math.min(this.kvTokens, keep);
    this.extend(ids);
    return generation;
  }

  /**
   * Makes the session hold its first `keep` tokens and `ids`, and waits for their keys and values. When that fails, the
   * session is free, and holds what it held before.
   */
  private async read(site: CallSite, { keep, ids }: Plan, signal: AbortSignal | undefined): Promise<void> {
    const before = [...this.ids];
    const append = (native: NativeEngine, ticket: number): void => {
      native.append(ticket, this.number, ids);
    };
    try {
      if (keep < before.length) this.put(site, before.slice(0, keep), keep).catch(() => undefined);
      const work = this.owner.engine.request('done', site, append, signal);
      this.extend(ids);
      const done = await work;
      this.kvTokens = done.kvTokens;
      reusedByReads.set(this, done.reusedTokens);
    } catch (error) {
      throw await this.recover(site, fromThrown(error), before, keep);
    }
  }

  /** A new session that holds the same. */
  private async split(site: CallSite): Promise<Session> {
    const { owner, number: from } = this;
    const number = owner.engine.nextSession();
    const ids = [...this.ids];
    const done = await owner.engine.request('done', site, (native, ticket) => {
      native.forkSession(ticket, number, from);
    });
    return new Session(owner, number, ids, done.kvTokens);
  }

  /** So many or none; none once the signal has fired, which later listeners would not hear of. */
  private async splitTimes(site: CallSite, n: number, signal: AbortSignal | undefined): Promise<Session[]> {
    const split = await Promise.allSettled(Array.from({ length: n }, () => this.split(site)));
    const forks = split.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const failed = split.find((each) => each.status === 'rejected');
    if (failed === undefined && signal?.aborted !== true) return forks;
    await Promise.all(forks.map((fork) => fork.dispose()));
    throw failed?.reason ?? aborted(signal as AbortSignal);
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
