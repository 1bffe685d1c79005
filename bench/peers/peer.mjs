// node-llama-cpp, within the process of a trial. Only what is used of it has a type here: it is installed beside this file alone.
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';

/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {{ validated: number, refuted: number, used: number }} Predictions */
/** @typedef {{ dispose(): void }} Predictor */
/**
 * @typedef {object} Sequence
 * @property {Predictions} tokenPredictions
 * @property {(tokens: number[]) => Promise<void>} evaluateWithoutGeneratingNewTokens
 * @property {(tokens: number[], options: object) => AsyncGenerator<number>} evaluate
 * @property {(input: (number | [number, object])[]) => Promise<{ next: { logits: Map<number, number> } }[]>} controlledEvaluate
 * @property {() => Promise<void>} clearHistory
 * @property {() => Promise<void>} dispose
 */
/** @typedef {{ getSequence(options?: { tokenPredictor?: Predictor }): Sequence, dispose(): Promise<void> }} Context */
/** @typedef {{ createContext(options: object): Promise<Context>, tokenize(text: string): number[] }} Loaded */
/** @typedef {{ loadModel(options: { modelPath: string }): Promise<Loaded>, dispose(): Promise<void>,
 *   systemInfo: string, llamaCppRelease: { release: string } }} Llama */
/**
 * @typedef {object} Library
 * @property {(options: object) => Promise<Llama>} getLlama
 * @property {new (options?: object) => Predictor & { updateInputTokens(tokens: number[]): void }} InputLookupTokenPredictor
 * @property {new (draft: Sequence, options?: object) => Predictor} DraftSequenceTokenPredictor
 */

const NAME = 'node-llama-cpp';
const GREEDY = { temperature: 0, yieldEogToken: true };
/** It accepts one predicted token per pass at most, and by default it never waits for a draft: README.md. */
const DRAFT = { minTokens: 1, maxTokens: 1 };
const LOOKUP = { predictionLength: { max: 1 } };

/** The whole version that is installed here, undefined for none. */
export function installedVersion() {
  try {
    /** @type {unknown} */
    const parsed = JSON.parse(readFileSync(new URL(`node_modules/${NAME}/package.json`, import.meta.url), 'utf8'));
    return /** @type {{ version: string }} */ (parsed).version;
  } catch {
    return undefined;
  }
}

/** @param {Job} job */
export async function loadPeer(job) {
  const library = /** @type {Library} */ (
    /** @type {unknown} */ (await /** @type {Promise<unknown>} */ (import(NAME)))
  );
  const { threads, rows, way } = job;
  // Neither compiles nor downloads. With `maxThreads` its contexts share the threads, as ours do, instead of each taking all.
  const llama = await library.getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    maxThreads: threads,
    logLevel: 'error',
    progressLogs: false,
  });
  const options = { contextSize: job.contextTokens, threads: { ideal: threads, min: way === 'draft' ? 1 : threads } };
  // As precise as ours where ids are compared in f32; else its own defaults, a cache in f16 and attention in one pass.
  const exact = { flashAttention: false, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32' };
  const model = await llama.loadModel({ modelPath: job.model });
  const context = await model.createContext({ ...options, sequences: rows, ...(job.exact ? exact : {}) });
  const draft =
    job.draft === undefined
      ? undefined
      : await (await llama.loadModel({ modelPath: job.draft })).createContext({ ...options, sequences: 1 });
  const draftSequence = draft?.getSequence();
  let [decoded, used] = [0, 0];

  /** @param {number[]} prompt @returns {Promise<Sequence>} one that has read all of the prompt but its last token */
  async function begin(prompt) {
    /** @type {Predictor | undefined} */
    let predictor;
    if (way === 'lookup') {
      const lookup = new library.InputLookupTokenPredictor(LOOKUP);
      lookup.updateInputTokens(prompt);
      predictor = lookup;
    } else if (draftSequence !== undefined) {
      predictor = new library.DraftSequenceTokenPredictor(draftSequence, DRAFT);
    }
    const sequence = context.getSequence(predictor === undefined ? {} : { tokenPredictor: predictor });
    await sequence.evaluateWithoutGeneratingNewTokens(prompt.slice(0, -1));
    return sequence;
  }

  /** @param {Sequence} sequence @param {number[]} last @param {number} tokens */
  async function generate(sequence, last, tokens) {
    /** @type {number[]} */
    const ids = [];
    for await (const id of sequence.evaluate(last, GREEDY)) {
      ids.push(id);
      if (ids.length === tokens) return { ids, end: performance.now() };
    }
    throw new Error(`${NAME} stopped after ${ids.length} of ${tokens} tokens`);
  }

  return {
    /** @param {number[][]} prompts decoded at the same time @param {number} tokens of each */
    async decode(prompts, tokens) {
      const sequences = [];
      for (const prompt of prompts) sequences.push(await begin(prompt));
      const start = performance.now();
      const done = await Promise.all(sequences.map((one, i) => generate(one, prompts[i]?.slice(-1) ?? [], tokens)));
      const end = Math.max(...done.map((one) => one.end));
      for (const sequence of sequences) {
        if (way !== 'plain') used += sequence.tokenPredictions.used;
        await sequence.dispose();
      }
      await draftSequence?.clearHistory();
      decoded += prompts.length * tokens;
      return { ids: done.map(({ ids }) => ids), ms: end - start };
    },
    /** @param {number[]} prompt */
    async firstToken(prompt) {
      const sequence = context.getSequence();
      const start = performance.now();
      const { ids, end } = await generate(sequence, prompt, 1);
      await sequence.dispose();
      return { ids, ms: end - start };
    },
    /** How much larger the largest logit after these tokens is than the second. @param {number[]} prompt */
    async margin(prompt) {
      const sequence = context.getSequence();
      const last = /** @type {[number, object]} */ ([prompt.at(-1) ?? 0, { generateNext: { logits: true } }]);
      const result = (await sequence.controlledEvaluate([...prompt.slice(0, -1), last])).at(-1);
      await sequence.dispose();
      const [first = NaN, second = NaN] = [...(result?.next.logits.values() ?? [])].sort((a, b) => b - a);
      return first - second;
    },
    /** Tokens per forward pass of the target, of what was decoded since this was called last. */
    take() {
      const figures = { tokensPerStep: decoded / (decoded - used), own: null };
      [decoded, used] = [0, 0];
      return figures;
    },
    /** @param {string} text */
    tokenize: (text) => model.tokenize(text),
    info: () => ({ llamaCpp: llama.llamaCppRelease.release, level: llama.systemInfo.trim() }),
    dispose: () => llama.dispose(),
  };
}
