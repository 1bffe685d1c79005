/**
 * Recurrent drafters against PyTorch (train/golden.py), and their beam search against a search of all continuations.
 */
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import {
  temporaryDirectory,
  type TensorSpec,
  writeSafetensors,
  writeTinyDrafter,
  writeTinyLlama,
} from '../../kit/checkpoint.js';
import { fromBf16, fromF16 } from '../../kit/bf16.js';
import { TestEngine } from '../../kit/native-engine.js';
import { Random } from '../../kit/random.js';
import { testing } from '../../kit/testing.js';

const root = fileURLToPath(new URL('../../fixtures/golden', import.meta.url));
const target = join(root, 'llama');

interface Tree {
  token: Int32Array;
  parent: Int32Array;
  depth: Int32Array;
}

interface DrafterBindings {
  logprobs(
    level: string,
    target: string,
    drafter: string,
    hidden: Float32Array,
    tokens: Int32Array,
  ): { logprobs: Float32Array; ids: Int32Array };
  propose(
    level: string,
    target: string,
    drafter: string,
    hidden: Float32Array,
    root: number,
    width: number,
    length: number,
    budget?: number,
    least?: number,
  ): Tree;
}

const drafter = testing['drafter'] as DrafterBindings;

describe('golden draft log-probabilities', () => {
  for (const name of ['drafter-sum', 'drafter-elman', 'drafter-elman-proj', 'drafter-gru', 'drafter-gru-trimmed']) {
    for (const level of ['oracle', 'base', 'neon', 'avx2', 'avx512']) {
      it.skipIf(!available(level))(`${name} on ${level}`, () => {
        const golden = JSON.parse(readFileSync(join(root, name, 'golden.json'), 'utf8')) as {
          hidden: number[];
          tokens: number[][];
          logprobs: number[][][];
        };
        golden.tokens.forEach((tokens, i) => {
          const got = drafter.logprobs(
            level,
            target,
            join(root, name),
            Float32Array.from(golden.hidden),
            Int32Array.from(tokens),
          );
          const expected = golden.logprobs[i]?.flat() ?? [];
          expect(got.logprobs.length).toBe(expected.length);
          const worst = Math.max(...expected.map((value, at) => Math.abs(value - (got.logprobs[at] ?? NaN))));
          expect(worst).toBeLessThan(1e-4);
        });
      });
    }
  }
});

/** A drafter directory with its tensors renamed, some added. Weights become f32, which changes no value. */
function renamed(from: string, rename: (name: string) => string, extra: Record<string, TensorSpec> = {}): string {
  const directory = temporaryDirectory('alias');
  const checkpoint = testing.io.openCheckpoint(from);
  const tensors: Record<string, TensorSpec> = { ...extra };
  for (const { name, shape, dtype, bytes } of checkpoint.tensors) {
    const data = Uint8Array.from(checkpoint.read(name, 0, bytes) ?? []).buffer;
    const values = dtype === 'f32' ? new Float32Array(data) : new Uint16Array(data);
    const widen = dtype === 'bf16' ? fromBf16 : dtype === 'f16' ? fromF16 : (value: number) => value;
    tensors[rename(name)] = { shape, fill: (i) => widen(values[i] ?? NaN) };
  }
  checkpoint.close();
  writeSafetensors(directory, tensors);
  copyFileSync(join(from, 'config.json'), join(directory, 'config.json'));
  return directory;
}

describe("the names of Apple's format", () => {
  const from = join(root, 'drafter-elman-proj');
  const hidden = Float32Array.from({ length: 32 }, (_, i) => Math.sin(i));
  const tokens = Int32Array.of(3, 50, 7);
  const expected = drafter.logprobs('base', target, from, hidden, tokens).logprobs;
  const spellings: [string, (name: string) => string][] = [
    ['as they are', (name) => name],
    [
      'lm_heads and input_projs',
      (name) => name.replace('lm_head.', 'lm_heads.').replace('input_proj.', 'input_projs.'),
    ],
    ['bare 0.', (name) => name.replace('lm_head.', '0.').replace('input_proj.', 'input_projs.0.')],
  ];
  for (const [spelling, rename] of spellings) {
    it(`${spelling}: the same log-probabilities`, () => {
      const directory = renamed(from, rename);
      expect(drafter.logprobs('base', target, directory, hidden, tokens).logprobs).toEqual(expected);
    });
  }

  it('an emb_norm that nothing applies is ignored', () => {
    const directory = renamed(from, (name) => name, { 'emb_norm.weight': { shape: [32], fill: () => 3 } });
    expect(drafter.logprobs('base', target, directory, hidden, tokens).logprobs).toEqual(expected);
  });

  it('a missing recurrence is named', () => {
    const directory = renamed(from, (name) => name.replace('rnn_w', 'rnn_x'));
    expect(() => drafter.logprobs('base', target, directory, hidden, tokens)).toThrow(/"rnn_w.weight" is missing/);
  });
});

function available(level: string): boolean {
  return (testing['ops'] as { levels(): string[] }).levels().includes(level);
}

/** Beam search with a sort of all extensions, on the drafter's own log-probabilities. */
function searchBeams(
  directory: string,
  hidden: Float32Array,
  start: number,
  width: number,
  length: number,
): number[][] {
  let beams = [{ tokens: [start], score: 0 }];
  for (let step = 0; step < length; step++) {
    const all = beams.flatMap(({ tokens, score }) => {
      const { logprobs, ids } = drafter.logprobs('base', target, directory, hidden, Int32Array.from(tokens));
      const last = logprobs.subarray((tokens.length - 1) * ids.length);
      return [...ids].map((id, row) => ({ tokens: [...tokens, id], score: score + (last[row] ?? NaN) }));
    });
    beams = all.sort((a, b) => b.score - a.score).slice(0, width);
  }
  return beams.map(({ tokens }) => tokens);
}

/** The root paths of a tree's leaves, as strings. */
function paths(tree: Tree): Set<string> {
  const all = [...tree.token].map((token, node) => {
    const path = [token];
    for (let at = tree.parent[node] ?? -1; at >= 0; at = tree.parent[at] ?? -1) path.unshift(tree.token[at] ?? -1);
    return path.join(' ');
  });
  return new Set(all);
}

function prefixes(beams: number[][]): Set<string> {
  return new Set(beams.flatMap((beam) => beam.map((_, i) => beam.slice(0, i + 1).join(' '))));
}

describe('beam search', () => {
  for (const name of ['drafter-sum', 'drafter-elman-proj', 'drafter-gru', 'drafter-gru-trimmed']) {
    it(`${name}: the tree is the prefix tree of the best beams`, () => {
      const random = new Random(5);
      for (const [width, length] of [
        [1, 1],
        [1, 5],
        [3, 3],
        [8, 4],
        [40, 2],
      ] as const) {
        const hidden = Float32Array.from({ length: 32 }, () => random.normal());
        const start = random.integer(0, 96);
        const tree = drafter.propose('base', target, join(root, name), hidden, start, width, length);
        expect(paths(tree)).toEqual(prefixes(searchBeams(join(root, name), hidden, start, width, length)));
        tree.parent.forEach((parent, node) => {
          expect(parent).toBeLessThan(node);
          expect(tree.depth[node]).toBe(parent < 0 ? 0 : (tree.depth[parent] ?? -9) + 1);
        });
      }
    });
  }

  it('keeps the most probable paths within a budget, and none below the least probability', () => {
    const directory = join(root, 'drafter-gru');
    const random = new Random(6);
    const hidden = Float32Array.from({ length: 32 }, () => random.normal());
    /** Log-probability of a path of tokens after the root. */
    const score = (path: string): number => {
      const tokens = path.split(' ').map(Number);
      if (tokens.length === 1) return 0;
      const { logprobs, ids } = drafter.logprobs(
        'base',
        target,
        directory,
        hidden,
        Int32Array.from(tokens.slice(0, -1)),
      );
      return tokens.slice(1).reduce((sum, token, i) => sum + (logprobs[i * ids.length + ids.indexOf(token)] ?? NaN), 0);
    };
    const propose = (budget?: number, least?: number): Set<string> =>
      paths(drafter.propose('base', target, directory, hidden, 3, 8, 4, budget, least));
    const ranked = [...propose()].sort((a, b) => score(b) - score(a));
    expect(ranked.length).toBeGreaterThan(15);
    for (const budget of [1, 2, 9, ranked.length]) expect(propose(budget)).toEqual(new Set(ranked.slice(0, budget)));
    const between = (score(ranked[4] ?? '') + score(ranked[5] ?? '')) / 2;
    expect(propose(33, between)).toEqual(new Set(ranked.slice(0, 5)));
  });

  it('a drafter of NaN proposes the root alone', () => {
    const directory = temporaryDirectory('nan');
    writeTinyDrafter(directory, 'gru', 96, 32, 1, true);
    const tree = drafter.propose('base', target, directory, new Float32Array(32), 3, 8, 4);
    expect([...tree.token]).toEqual([3]);
  });

  it('a vocabulary smaller than the beam width is drafted as far as it goes', () => {
    const directory = temporaryDirectory('small');
    writeTinyLlama(
      join(directory, 'target'),
      { vocab: 5, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 32, maxPositions: 64 },
      1,
    );
    writeTinyDrafter(join(directory, 'drafter'), 'elman', 5, 32, 1);
    const random = new Random(1);
    const hidden = Float32Array.from({ length: 32 }, () => random.normal());
    const tree = drafter.propose('base', join(directory, 'target'), join(directory, 'drafter'), hidden, 0, 64, 3);
    expect([...tree.depth].filter((d) => d === 1).length).toBe(5);
    expect([...tree.depth].filter((d) => d === 3).length).toBe(64);
  });
});

describe('a drafter made for another target', () => {
  it('is refused with both numbers in the message', async () => {
    const directory = temporaryDirectory('wrong');
    writeTinyDrafter(join(directory, 'hidden'), 'gru', 96, 48, 1);
    writeTinyDrafter(join(directory, 'vocab'), 'gru', 95, 32, 1);
    await expect(TestEngine.load(target, { drafter: join(directory, 'hidden') })).rejects.toMatchObject({
      code: 'ERR_DRAFTER',
      message: expect.stringMatching(/hidden size of 48, the target has 32/) as string,
    });
    await expect(TestEngine.load(target, { drafter: join(directory, 'vocab') })).rejects.toMatchObject({
      code: 'ERR_DRAFTER',
      message: expect.stringMatching(/95 ids, the target has 96/) as string,
    });
  });
});
