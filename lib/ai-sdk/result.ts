import type { GenerationResult } from '../generation.js';
import type { DecodeStats } from '../stats.js';
import type { FinishReason, ProviderMetadata, Usage } from './spec.js';

/** What `providerMetadata.redrafter` holds of a generation that ended well. */
export interface RedrafterMetadata extends DecodeStats {
  /** The seed that was used; given as `seed`, it repeats the output. */
  seed: number;
}

/** The end of a generation, in the words of the specification. */
export interface Ending {
  finishReason: FinishReason;
  usage: Usage;
  providerMetadata: ProviderMetadata;
}

const UNIFIED = { eos: 'stop', stop: 'stop', length: 'length', abort: 'other', deadline: 'other' } as const;

export function endingOf({ finishReason, seed, stats }: GenerationResult): Ending {
  const { promptTokens, reusedTokens, tokens } = stats;
  return {
    finishReason: { unified: UNIFIED[finishReason], raw: finishReason },
    usage: {
      // Nothing is kept of a call's session, so nothing is written to a cache.
      inputTokens: {
        total: promptTokens,
        noCache: promptTokens - reusedTokens,
        cacheRead: reusedTokens,
        cacheWrite: 0,
      },
      outputTokens: { total: tokens, text: tokens, reasoning: 0 },
      raw: { promptTokens, reusedTokens, tokens },
    },
    providerMetadata: { redrafter: { ...stats, seed: Number(seed) } },
  };
}

/** The end of a generation that failed: how much it read and wrote is not known. */
export function failedEnding(code: string): Omit<Ending, 'providerMetadata'> {
  return {
    finishReason: { unified: 'error', raw: code },
    usage: {
      inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: undefined, text: undefined, reasoning: undefined },
    },
  };
}
