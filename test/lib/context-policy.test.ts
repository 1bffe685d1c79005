/** What happens when a context is full, as a program sees it: results, what the session holds, and what leaving leaves. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Model, type ContextPolicy, type GenerateOptions, type Session } from '../../lib/index.js';
import { turn, writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
const CONTEXT = 128;
const prompt = Array.from({ length: 50 }, (_, i) => (i * 37) % 256);
const slide: ContextPolicy = { slide: true, keepTokens: 10 };
const TAIL = (CONTEXT - 10) / 2;
const OPTIONS: GenerateOptions = { ignoreEos: true, contextPolicy: slide, drafting: false };

let model: Model;
beforeAll(async () => {
  model = await Model.load(paths.model, { drafter: paths.drafter, threads: 1, contextTokens: CONTEXT, kvTokens: 4000 });
});
afterAll(() => model.dispose());

/** What a session holds after these tokens, one by one; the rule in its plainest form. */
function heldAfter(tokens: readonly number[], start = 0): number[] {
  let held = tokens.slice(0, start);
  for (const id of tokens.slice(start)) {
    if (held.length >= CONTEXT) held = [...held.slice(0, 10), ...held.slice(-TAIL)];
    held.push(id);
  }
  return held;
}

async function whole(maxTokens: number): Promise<number[]> {
  const session = await model.createSession();
  const { tokenIds } = await session.generate(prompt, { ...OPTIONS, maxTokens }).result();
  await session.dispose();
  return tokenIds;
}

/** That the session continues as one that holds the same tokens. */
async function expectSound(session: Session): Promise<void> {
  const fresh = await model.createSession();
  const ids = [...session.tokenIds];
  const options = { ...OPTIONS, maxTokens: 5 };
  const [a, b] = [await session.generate([], options).result(), await fresh.generate(ids, options).result()];
  expect(a.tokenIds).toEqual(b.tokenIds);
  expect([...session.tokenIds]).toEqual([...fresh.tokenIds]);
  await fresh.dispose();
}

describe("'error', the default", () => {
  it("ends with 'length' at the end of the context, and refuses what goes beyond it", async () => {
    const session = await model.createSession();
    for (const contextPolicy of [undefined, 'error'] as const) {
      const options = { ignoreEos: true, maxTokens: 1000, ...(contextPolicy === undefined ? {} : { contextPolicy }) };
      const { tokenIds, finishReason, stats } = await session.generate(prompt, options).result();
      expect([tokenIds.length, finishReason, stats.droppedTokens]).toEqual([CONTEXT - 50, 'length', 0]);
      expect(() => session.generate([], options)).toThrow(expect.objectContaining({ code: 'ERR_CONTEXT' }) as Error);
      expect(session.tokens).toBe(CONTEXT);
      await session.rewind(0);
    }
  });
});

describe('slide', () => {
  it('goes on, and tells what was dropped and what is held', async () => {
    const session = await model.createSession();
    const { tokenIds, finishReason, stats } = await session.generate(prompt, { ...OPTIONS, maxTokens: 300 }).result();
    expect([tokenIds.length, finishReason]).toEqual([300, 'length']);
    expect([...session.tokenIds]).toEqual(heldAfter([...prompt, ...tokenIds]));
    expect(stats.droppedTokens).toBe(350 - session.tokens);
    expect(session.kv.tokens).toBe(session.tokens - 1);
    expect(stats.prefillMs).toBeLessThan(stats.totalMs);
    await expectSound(session);
  });

  it('drafted gives the same', async () => {
    const session = await model.createSession();
    const options = { ...OPTIONS, maxTokens: 300, drafting: true, beamWidth: 4 };
    const { tokenIds, stats } = await session.generate(prompt, options).result();
    expect(tokenIds).toEqual(await whole(300));
    expect(stats.droppedTokens).toBe(350 - session.tokens);
  });

  it('in two pieces gives what one gives', async () => {
    const expected = await whole(200);
    for (const first of [1, 77, 78, 79, 137, 138]) {
      const session = await model.createSession();
      const a = await session.generate(prompt, { ...OPTIONS, maxTokens: first }).result();
      const b = await session.generate([], { ...OPTIONS, maxTokens: 200 - first }).result();
      expect([first, ...a.tokenIds, ...b.tokenIds]).toEqual([first, ...expected]);
    }
  });

  it('takes a prompt that is longer than the context', async () => {
    const long = Array.from({ length: 1000 }, (_, i) => (i * 31) % 250);
    const session = await model.createSession();
    await session.append(long.slice(0, 100));
    const { stats } = await session.generate(long.slice(100), { ...OPTIONS, maxTokens: 1 }).result();
    expect([...session.tokenIds].slice(0, -1)).toEqual([...long.slice(0, 10), ...long.slice(-TAIL)]);
    expect([stats.droppedTokens, stats.promptTokens, stats.reusedTokens]).toEqual([1000 - 10 - TAIL, 10 + TAIL, 10]);
    await expectSound(session);
    expect(() => session.generate(long, { ignoreEos: true })).toThrow(/ERR_CONTEXT|1000 token ids/);
  });

  it('leaving a loop leaves what it saw, however far the engine has gone', async () => {
    for (const after of [3, 60, 79, 120, 180]) {
      for (const pause of [false, true]) {
        const session = await model.createSession();
        const seen: number[] = [];
        for await (const { tokenIds } of session.generate(prompt, { ...OPTIONS, maxTokens: 400 })) {
          seen.push(...tokenIds);
          if (pause) await turn(2);
          if (seen.length >= after) break;
        }
        expect([...session.tokenIds]).toEqual(heldAfter([...prompt, ...seen]));
        await expectSound(session);
        await session.dispose();
      }
    }
  });

  it('so does abort(), and an AbortSignal', async () => {
    for (const how of ['abort', 'signal']) {
      const session = await model.createSession();
      const controller = new AbortController();
      const run = session.generate(prompt, { ...OPTIONS, maxTokens: 100_000, signal: controller.signal });
      const seen: number[] = [];
      const reading = (async () => {
        for await (const { tokenIds } of run) {
          seen.push(...tokenIds);
          if (seen.length < 200) continue;
          if (how === 'abort') run.abort();
          else controller.abort();
        }
      })();
      if (how === 'signal') await expect(reading).rejects.toMatchObject({ code: 'ERR_ABORTED' });
      else await reading;
      const generated = how === 'abort' ? (await run.result()).tokenIds : await whole(2000);
      const held = [...session.tokenIds];
      if (how === 'abort') expect(held).toEqual(heldAfter([...prompt, ...generated]));
      else expect(generated.join()).toContain(held.slice(11).join()); // what was generated up to then
      await expectSound(session);
    }
  });

  it('a stop string that is found after a slide cuts there', async () => {
    const ids = await whole(300);
    const at = 90;
    const text = model.tokenizer?.decode(ids.slice(at - 4, at)) ?? '';
    const session = await model.createSession();
    const { tokenIds, finishReason } = await session
      .generate(prompt, { ...OPTIONS, maxTokens: 300, stop: text })
      .result();
    expect(finishReason).toBe('stop');
    expect([...session.tokenIds]).toEqual(heldAfter([...prompt, ...tokenIds]));
    await expectSound(session);
  });

  it('a failure leaves what was there before, also where the prompt had been cut', async () => {
    const long = Array.from({ length: 300 }, (_, i) => i % 200);
    const small = await Model.load(paths.model, { threads: 1, contextTokens: CONTEXT, kvTokens: 64 });
    const tight = await small.createSession();
    await tight.append(prompt);
    const holders = await Promise.all(Array.from({ length: 5 }, () => small.createSession()));
    let room = small.kvUsage().freeBlocks - 3;
    for (const holder of holders) {
      const blocks = Math.min(8, room);
      room -= blocks;
      if (blocks > 0) await holder.append(Array.from({ length: 16 * blocks }, (_, i) => (i * 7 + room) % 256));
    }
    await expect(tight.generate(long, { ...OPTIONS, maxTokens: 300 }).result()).rejects.toMatchObject({
      code: 'ERR_KV_FULL',
    });
    expect([...tight.tokenIds]).toEqual(prompt);
    for (const holder of holders) await holder.dispose();
    const again = await tight.generate([], { ignoreEos: true, maxTokens: 10 }).result();
    expect(again.tokenIds).toEqual((await whole(10)).slice(0, 10));
    await small.dispose();
  });

  it('is checked', async () => {
    const session = await model.createSession();
    for (const contextPolicy of [
      null,
      'slide',
      {},
      { slide: false },
      { slide: true, keepTokens: -1 },
      { slide: true, keepTokens: CONTEXT - 1 },
      { slide: true, keep: 1 },
      5,
    ])
      // prettier-ignore
      expect(() => session.generate(prompt, { contextPolicy } as GenerateOptions)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }) as Error,
      );
    const { stats } = await session
      .generate(prompt, { ...OPTIONS, maxTokens: 100, contextPolicy: { slide: true } })
      .result();
    expect(stats.droppedTokens).toBe(CONTEXT / 2);
  });
});
