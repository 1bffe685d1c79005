/** Every way to end a generation: signals at each stage, disposal from everywhere, loops that are left. */
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Model, RedrafterError, type Generation, type Session } from '../../lib/index.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { turn } from '../lib/tiny.js';

// The bundled model takes a good part of a second for all these tokens, so that it is still at work when it is ended.
const LONG = { maxTokens: 1900, ignoreEos: true };
const load = (): Promise<Model> =>
  Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1, kvTokens: 2048, prefillChunk: 1 });
let model: Model;
let session: Session;
let plain: number[];

beforeAll(async () => {
  await using first = await load();
  plain = (await (await first.createSession()).generate([1, 2, 3], LONG).result()).tokenIds;
}, 600_000); // under a sanitizer it takes minutes

beforeEach(async () => {
  model = await load();
  session = await model.createSession();
});

afterEach(() => model.dispose());

async function code(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'ok',
    (error: unknown) => (error instanceof RedrafterError ? error.code : String(error)),
  );
}

/** The session holds a prefix of what it would have said, and goes on from there. */
async function expectIntact(): Promise<void> {
  const held = session.tokens;
  expect([...session.tokenIds]).toEqual([1, 2, 3, ...plain].slice(0, held));
  const { tokenIds } = await session.generate(held === 0 ? [1, 2, 3] : [], { maxTokens: 5, ignoreEos: true }).result();
  expect(tokenIds).toEqual(plain.slice(Math.max(held - 3, 0), Math.max(held - 3, 0) + 5));
  await session.dispose();
  expect(model.kvUsage()).toMatchObject({ sessions: 0, usedBytes: 0 });
}

describe('a signal that fires', () => {
  it('before the start', async () => {
    expect(() => session.generate([1, 2, 3], { signal: AbortSignal.abort('why') })).toThrow(
      expect.objectContaining({ code: 'ERR_ABORTED', name: 'AbortError', cause: 'why' }) as Error,
    );
    await expectIntact();
  });

  it('in the same turn', async () => {
    const controller = new AbortController();
    const run = session.generate([1, 2, 3], { ...LONG, signal: controller.signal });
    controller.abort('why');
    await expect(run.result()).rejects.toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError', cause: 'why' });
    await expectIntact();
  });

  it('while the request waits for room in the cache', async () => {
    const other = await model.createSession();
    const holder = other.generate([9], LONG); // takes more than half of the cache
    const controller = new AbortController();
    const run = session.generate([1, 2, 3], { ...LONG, signal: controller.signal });
    await turn(1);
    controller.abort();
    expect(await code(run.result())).toBe('ERR_ABORTED');
    expect(session.tokens).toBe(3); // its prompt, as after every abort
    holder.abort();
    await holder.result();
    await other.dispose();
    await expectIntact();
  });

  it('in prefill', async () => {
    const prompt = [1, 2, 3, ...plain.slice(0, 1500)];
    const controller = new AbortController();
    const run = session.generate(prompt, { maxTokens: 100, ignoreEos: true, signal: controller.signal });
    await turn();
    controller.abort();
    expect(await code(run.result())).toBe('ERR_ABORTED');
    await expectIntact();
  });

  it.each([1, 2, 3, 5, 8, 13])('after %i chunks, inside the loop', async (chunks) => {
    const controller = new AbortController();
    let seen = 0;
    const loop = async (): Promise<void> => {
      for await (const chunk of session.generate([1, 2, 3], { ...LONG, signal: controller.signal })) {
        seen += chunk.tokenIds.length;
        if (--chunks === 0) controller.abort();
      }
    };
    expect(await code(loop())).toBe('ERR_ABORTED');
    expect(session.tokens).toBeGreaterThanOrEqual(3 + seen);
    await expectIntact();
  });

  it('by a timer between rounds', async () => {
    expect(await code(session.generate([1, 2, 3], { ...LONG, signal: AbortSignal.timeout(3) }).result())).toMatch(
      /^(ERR_ABORTED|ok)$/, // a fast machine may be done before
    );
    await expectIntact();
  });

  it('after the end, which changes nothing', async () => {
    const controller = new AbortController();
    const run = session.generate([1, 2, 3], { maxTokens: 5, ignoreEos: true, signal: controller.signal });
    expect((await run.result()).tokenIds).toEqual(plain.slice(0, 5));
    controller.abort();
    expect((await run.result()).tokenIds).toEqual(plain.slice(0, 5));
    const seen: number[] = [];
    for await (const { tokenIds } of run) seen.push(...tokenIds);
    expect(seen).toEqual(plain.slice(0, 5));
    await expectIntact();
  });

  it('in its own listener, which disposes of everything', async () => {
    const controller = new AbortController();
    const done: Promise<void>[] = [];
    controller.signal.addEventListener('abort', () => done.push(session.dispose(), model.dispose()));
    const run = session.generate([1, 2, 3], { ...LONG, signal: controller.signal });
    await turn();
    controller.abort();
    expect(await code(run.result())).toMatch(/^ERR_(ABORTED|DISPOSED)$/);
    await Promise.all(done);
  });

  it('for many generations at once', async () => {
    const controller = new AbortController();
    const sessions = await Promise.all(Array.from({ length: 8 }, () => model.createSession()));
    const runs = sessions.map((each, i) =>
      each.generate([i + 1], { maxTokens: 200, ignoreEos: true, signal: controller.signal }).result(),
    );
    await turn(2);
    controller.abort();
    for (const run of runs) expect(await code(run)).toMatch(/^(ERR_ABORTED|ok)$/);
    await Promise.all(sessions.map((each) => each.dispose()));
    await expectIntact();
  });
});

describe('disposal in mid-generation', () => {
  const WAYS: Record<string, (run: Generation) => unknown> = {
    'of the session, awaited': () => session.dispose(),
    'of the session, not awaited': () => void session.dispose(),
    'of the session, twice': () => Promise.all([session.dispose(), session.dispose()]),
    'of the model, awaited': () => model.dispose(),
    'of the model, not awaited': () => void model.dispose(),
    'of the model, twice': () => Promise.all([model.dispose(), model.dispose()]),
    'of both, session first': () => Promise.all([session.dispose(), model.dispose()]),
    'of both, model first': () => Promise.all([model.dispose(), session.dispose()]),
    'after abort()': (run) => {
      run.abort();
      return session.dispose();
    },
    'by the end of a block': async () => {
      await using scoped = session;
      expect(scoped.tokens).toBeGreaterThan(0);
    },
  };
  const expected = /^(ERR_DISPOSED|ok)$/; // ok only for abort(), whose result may come first

  it.each(Object.keys(WAYS))('%s', async (way) => {
    const run = session.generate([1, 2, 3], LONG);
    await turn();
    await WAYS[way]?.(run);
    expect(await code(run.result())).toMatch(way === 'after abort()' ? expected : /^ERR_DISPOSED$/);
    expect(await code(session.append([1]))).toBe('ERR_DISPOSED');
    await Promise.all([session.dispose(), model.dispose(), session.dispose(), model.dispose()]);
  });

  it.each(Object.keys(WAYS))('%s, from inside the loop', async (way) => {
    const run = session.generate([1, 2, 3], LONG);
    const loop = async (): Promise<void> => {
      for await (const chunk of run) if (chunk.tokenIds.length > 0) await WAYS[way]?.(run);
    };
    expect(await code(loop())).toMatch(way === 'after abort()' ? expected : /^ERR_DISPOSED$/);
    await Promise.all([session.dispose(), model.dispose()]);
  });

  it('while the request waits for room in the cache', async () => {
    const other = await model.createSession();
    const holder = other.generate([9], LONG);
    const run = session.generate([1, 2, 3], LONG);
    await turn(1);
    await session.dispose();
    expect(await code(run.result())).toBe('ERR_DISPOSED');
    await model.dispose();
    expect(await code(holder.result())).toBe('ERR_DISPOSED');
  });

  it('while a session is being made, forked, cut and extended', async () => {
    const work = [model.createSession(), session.fork(), session.dispose(), model.createSession()];
    const done = model.dispose();
    for (const each of work) expect(await code(each)).toMatch(/^(ERR_DISPOSED|ok)$/);
    await done;
    await expect(model.createSession()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('a loop', () => {
  it('that throws or returns leaves the session with what it saw', async () => {
    for (const how of ['throw', 'return', 'break'] as const) {
      const seen: number[] = [];
      const loop = async (): Promise<void> => {
        for await (const { tokenIds } of session.generate([1, 2, 3], LONG)) {
          seen.push(...tokenIds);
          if (seen.length < 10) continue;
          if (how === 'throw') throw new TypeError('mine');
          if (how === 'return') return;
          break;
        }
      };
      expect(await code(loop())).toBe(how === 'throw' ? 'TypeError: mine' : 'ok');
      expect([...session.tokenIds]).toEqual([1, 2, 3, ...seen]);
      await session.rewind(0);
    }
    await expectIntact();
  });

  it('that starts another generation on the same session gets ERR_BUSY and goes on', async () => {
    const seen: number[] = [];
    const codes = new Set<string>();
    for await (const { tokenIds } of session.generate([1, 2, 3], { maxTokens: 200, ignoreEos: true })) {
      if (seen.length === 0) codes.add(await code((async () => session.generate([4]).result())()));
      seen.push(...tokenIds);
    }
    expect([...codes]).toEqual(['ERR_BUSY']);
    expect(seen).toEqual(plain.slice(0, 200));
    await session.rewind(0);
    await expectIntact();
  });

  it('of two readers shares the chunks, and either may leave', async () => {
    const run = session.generate([1, 2, 3], LONG);
    const [a, b] = [run[Symbol.asyncIterator](), run[Symbol.asyncIterator]()];
    const first = await Promise.all([a.next(), b.next()]);
    await Promise.all([a.return?.(), b.return?.(), a.return?.()]);
    expect((await run.result()).finishReason).toBe('abort');
    const seen = first.flatMap(({ value }) => value?.tokenIds ?? []);
    expect([...session.tokenIds]).toEqual([1, 2, 3, ...seen]);
    await expectIntact();
  });

  it('whose reader never comes back does not hold up others', async () => {
    const iterator = session.generate([1, 2, 3], LONG)[Symbol.asyncIterator]();
    await iterator.next();
    const other = await model.createSession();
    expect((await other.generate([1, 2, 3], { maxTokens: 50, ignoreEos: true }).result()).tokenIds).toEqual(
      plain.slice(0, 50),
    );
    await other.dispose();
    await iterator.return?.();
    await expectIntact();
  });
});
