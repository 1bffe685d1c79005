/** What "lossless" is compared on: ids, finish, log-probabilities bit for bit, session length and KV bytes. */
import { expect } from 'vitest';

import type { GenerateOptions, Generated, TestEngine } from '../kit/native-engine.js';

export interface Case {
  name: string;
  ids: number[];
  options: GenerateOptions;
}

export interface Outcome extends Generated {
  kv: Float32Array;
}

/** Runs a case in a session of its own and reads the KV it leaves. */
export async function run(
  engine: TestEngine,
  { ids, options }: Case,
  drafting: GenerateOptions = {},
): Promise<Outcome> {
  const session = await engine.open();
  const generated = await engine.generate(session, ids, { ...options, ...drafting });
  const kv = await engine.readKv(session);
  await engine.closeSession(session);
  return { ...generated, kv };
}

/** Positions at which two arrays differ in bytes: NaN equals NaN, -0 differs from 0. */
export function differingElements(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Math.max(a.length, b.length);
  const x = new Uint32Array(a.buffer, a.byteOffset, a.length);
  const y = new Uint32Array(b.buffer, b.byteOffset, b.length);
  let count = 0;
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) count++;
  return count;
}

/** The differences between a drafted run and plain decoding, as a list that is empty when there are none. */
export function differences(plain: Outcome, drafted: Outcome): string[] {
  const found: string[] = [];
  const at = plain.ids.findIndex((id, i) => id !== drafted.ids[i]);
  if (at >= 0) found.push(`id ${at}: ${String(drafted.ids[at])} instead of ${String(plain.ids[at])}`);
  if (plain.ids.length !== drafted.ids.length) found.push(`${drafted.ids.length} ids instead of ${plain.ids.length}`);
  if (plain.reason !== drafted.reason) found.push(`finish ${drafted.reason} instead of ${plain.reason}`);
  if (plain.tokens !== drafted.tokens || plain.kvTokens !== drafted.kvTokens)
    found.push(`session ${drafted.tokens}/${drafted.kvTokens} instead of ${plain.tokens}/${plain.kvTokens}`);
  const kv = differingElements(plain.kv, drafted.kv);
  if (kv > 0) found.push(`${kv} KV values differ`);
  for (const key of ['logprobs', 'topLogprobs'] as const) {
    const n = differingElements(Float32Array.from(plain[key]), Float32Array.from(drafted[key]));
    if (n > 0) found.push(`${n} ${key} differ`);
  }
  if (plain.topIds.join() !== drafted.topIds.join()) found.push('topIds differ');
  return found;
}

export function expectLossless(plain: Outcome, drafted: Outcome, what: string): void {
  expect(differences(plain, drafted), what).toEqual([]);
}
