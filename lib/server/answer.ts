import { randomUUID } from 'node:crypto';

import type { Chunk, FinishReason, GenerationResult, TokenLogprob } from '../generation.js';
import type { DecodeStats } from '../stats.js';
import type { Tokenizer } from '../tokenizer.js';
import { LogprobWriter } from './logprobs.js';
import type { Job } from './request.js';

/** What `usage` holds beside OpenAI's fields. Times are milliseconds; see `GenerationStats` for the figures. */
export interface UsageExtension {
  tokens_per_step: number;
  rounds: number;
  drafted_nodes: number;
  acceptance_by_depth: number[];
  tokens_per_second: number;
  queue_ms: number;
  time_to_first_token_ms: number;
  prefill_ms: number;
  draft_ms: number;
  verify_ms: number;
  host_ms: number;
  total_ms: number;
  /** The seed that was used, for `seed` of a later request. A string, as it has 64 bits. */
  seed: string;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
  redrafter: UsageExtension;
}

/** Generation that ended by itself; one that was aborted has no finish reason but an error. */
export function finishOf(reason: FinishReason): 'stop' | 'length' {
  return reason === 'length' || reason === 'deadline' ? 'length' : 'stop';
}

/** The objects of one answer, whole or in parts. */
export class Answer {
  private readonly head: object;
  /** By choice: each goes through its own tokens. */
  private readonly logprobs: LogprobWriter[];

  constructor(
    private readonly job: Job,
    model: { name: string; fingerprint: string; tokenizer: Tokenizer },
  ) {
    const chat = job.kind === 'chat';
    this.head = {
      id: `${chat ? 'chatcmpl' : 'cmpl'}-${randomUUID()}`,
      object: chat ? (job.stream ? 'chat.completion.chunk' : 'chat.completion') : 'text_completion',
      created: Math.floor(Date.now() / 1000),
      model: model.name,
      system_fingerprint: model.fingerprint,
      ...(job.serviceTier === undefined ? {} : { service_tier: job.serviceTier }),
    };
    this.logprobs = Array.from({ length: job.n }, () => new LogprobWriter(model.tokenizer, job.ids.at(-1)));
  }

  whole(results: readonly GenerationResult[], usage: Usage): object {
    const choices = results.map(({ text, tokenIds, finishReason, logprobs }, index) => {
      const content =
        this.job.kind === 'chat' ? { message: { role: 'assistant', content: text, refusal: null } } : { text };
      return this.choice(index, content, finishOf(finishReason), tokenIds, logprobs);
    });
    return { ...this.head, choices, usage };
  }

  /** The first event of each choice; a completion has none. */
  opening(): object[] {
    if (this.job.kind !== 'chat') return [];
    return this.logprobs.map((_, index) =>
      this.event([this.choice(index, { delta: { role: 'assistant', content: '' } }, null)]),
    );
  }

  /** The event of a chunk: none while its text is held back, unless its tokens are to be told. */
  part(index: number, { text, tokenIds, logprobs }: Chunk): object[] {
    const tell = tokenIds.length > 0 && (logprobs !== undefined || this.job.returnTokenIds);
    if (text === '' && !tell) return [];
    const content = this.job.kind === 'chat' ? { delta: { content: text } } : { text };
    return [this.event([this.choice(index, content, null, tokenIds, logprobs)])];
  }

  /** The last event of a choice. */
  ending(index: number, { finishReason }: GenerationResult): object {
    const content = this.job.kind === 'chat' ? { delta: {} } : { text: '' };
    return this.event([this.choice(index, content, finishOf(finishReason))]);
  }

  /** The events after those of all choices. */
  closing(usage: Usage): object[] {
    return this.job.includeUsage ? [{ ...this.event([]), usage }] : [];
  }

  private event(choices: object[]): object {
    return { ...this.head, choices, ...(this.job.includeUsage ? { usage: null } : {}) };
  }

  private choice(
    index: number,
    content: object,
    finish: 'stop' | 'length' | null,
    tokenIds: readonly number[] = [],
    logprobs?: readonly TokenLogprob[],
  ): object {
    const { kind, returnTokenIds } = this.job;
    const written =
      logprobs === undefined
        ? null
        : kind === 'chat'
          ? this.logprobs[index]?.chat(logprobs)
          : this.logprobs[index]?.completion(logprobs);
    return {
      index,
      ...content,
      logprobs: written,
      finish_reason: finish,
      ...(returnTokenIds ? { token_ids: tokenIds } : {}),
    };
  }
}

/** What a request used: `stats` of all its choices, which read the prompt once; `seed` of the first. */
export interface Used {
  promptTokens: number;
  cachedTokens: number;
  stats: DecodeStats;
  seed: bigint;
  queueMs: number;
  /** Spent reading the prompt before the choices began. */
  readMs: number;
}

export function usageOf({ promptTokens, cachedTokens, stats, seed, queueMs, readMs }: Used): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: stats.tokens,
    total_tokens: promptTokens + stats.tokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    redrafter: {
      tokens_per_step: stats.tokensPerStep,
      rounds: stats.rounds,
      drafted_nodes: stats.draftedNodes,
      acceptance_by_depth: stats.acceptanceByDepth,
      tokens_per_second: stats.tokensPerSecond,
      queue_ms: queueMs,
      time_to_first_token_ms: readMs + stats.timeToFirstTokenMs,
      prefill_ms: readMs + stats.prefillMs,
      draft_ms: stats.draftMs,
      verify_ms: stats.verifyMs,
      host_ms: stats.hostMs,
      total_ms: readMs + stats.totalMs,
      seed: seed.toString(),
    },
  };
}
