/** One trial: a model decodes prompts one after another in one way. It runs in a process of its own (trial.ts). */
import { createHash } from 'node:crypto';

import { RedrafterError } from '../errors.js';
import { Model } from '../model.js';
import type { GenerateOptions, LoadOptions } from '../option-types.js';
import { inspect, version } from '../system.js';
import type { Prompt } from './prompts.js';
import type { EngineUsed } from './report.js';

export type Drafting = Pick<GenerateOptions, 'drafting' | 'beamWidth' | 'beamLength'>;

export interface TrialSpec {
  model: string;
  drafter: string | false;
  load: Pick<LoadOptions, 'device' | 'dtype' | 'drafterDtype' | 'threads'>;
  drafting: Drafting;
  prompts: Prompt[];
  tokens: number;
  temperature: number;
}

/** Sums over the prompts of a set. */
export interface SetFigures {
  set: string;
  prompts: number;
  /** Tokens of rounds. */
  tokens: number;
  rounds: number;
  draftedRounds: number;
  draftedNodes: number;
  draftMs: number;
  verifyMs: number;
  hostMs: number;
  prefillMs: number;
  /** Of all rounds, on the clock. */
  decodeMs: number;
}

export interface TrialResult {
  version: string;
  engine: EngineUsed;
  weightBytes: number;
  stepBytes: number;
  sets: SetFigures[];
  /** A hash of the ids of each prompt. */
  ids: string[];
}

/** Tokens that are generated before anything counts. */
const WARM_UP_TOKENS = 24;

/** Sums the figures of several sets. */
export function total(sets: readonly SetFigures[]): SetFigures {
  const sum: SetFigures = {
    ...{ set: 'all', prompts: 0, tokens: 0, rounds: 0, draftedRounds: 0, draftedNodes: 0 },
    ...{ draftMs: 0, verifyMs: 0, hostMs: 0, prefillMs: 0, decodeMs: 0 },
  };
  const keys = Object.keys(sum).filter((key) => key !== 'set') as Exclude<keyof SetFigures, 'set'>[];
  for (const figures of sets) for (const key of keys) sum[key] += figures[key];
  return sum;
}

/** The share of the elements that a plain step reads: an embedding of its own gives one row of many. */
export async function stepShare(directory: string): Promise<number> {
  const { tensors, config } = await inspect(directory);
  const elements = (shape: readonly number[]): number => shape.reduce((all, size) => all * size, 1);
  const all = tensors.reduce((sum, { shape }) => sum + elements(shape), 0);
  const embedding = tensors.find(({ name }) => /embed_tokens\.weight$/.test(name));
  const isTied = config['tie_word_embeddings'] === true || !tensors.some(({ name }) => name === 'lm_head.weight');
  return isTied || embedding === undefined ? 1 : 1 - elements(embedding.shape) / all;
}

function encode(model: Model, { input }: Prompt, tokens: number): number[] {
  if (typeof input === 'string' && model.tokenizer === null) {
    throw new RedrafterError('ERR_TOKENIZER', 'the model has no tokenizer, so prompts must be token ids');
  }
  const ids = typeof input === 'string' ? [...(model.tokenizer?.encode(input) ?? [])] : input;
  const most = model.info.contextTokens - tokens;
  if (most < 1) throw new RedrafterError('ERR_CONTEXT', `a context of ${model.info.contextTokens} tokens has no room`);
  return ids.slice(0, most);
}

export async function measure(spec: TrialSpec): Promise<TrialResult> {
  const { load, drafting, tokens, temperature } = spec;
  const model = await Model.load(spec.model, { drafter: spec.drafter, ...load });
  const ids: string[] = [];
  const sets = new Map<string, SetFigures>();
  const run = async (prompt: Prompt, seed: number, maxTokens: number): Promise<void> => {
    const session = await model.createSession();
    const options = { ...drafting, maxTokens, temperature, seed, ignoreEos: true };
    const { tokenIds, stats } = await session.generate(encode(model, prompt, tokens), options).result();
    await session.dispose();
    if (maxTokens < tokens) return;
    ids.push(createHash('sha256').update(tokenIds.join()).digest('hex').slice(0, 16));
    const { rounds, draftedRounds, draftedNodes, draftMs, verifyMs, hostMs, prefillMs } = stats;
    const figures: SetFigures = {
      ...{ set: prompt.set, prompts: 1, tokens: Math.round(stats.tokensPerStep * rounds), rounds, draftedRounds },
      ...{ draftedNodes, draftMs, verifyMs, hostMs, prefillMs, decodeMs: stats.totalMs - prefillMs },
    };
    const known = sets.get(prompt.set);
    sets.set(prompt.set, { ...total(known === undefined ? [figures] : [known, figures]), set: prompt.set });
  };
  try {
    const [first] = spec.prompts;
    if (first !== undefined) await run(first, 0, Math.min(WARM_UP_TOKENS, tokens - 1));
    for (const [seed, prompt] of spec.prompts.entries()) await run(prompt, seed, tokens);
    const { device, level, dtype, threads, memory } = model.info;
    return {
      version: version(),
      engine: { device, level, dtype, threads },
      weightBytes: memory.weightBytes,
      stepBytes: Math.round(memory.weightBytes * (await stepShare(spec.model))),
      sets: [...sets.values()],
      ids,
    };
  } finally {
    await model.dispose();
  }
}
