/**
 * Faults planted in the decode loop, each of which the comparison of drafting on and off must see. A suite that
 * passes with one of them in place would prove nothing.
 */
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, writeSafetensors, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { differingElements } from './compare.js';

interface DecodeOptions {
  fault: string;
  model: string;
  drafter: string;
  ids: Int32Array;
  maxTokens: number;
  beamWidth: number;
  beamLength: number;
  eos: Int32Array;
  repetition?: number;
  frequency?: number;
}

const decode = testing['decode'] as (options: DecodeOptions) => { ids: Int32Array; kv: Float32Array };

let prompts: number[][] = [];
const none = new Int32Array(0);

beforeAll(async () => {
  prompts = await promptIds();
});

/** Differences between plain and drafted decoding over a few prompts, with a fault in place. */
function differences(fault: string, base: Partial<DecodeOptions> = {}): { ids: number; kv: number } {
  const found = { ids: 0, kv: 0 };
  for (const ids of prompts.slice(0, 6)) {
    const options: DecodeOptions = {
      fault,
      model: bundled,
      drafter: trainedDrafters.gru,
      ids: Int32Array.from(ids.slice(0, 200)),
      maxTokens: 100,
      beamWidth: 8,
      beamLength: 5,
      eos: none,
      ...base,
    };
    const plain = decode({ ...options, beamWidth: 0 });
    const drafted = decode(options);
    if (plain.ids.join() !== drafted.ids.join()) found.ids++;
    if (differingElements(plain.kv, drafted.kv) > 0) found.kv++;
  }
  return found;
}

describe('the comparison of drafted with plain decoding', () => {
  it('finds nothing when nothing is wrong', () => {
    expect(differences('none')).toEqual({ ids: 0, kv: 0 });
  }, 60_000);

  it('sees a split of K that depends on the number of rows', () => {
    expect(differences('split-k').kv).toBeGreaterThan(0);
  }, 60_000);

  it('sees a missing sibling mask', () => {
    expect(differences('no-sibling-mask').ids).toBeGreaterThan(0);
  }, 60_000);

  it('sees accepted KV rows that were not moved', () => {
    expect(differences('no-compaction').kv).toBeGreaterThan(0);
  }, 60_000);

  it('sees a run that is not cut at the end of text', () => {
    const ids = Int32Array.from(prompts[0]?.slice(0, 200) ?? []);
    const free = decode({
      fault: 'none',
      model: bundled,
      drafter: trainedDrafters.gru,
      ids,
      maxTokens: 100,
      beamWidth: 0,
      beamLength: 0,
      eos: none,
    });
    const frequent = [...free.ids].slice(3, 12);
    const seen = frequent.some((id) => differences('no-eos-cut', { eos: Int32Array.of(id) }).ids > 0);
    expect(seen).toBe(true);
    expect(frequent.every((id) => differences('none', { eos: Int32Array.of(id) }).ids === 0)).toBe(true);
  }, 120_000);

  it('needs no op for penalties where there are none', () => {
    expect(differences('no-adjust')).toEqual({ ids: 0, kv: 0 });
  }, 60_000);

  it.each(['no-ancestors', 'sibling-penalties'])(
    'sees penalties on a wrong history: %s',
    (fault) => {
      const penalties = { repetition: 1.2, frequency: 0.5 };
      expect(differences('none', penalties).ids).toBe(0);
      expect(differences(fault, penalties).ids).toBeGreaterThan(0);
    },
    120_000,
  );

  it('sees ties that verification breaks the other way', () => {
    const directory = temporaryDirectory('ties');
    const model = join(directory, 'model');
    const shape = { vocab: 64, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 32, maxPositions: 512 };
    writeTinyLlama(model, shape, 3);
    writeTinyDrafter(join(directory, 'drafter'), 'gru', 64, 32, 3);
    // Heads of two ids each: every argmax is a tie.
    const random = new Random(4);
    const rows = Array.from({ length: 32 }, () => Array.from({ length: 32 }, () => random.normal()));
    writeSafetensors(model, tiedHead(model, rows));
    const base = { model, drafter: join(directory, 'drafter'), ids: Int32Array.of(1, 2, 3), maxTokens: 200 };
    expect(differences('none', base)).toEqual({ ids: 0, kv: 0 });
    expect(differences('last-wins', base).ids).toBeGreaterThan(0);
  }, 60_000);
});

/** The tensors of a tiny model again, with a head whose rows come in equal pairs. */
function tiedHead(directory: string, rows: number[][]): Parameters<typeof writeSafetensors>[1] {
  const checkpoint = testing.io.openCheckpoint(directory);
  const tensors: Parameters<typeof writeSafetensors>[1] = {};
  for (const { name, shape, bytes } of checkpoint.tensors) {
    const data = checkpoint.read(name, 0, bytes);
    if (data === null) throw new Error(name);
    const values = new Float32Array(data.slice().buffer);
    tensors[name] = { shape, fill: (i) => values[i] ?? NaN };
  }
  tensors['lm_head.weight'] = { shape: [64, 32], fill: (i) => rows[Math.floor(i / 64)]?.[i % 32] ?? NaN };
  checkpoint.close();
  return tensors;
}
