/**
 * Drafting never changes the output: the bundled model, drafting on against off. Every comparison is of ids, finish
 * reason, log-probabilities and KV bytes, and nothing may differ.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, writeTinyDrafter } from '../kit/checkpoint.js';
import { TestEngine, type GenerateOptions } from '../kit/native-engine.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const narrow: [number, number][] = [
  [1, 1],
  [1, 5],
  [2, 8],
  [4, 4],
  [8, 5],
  [10, 4],
  [16, 3],
];
const wide: [number, number][] = [
  [33, 2],
  [64, 1],
  [45, 5],
  [64, 8],
];

/** Greedy, and seeded sampling with every filter. */
const samplings: [string, GenerateOptions][] = [
  ['greedy', {}],
  ['T 0.3', { temperature: 0.3, seed: 1n }],
  ['T 0.7, top-p 0.9', { temperature: 0.7, topP: 0.9, seed: 0xffff_ffff_ffff_ffffn }],
  ['T 1, top-k 20', { temperature: 1, topK: 20, seed: 3n }],
  ['T 1.5, min-p 0.05', { temperature: 1.5, minP: 0.05, seed: 4n }],
  ['T 1, top-k 50, top-p 0.95, min-p 0.01', { temperature: 1, topK: 50, topP: 0.95, minP: 0.01, seed: 5n }],
];

let ids: number[][] = [];
let long: number[] = [];
let compared = 0;
let accepted = 0;
const engines: Record<string, TestEngine> = {};
const plain = new Map<string, Outcome>();

beforeAll(async () => {
  ids = await promptIds();
  long = ids.flat();
  const scratch = temporaryDirectory('drafters');
  for (const cell of ['sum', 'elman', 'gru'] as const) {
    writeTinyDrafter(join(scratch, `random-${cell}`), cell, 2048, 256, 7);
  }
  writeTinyDrafter(join(scratch, 'nan'), 'gru', 2048, 256, 7, true);
  engines['gru'] = await TestEngine.load(bundled, { drafter: trainedDrafters.gru });
  engines['elman'] = await TestEngine.load(bundled, { drafter: trainedDrafters.elman });
  for (const name of ['random-sum', 'random-elman', 'random-gru', 'nan']) {
    engines[name] = await TestEngine.load(bundled, { drafter: join(scratch, name), kvTokens: 4096 });
  }
});

afterAll(async () => {
  for (const engine of Object.values(engines)) await engine.close();
});

function engine(name: string): TestEngine {
  const found = engines[name];
  if (found === undefined) throw new Error(`no engine ${name}`);
  return found;
}

async function plainOutcome(c: Case): Promise<Outcome> {
  const known = plain.get(c.name);
  if (known !== undefined) return known;
  const outcome = await run(engine('gru'), c);
  plain.set(c.name, outcome);
  return outcome;
}

async function compare(drafter: string, c: Case, [beamWidth, beamLength]: [number, number]): Promise<Outcome> {
  const expected = await plainOutcome(c);
  const drafted = await run(engine(drafter), c, { beamWidth, beamLength });
  expectLossless(expected, drafted, `${drafter} ${beamWidth}x${beamLength} on ${c.name}`);
  compared += drafted.ids.length;
  accepted += drafted.ids.length - 1 - drafted.stats.rounds;
  return drafted;
}

function prompt(i: number): number[] {
  return ids[i % ids.length] ?? [1];
}

describe('the trained drafters', () => {
  for (const cell of ['gru', 'elman']) {
    for (const [sampling, options] of samplings) {
      it(`${cell}, ${sampling}: every beam shape gives the ids of plain decoding`, async () => {
        const cases = [
          ...narrow.flatMap((shape) => [0, 1].map((p) => ({ shape, p, maxTokens: 128 }))),
          ...wide.map((shape) => ({ shape, p: 2, maxTokens: 40 })),
        ];
        await Promise.all(
          cases.map(({ shape, p, maxTokens }) =>
            compare(
              cell,
              { name: `prompt ${p}, ${sampling}`, ids: prompt(p), options: { ...options, maxTokens, logprobs: 3 } },
              shape,
            ),
          ),
        );
      }, 120_000);
    }
  }

  it('340 beginnings of held-out text, greedy and sampled', async () => {
    await Promise.all(
      Array.from({ length: 340 }, async (_, i) => {
        const start = i * 23;
        const shape = narrow[i % 5] ?? [4, 4];
        const [sampling, options] = samplings[i % samplings.length] ?? ['greedy', {}];
        await compare(
          i % 2 === 0 ? 'gru' : 'elman',
          {
            name: `cut ${i}, ${sampling}`,
            ids: long.slice(start, start + 1 + ((i * 13) % 120)),
            options: { ...options, maxTokens: 290, eos: [0] },
          },
          shape,
        );
      }),
    );
  }, 300_000);

  it('accepted many drafted tokens, or nothing above was tested', () => {
    expect(accepted).toBeGreaterThan(compared / 3);
  });
});

describe('drafters that know nothing', () => {
  for (const name of ['random-sum', 'random-elman', 'random-gru', 'nan']) {
    it(`${name}: same output, only slower`, async () => {
      for (const shape of [
        [1, 5],
        [4, 4],
        [64, 8],
      ] as [number, number][]) {
        for (const [sampling, options] of samplings.slice(0, 3)) {
          await compare(
            name,
            { name: `prompt 0, ${sampling}, 48`, ids: prompt(0), options: { ...options, maxTokens: 48 } },
            shape,
          );
        }
      }
    }, 120_000);
  }
});

describe('prompt lengths', () => {
  it('1 to 1,500 tokens, across block and chunk edges', async () => {
    const lengths = [1, 2, 15, 16, 17, 31, 32, 33, 48, 255, 256, 257, 271, 511, 512, 513, 1023, 1024, 1025, 1500];
    await Promise.all(
      lengths.map((length, i) =>
        compare(
          i % 2 === 0 ? 'gru' : 'elman',
          { name: `${length} tokens`, ids: long.slice(0, length), options: { maxTokens: 80, logprobs: 0 } },
          narrow[i % 5] ?? [4, 4],
        ),
      ),
    );
  }, 240_000);

  it('any prefill chunk size leaves the same KV bytes', async () => {
    const c: Case = { name: 'chunks', ids: long.slice(0, 300), options: { maxTokens: 40 } };
    for (const prefillChunk of [1, 7, 16, 17, 64, 300]) {
      const chunked = await TestEngine.load(bundled, { drafter: trainedDrafters.gru, prefillChunk });
      expectLossless(await plainOutcome(c), await run(chunked, c), `chunk ${prefillChunk}`);
      expectLossless(await plainOutcome(c), await run(chunked, c, { beamWidth: 4, beamLength: 4 }), 'and drafted');
      await chunked.close();
    }
  }, 120_000);

  it('any number of threads gives the same bytes', async () => {
    const c: Case = { name: 'chunks', ids: long.slice(0, 300), options: { maxTokens: 40 } };
    for (const threads of [1, 2, 3, 5]) {
      const other = await TestEngine.load(bundled, { drafter: trainedDrafters.gru, threads });
      expectLossless(await plainOutcome(c), await run(other, c, { beamWidth: 8, beamLength: 5 }), `threads ${threads}`);
      await other.close();
    }
  }, 120_000);
});

describe('where decoding ends', () => {
  it('cuts at an id inside an accepted run, as end of text or as a stop id', async () => {
    let cutInside = 0;
    for (let p = 0; p < 6; p++) {
      const free = await plainOutcome({ name: `ends ${p}`, ids: prompt(p), options: { maxTokens: 96 } });
      for (const at of [0, 1, 5, 20, 41]) {
        const ending = free.ids[at];
        if (ending === undefined) continue;
        for (const options of [{ eos: [ending] }, { stop: [ending] }]) {
          const c: Case = {
            name: `ends ${p} at ${at} ${Object.keys(options).join()}`,
            ids: prompt(p),
            options: { maxTokens: 96, logprobs: 1, ...options },
          };
          const drafted = await compare('gru', c, [8, 5]);
          expect(drafted.ids.at(-1)).toBe(ending);
          expect(drafted.ids.indexOf(ending)).toBe(drafted.ids.length - 1);
          const freely = await run(
            engine('gru'),
            { ...c, options: { maxTokens: 96 } },
            { beamWidth: 8, beamLength: 5 },
          );
          const round = drafted.rounds.length - 1;
          if ((drafted.rounds[round]?.length ?? 0) < (freely.rounds[round]?.length ?? 0)) cutInside++;
        }
      }
    }
    expect(cutInside, 'ends that fell inside an accepted run').toBeGreaterThan(3);
  }, 120_000);

  it('stops at every maxTokens exactly', async () => {
    for (let maxTokens = 1; maxTokens <= 24; maxTokens++) {
      const drafted = await compare(
        'gru',
        { name: `max ${maxTokens}`, ids: prompt(3), options: { maxTokens } },
        [8, 5],
      );
      expect(drafted.ids.length).toBe(maxTokens);
      expect(drafted.reason).toBe('length');
    }
  }, 60_000);

  it('stops at the end of the context', async () => {
    const small = await TestEngine.load(bundled, { drafter: trainedDrafters.gru, contextTokens: 100 });
    for (const length of [50, 95, 98, 99]) {
      const c: Case = { name: '', ids: long.slice(0, length), options: { maxTokens: 1000 } };
      const expected = await run(small, c);
      const drafted = await run(small, c, { beamWidth: 8, beamLength: 5 });
      expectLossless(expected, drafted, `${length} of 100`);
      expect(drafted.tokens).toBe(100);
    }
    await expect(small.generate(await small.open(), long.slice(0, 100), {})).rejects.toMatchObject({
      code: 'ERR_CONTEXT',
    });
    await small.close();
  }, 60_000);
});

describe('sessions', () => {
  it('fork and rewind continue as a fresh session would', async () => {
    const e = engine('gru');
    const shape = { beamWidth: 4, beamLength: 5 };
    const before = e.kvUsage().freeBlocks;
    const first = await e.open();
    await e.append(first, prompt(0).slice(0, 37));
    const copy = await e.fork(first);
    const continued = await e.generate(first, prompt(1).slice(0, 9), { maxTokens: 60, ...shape });
    const other = await e.generate(copy, prompt(2).slice(0, 21), { maxTokens: 60, ...shape });
    for (const [session, tail, got] of [
      [first, prompt(1).slice(0, 9), continued],
      [copy, prompt(2).slice(0, 21), other],
    ] as const) {
      const c: Case = { name: '', ids: [...prompt(0).slice(0, 37), ...tail], options: { maxTokens: 60 } };
      const fresh = await run(e, c);
      expectLossless(fresh, { ...got, kv: await e.readKv(session) }, 'fork');
    }
    for (const keep of [70, 46, 33, 32, 31, 1]) {
      await e.rewind(first, keep);
      const again = await e.fork(first);
      const history = [...prompt(0).slice(0, 37), ...prompt(1).slice(0, 9), ...continued.ids].slice(0, keep);
      const got = await e.generate(again, [5, 6, 7], { maxTokens: 30, temperature: 0.8, seed: 9n, ...shape });
      const c: Case = { name: '', ids: [...history, 5, 6, 7], options: { maxTokens: 30, temperature: 0.8, seed: 9n } };
      expectLossless(await run(e, c), { ...got, kv: await e.readKv(again) }, `rewind ${keep}`);
      await e.closeSession(again);
    }
    await e.closeSession(first);
    await e.closeSession(copy);
    expect(e.kvUsage().freeBlocks).toBe(before);
  }, 60_000);

  it('an aborted or cut generation leaves the KV of what was kept', async () => {
    const e = engine('gru');
    const free = await run(e, { name: '', ids: prompt(4), options: { maxTokens: 120 } });
    for (const keep of [1, 2, 7, 30]) {
      const session = await e.open();
      let asked = false;
      const got = await e.generate(
        session,
        prompt(4),
        { maxTokens: 120, beamWidth: 8, beamLength: 5 },
        (soFar, abort) => {
          if (!asked && soFar.length >= keep) {
            asked = true;
            abort(keep);
          }
        },
      );
      expect(got.reason).toBe('stop');
      expect(got.tokens).toBe(prompt(4).length + keep);
      const kv = await e.readKv(session);
      const c: Case = { name: '', ids: prompt(4), options: { maxTokens: keep } };
      const fresh = await run(e, c);
      expectLossless(
        fresh,
        { ...fresh, ids: free.ids.slice(0, keep), tokens: got.tokens, kvTokens: got.kvTokens, kv },
        '',
      );
      await e.closeSession(session);
    }
  }, 60_000);
});

describe('the suite itself', () => {
  it('compared at least 100,000 tokens', () => {
    console.log(`lossless: ${compared} tokens compared, ${accepted} of them drafted and accepted, 0 differ`);
    expect(compared).toBeGreaterThan(100_000);
  });
});
