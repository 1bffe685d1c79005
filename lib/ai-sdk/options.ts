import { randomInt } from 'node:crypto';

import type { Grammar } from '../grammar/options.js';
import type { GenerateOptions, SessionOptions } from '../option-types.js';
import { OptionReader } from '../options.js';
import type { CallOptions, Warning } from './spec.js';

/**
 * What `providerOptions.redrafter` can hold, as in {@link GenerateOptions}. Other keys are refused with
 * ERR_INVALID_ARGUMENT.
 */
export type RedrafterOptions = Pick<
  GenerateOptions,
  'beamWidth' | 'beamLength' | 'drafting' | 'minP' | 'repetitionPenalty' | 'minTokens' | 'priority' | 'deadlineMs'
> & {
  /** As `logitBias` of {@link GenerateOptions}, as JSON has it. */
  logitBias?: Record<string, number>;
  /** As in {@link GenerateOptions}. */
  bannedTokenIds?: number[];
  /** As in {@link GenerateOptions}. */
  contextPolicy?:
    | 'error'
    | {
        /** As in `contextPolicy` of {@link GenerateOptions}. */
        slide: true;
        /** As in `contextPolicy` of {@link GenerateOptions}. */
        keepTokens?: number;
      };
  /** As in {@link SessionOptions}: calls of one key share what they compute of equal beginnings. */
  prefixKey?: string;
};

const GENERATE_KEYS = [
  'beamWidth',
  'beamLength',
  'drafting',
  'minP',
  'repetitionPenalty',
  'logitBias',
  'bannedTokenIds',
  'minTokens',
  'contextPolicy',
  'priority',
  'deadlineMs',
] as const satisfies (keyof RedrafterOptions)[];
const OWN_KEYS = [...GENERATE_KEYS, 'prefixKey'] as const;

/** A call's options as those of `session.generate`, which checks their values. Adds a warning for each without effect. */
export function toGenerateOptions(
  call: CallOptions,
  warnings: Warning[],
): GenerateOptions & { seed: NonNullable<GenerateOptions['seed']> } {
  warnings.push(...unsupported(call).map((feature): Warning => ({ type: 'unsupported', feature })));
  const own = new OptionReader(call.providerOptions?.redrafter, OWN_KEYS);
  const given = {
    maxTokens: call.maxOutputTokens,
    temperature: call.temperature,
    topP: call.topP,
    topK: call.topK,
    presencePenalty: call.presencePenalty,
    frequencyPenalty: call.frequencyPenalty,
    stop: call.stopSequences,
    signal: call.abortSignal,
    grammar: grammarOf(call.responseFormat),
    ...Object.fromEntries(GENERATE_KEYS.map((key) => [key, own.raw(key)])),
  };
  return {
    ...(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as GenerateOptions),
    // A number that a later call can be given: JSON and the AI SDK have no 64-bit integers.
    seed: call.seed ?? randomInt(2 ** 48 - 1),
  };
}

/** JSON as the response format, by its schema if there is one; else an object, as that is what is meant. */
/** Those of the session that a call gets. */
export function toSessionOptions(call: CallOptions): SessionOptions {
  const prefixKey = new OptionReader(call.providerOptions?.redrafter, OWN_KEYS).raw('prefixKey');
  return prefixKey === undefined ? {} : { prefixKey: prefixKey as string };
}

/** JSON as the response format, by its schema if there is one; else an object, as that is what is meant. */
function grammarOf(format: CallOptions['responseFormat']): Grammar | undefined {
  if (format?.type !== 'json') return undefined;
  return { type: 'json_schema', schema: format.schema ?? { type: 'object' } };
}

/** Names of the settings that ask for something that is not done. */
function unsupported(call: CallOptions): string[] {
  const asked: Record<string, boolean> = {
    tools: (call.tools ?? []).length > 0,
    toolChoice: call.toolChoice?.type === 'required' || call.toolChoice?.type === 'tool',
    reasoning: !['provider-default', 'none'].includes(call.reasoning ?? 'none'),
  };
  return Object.keys(asked).filter((name) => asked[name]);
}
