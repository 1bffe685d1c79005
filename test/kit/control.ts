/**
 * What penalties, biases, bans and a minimal length make of a row of raw logits, and the whole decode loop with them,
 * written from their definitions and from nothing of the engine: each token is chosen from a fresh pass over all of the text.
 */
import type { GenerateOptions } from './native-engine.js';
import type { Ops } from './ops.js';
import { testing } from './testing.js';

export interface Control {
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  minTokens?: number;
  bannedTokenIds?: number[];
  logitBias?: Record<number, number>;
}

/** As the boundary takes them. */
export function nativeControl({ bannedTokenIds = [], logitBias = {}, ...rest }: Control): GenerateOptions {
  return {
    ...rest,
    bannedTokenIds: Int32Array.from(bannedTokenIds),
    biasTokenIds: Int32Array.from(Object.keys(logitBias), Number),
    biases: Float32Array.from(Object.values(logitBias)),
  };
}

const f = Math.fround;

const times = (list: readonly number[], id: number): number => list.filter((one) => one === id).length;

/** The logits to choose from; NaN for what must not be chosen. */
export function controlled(
  logits: Float32Array,
  control: Control,
  {
    prompt,
    generated,
    endings,
  }: { prompt: readonly number[]; generated: readonly number[]; endings: readonly number[] },
): Float32Array {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, minTokens = 0 } = control;
  return logits.map((logit, id) => {
    if (control.bannedTokenIds?.includes(id) === true) return NaN;
    if (generated.length < minTokens && endings.includes(id)) return NaN;
    const count = times(generated, id);
    let x = logit;
    if (count > 0 || prompt.includes(id)) x = x > 0 ? f(x / f(repetitionPenalty)) : f(x * f(repetitionPenalty));
    x = f(x - f(f(frequencyPenalty) * count));
    if (count > 0) x = f(x - f(presencePenalty));
    return f(x + f(control.logitBias?.[id] ?? 0));
  });
}

interface Decoded {
  ids: Int32Array;
  kv: Float32Array;
  logits: Float32Array;
}

const decode = testing['decode'] as (options: object) => Decoded;

/** The raw logits after a text, on the best level of the CPU. */
export function rawLogits(paths: { model: string; drafter: string }, ids: readonly number[]): Float32Array {
  const plain = { fault: 'none', maxTokens: 1, beamWidth: 0, beamLength: 0, eos: new Int32Array(0) };
  return decode({ ...plain, ...paths, ids: Int32Array.from(ids) }).logits;
}

/** The tokens that `generate` must give. */
export function reference(
  paths: { model: string; drafter: string },
  prompt: readonly number[],
  control: Control,
  options: { maxTokens: number; temperature?: number; topP?: number; seed?: bigint; endings?: readonly number[] },
): number[] {
  const { maxTokens, temperature = 0, topP = 1, seed = 0n, endings = [] } = options;
  const generated: number[] = [];
  while (generated.length < maxTokens) {
    const text = [...prompt, ...generated];
    const logits = controlled(rawLogits(paths, text), control, { prompt, generated, endings });
    const [id = -1] = (testing.ops satisfies Ops).sample('oracle', 1, {
      ...{ logits, vocab: logits.length, temperature: Float32Array.of(temperature), topK: Int32Array.of(0) },
      ...{ topP: Float32Array.of(topP), minP: Float32Array.of(0), seed: BigUint64Array.of(seed) },
      position: Int32Array.of(text.length),
    });
    generated.push(id);
    if (endings.includes(id)) break;
  }
  return generated;
}
