import type { Detokenizer } from './detokenizer.js';
import type { TicketMessage } from './engine.js';
import { aborted, fromThrown, type RedrafterError } from './errors.js';
import type { NativeStats } from './native.js';
import type { Generated, Slide } from './slide.js';
import { statsOf, type GenerationStats } from './stats.js';
import { StopMatcher } from './stop.js';

/**
 * Why generation ended: an end-of-sequence token; a stop token or stop string; `maxTokens` or the end of the
 * context; `abort()` or leaving the loop; `deadlineMs`.
 */
export type FinishReason = 'eos' | 'stop' | 'length' | 'abort' | 'deadline';

/** Log-probability of an emitted token under the raw target distribution, natural logarithm. */
export interface TokenLogprob {
  /** The token. */
  id: number;
  /** At most 0; -Infinity for a token of probability 0. */
  logprob: number;
  /** The most probable tokens at this position, most probable first: `[id, logprob]`. */
  top: [id: number, logprob: number][];
}

/** What one round gave. */
export interface Chunk {
  /** Text that became certain. Empty while a character or a possible stop string is unfinished. */
  text: string;
  /** New tokens. Empty only in a last chunk that brings held-back text. */
  tokenIds: number[];
  /** How many of the tokens were drafted; they come first. */
  accepted: number;
  /** One entry per token, when asked for. */
  logprobs?: TokenLogprob[];
}

/** The whole outcome. */
export interface GenerationResult {
  /** All tokens, including the EOS or stop token, or the token that completed a stop string. */
  tokenIds: number[];
  /** Their text without special tokens, cut before the stop string. Empty for a model without tokenizer. */
  text: string;
  /** Why generation ended. */
  finishReason: FinishReason;
  /** One entry per token, when asked for. */
  logprobs?: TokenLogprob[];
  /** The seed that was used. */
  seed: bigint;
  /** Counts and times. */
  stats: GenerationStats;
}

/** What a {@link Generation} asks of its session. */
export interface GenerationHost {
  /** Ends the running ticket, keeping that many generated tokens, or all for -1. */
  abort(keepTokens: number): void;
  /** So many tokens were read: the engine is to stay close to that, or, for -1, to wait for nobody. */
  read(tokens: number): void;
  /** Whether nothing will come unless more is read. */
  rest(resting: boolean): void;
  /** Generation ended: the session is to hold its prompt and these tokens; `held` is how many it holds now. */
  ended(generated: Generated, held: number, kvTokens: number, stats: NativeStats): Promise<void>;
  /** Generation failed: the session is to be as it was before. Resolves to the error to report. */
  failed(error: RedrafterError): Promise<RedrafterError>;
  /** Cuts an ended generation to its first `kept` tokens, unless the session has moved on. */
  shorten(generated: Generated, kept: number): Promise<void>;
}

/** Fixed inputs of a {@link Generation}. */
export interface GenerationInput {
  detokenizer: Detokenizer | undefined;
  stop: readonly string[];
  /** Whether log-probabilities were asked for, and how many alternatives. */
  logprobs: number;
  seed: bigint;
  /** Tokens of the prompt that were dropped. */
  dropped: number;
  signal: AbortSignal | undefined;
  /** Tokens that may be unread before generation pauses. */
  bufferTokens: number;
}

/** Lets generations go on whose iterators were collected and not ended. */
const droppedReaders = new FinalizationRegistry<WeakRef<Generation>>((generation) => {
  generation.deref()?.lose();
});

/**
 * A running generation: iterate it for chunks as they come, or await {@link Generation.result}, or both. Once it is iterated,
 * tokens come as they are read: with more than `bufferTokens` unread it pauses, keeping its part of the KV cache, until they
 * are read. Calling `result()` asks for everything: from then on it does not pause. Leaving the loop (`break`, `return()`) ends
 * generation, and the session then holds exactly the tokens that the loop saw.
 */
export class Generation implements AsyncIterable<Chunk> {
  private readonly ids: number[] = [];
  /** Tokens that came, kept or not. */
  private emitted = 0;
  private readonly slides: Slide[] = [];
  private readonly logprobs: TokenLogprob[] = [];
  private text = '';
  private readonly matcher: StopMatcher;
  private readonly queue: Chunk[] = [];
  private delivered = { tokens: 0, text: '' };
  /** Tokens to keep, once that is decided before the engine knows. */
  private cut: { tokens: number; reason: FinishReason } | undefined;
  private signalled: RedrafterError | undefined;
  /** Tokens that the engine knows to be read; undefined while it does not wait for readers. */
  private acknowledged: number | undefined = 0;
  /** Iterators that exist. */
  private readers = 0;
  /** Somebody waits for the whole. */
  private wantsAll = false;
  /** The engine was asked to end. */
  private ending = false;
  private returned = false;
  /** The engine gave its last message; `over` follows once the session is settled. */
  private answered = false;
  private over = false;
  private error: RedrafterError | undefined;
  private readonly outcome: Promise<GenerationResult>;
  private settle!: { resolve: (result: GenerationResult) => void; reject: (error: RedrafterError) => void };
  private wake: (() => void)[] = [];
  private readonly onSignal: () => void;

  /** @internal */
  constructor(
    private readonly host: GenerationHost,
    private readonly input: GenerationInput,
  ) {
    this.matcher = new StopMatcher(input.stop);
    this.outcome = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    // Whoever only iterates gets errors there; they must not count as unhandled here as well.
    this.outcome.catch(() => undefined);
    this.onSignal = () => {
      if (!this.answered && input.signal !== undefined) this.interrupt(aborted(input.signal));
    };
    input.signal?.addEventListener('abort', this.onSignal, { once: true });
  }

  /** The seed that sampling uses. */
  get seed(): bigint {
    return this.input.seed;
  }

  /**
   * The outcome; the same promise at each call. From the first call on generation does not wait for its readers. Rejects with ERR_ABORTED after the signal, ERR_DISPOSED, ERR_KV_FULL,
   * ERR_NUMERIC, ERR_OOM, ERR_INTERNAL. A rejection that nobody awaits is not reported as unhandled.
   */
  result(): Promise<GenerationResult> {
    this.wantsAll = true;
    if (this.acknowledged !== undefined) this.acknowledge(undefined);
    return this.outcome;
  }

  /** Ends generation within one round; `result()` resolves with what there is and `finishReason: 'abort'`. */
  abort(): void {
    this.stopAt(-1);
  }

  /**
   * Chunks from the first one that was not read yet; several loops share them. Ends by throwing the error that
   * `result()` rejects with, after the chunks before it.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Chunk, undefined> {
    const reader: AsyncIterableIterator<Chunk, undefined> = {
      next: () => this.next(),
      return: async () => {
        await this.leave();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
    this.readers++;
    droppedReaders.register(reader, new WeakRef(this));
    if (!this.wantsAll && !this.ending && this.acknowledged === undefined) this.acknowledge(this.delivered.tokens);
    return reader;
  }

  /** A reader is gone for good. @internal */
  lose(): void {
    if (--this.readers === 0 && this.acknowledged !== undefined) this.acknowledge(undefined);
  }

  /** Tells the engine how much was read, or that it need not wait. */
  private acknowledge(tokens: number | undefined): void {
    this.acknowledged = tokens;
    if (this.answered) return;
    this.host.read(tokens ?? -1);
    this.noteRest();
  }

  private noteRest(): void {
    const unread = this.ids.length - (this.acknowledged ?? this.ids.length);
    this.host.rest(!this.ending && unread > this.input.bufferTokens);
  }

  /** Takes a message of the ticket; returns true for the last one. @internal */
  message(message: TicketMessage): boolean {
    if (message.type !== 'tokens' && message.type !== 'finish') return false;
    if (message.type === 'finish') this.answered = true;
    else {
      if (message.dropped > 0) this.slides.push({ at: this.emitted, dropped: message.dropped });
      this.emitted += message.ids.length;
    }
    try {
      if (this.cut === undefined && this.signalled === undefined) {
        if (message.type === 'tokens') this.take(message);
        else this.finishText();
      }
    } catch (error) {
      this.interrupt(fromThrown(error)); // the tokenizer failed: that ends this generation, and nothing else
    }
    if (message.type === 'tokens') {
      if (this.readers === 0 && this.acknowledged !== undefined) this.acknowledge(undefined);
      else this.noteRest();
      return false;
    }
    void this.end(message);
    return true;
  }

  /** What it needs is gone. @internal */
  lost(error: RedrafterError): void {
    if (!this.answered) this.interrupt(error);
  }

  /** The ticket failed. @internal */
  fail(error: RedrafterError): void {
    this.answered = true;
    void this.host.failed(error).then((reported) => {
      this.close(() => {
        this.error = reported;
        this.settle.reject(reported);
      });
    });
  }

  /** Ends generation with an error. */
  private interrupt(error: RedrafterError): void {
    this.signalled = error;
    this.queue.length = 0;
    this.stopAt(-1);
  }

  private stopAt(keep: number): void {
    if (this.answered || this.cut !== undefined) return;
    this.ending = true;
    this.acknowledged = undefined;
    this.host.rest(false);
    this.host.abort(keep);
  }

  private take(message: Extract<TicketMessage, { type: 'tokens' }>): void {
    const { detokenizer } = this.input;
    let text = '';
    let count = 0;
    let stopped = false;
    for (const id of message.ids) {
      count++;
      this.ids.push(id);
      if (detokenizer === undefined) continue;
      const step = this.matcher.push(detokenizer.push(id));
      text += step.text;
      stopped = step.stopped;
      if (stopped) break;
    }
    this.text += text;
    const chunk: Chunk = {
      text,
      tokenIds: Array.from(message.ids.subarray(0, count)),
      accepted: Math.min(message.accepted, count),
    };
    if (message.logprobs !== undefined) {
      chunk.logprobs = chunk.tokenIds.map((id, i) => this.logprob(message, id, i));
      this.logprobs.push(...chunk.logprobs);
    }
    this.give(chunk);
    if (stopped) {
      this.stopAt(this.ids.length);
      this.cut = { tokens: this.ids.length, reason: 'stop' };
    }
  }

  private logprob(message: Extract<TicketMessage, { type: 'tokens' }>, id: number, row: number): TokenLogprob {
    const k = Math.max(this.input.logprobs, 0);
    const top = Array.from({ length: k }, (_, i): [number, number] => [
      message.topIds?.[row * k + i] ?? -1,
      message.topLogprobs?.[row * k + i] ?? -Infinity,
    ]);
    return { id, logprob: message.logprobs?.[row] ?? -Infinity, top };
  }

  /** Gives out what was held back for an unfinished character or stop string. */
  private finishText(): void {
    const step = this.matcher.push(this.input.detokenizer?.flush() ?? '');
    const text = step.text + (step.stopped ? '' : this.matcher.flush());
    if (text === '') return;
    this.text += text;
    this.give({ text, tokenIds: [], accepted: 0 });
  }

  private async end(message: Extract<TicketMessage, { type: 'finish' }>): Promise<void> {
    const kept = this.cut?.tokens ?? this.ids.length;
    this.ids.length = kept;
    if (this.logprobs.length > kept) this.logprobs.length = kept;
    const slides = this.slides.filter(({ at }) => at < kept);
    const droppedTokens = slides.reduce((sum, { dropped }) => sum + dropped, this.input.dropped);
    const stats = { ...message.stats, tokens: kept, droppedTokens };
    try {
      await this.host.ended({ ids: this.ids, slides: this.slides }, message.tokens, message.kvTokens, stats);
    } catch (error) {
      this.signalled = error as RedrafterError;
    }
    this.close(() => {
      this.error = this.signalled;
      if (this.error !== undefined) {
        this.settle.reject(this.error);
        return;
      }
      this.settle.resolve({
        tokenIds: [...this.ids],
        text: this.text,
        finishReason: this.cut?.reason ?? message.reason,
        ...(this.input.logprobs >= 0 ? { logprobs: [...this.logprobs] } : {}),
        seed: this.input.seed,
        stats: statsOf(stats),
      });
    });
  }

  private close(settle: () => void): void {
    this.input.signal?.removeEventListener('abort', this.onSignal);
    this.over = true;
    settle();
    this.awaken();
  }

  private give(chunk: Chunk): void {
    this.queue.push(chunk);
    this.awaken();
  }

  private awaken(): void {
    for (const wake of this.wake.splice(0)) wake();
  }

  private async next(): Promise<IteratorResult<Chunk, undefined>> {
    while (!this.returned) {
      const chunk = this.queue.shift();
      if (chunk !== undefined) {
        this.delivered.tokens += chunk.tokenIds.length;
        this.delivered.text += chunk.text;
        const { acknowledged } = this;
        const news = acknowledged === undefined ? 0 : this.delivered.tokens - acknowledged;
        if (news > 0 && news >= this.input.bufferTokens / 2) this.acknowledge(this.delivered.tokens);
        return { done: false, value: chunk };
      }
      if (this.error !== undefined) throw this.error;
      if (this.over) break;
      await new Promise<void>((resolve) => this.wake.push(resolve));
    }
    return { done: true, value: undefined };
  }

  /** The consumer went away: end with what it saw. */
  private async leave(): Promise<void> {
    if (this.returned) return;
    this.returned = true;
    const { tokens, text } = this.delivered;
    const unseen = this.ids.length > tokens;
    this.queue.length = 0;
    if (!this.answered && (this.cut === undefined || unseen)) {
      this.stopAt(tokens);
      this.cut = { tokens, reason: 'abort' };
      this.text = text;
    }
    await this.outcome.then(
      () => (unseen ? this.host.shorten({ ids: this.ids, slides: this.slides }, tokens) : undefined),
      () => undefined,
    );
    this.awaken();
  }
}
