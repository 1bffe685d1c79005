/** Random operations on sessions of one model: whatever was done, a session continues as a fresh one would. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { Model, type Session } from '../../lib/index.js';
import { Random } from '../kit/random.js';
import { turn, VOCAB, writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
let model: Model;

beforeAll(async () => {
  model = await Model.load(paths.model, { drafter: paths.drafter, threads: 1, kvTokens: 1 << 15, prefillChunk: 7 });
});

afterAll(() => model.dispose());

const OPTIONS = { ignoreEos: true };

/** What a fresh session gives after these tokens. */
async function expected(ids: Int32Array, tokens: number): Promise<number[]> {
  const session = await model.createSession();
  const { tokenIds } = await session.generate(ids, { ...OPTIONS, maxTokens: tokens, drafting: false }).result();
  await session.dispose();
  return tokenIds;
}

async function leaveLoop(session: Session, ids: number[], after: number, random: Random): Promise<void> {
  const seen: number[] = [];
  const shape = { beamWidth: random.integer(0, 9), beamLength: random.integer(0, 6) };
  const before = session.tokens + ids.length;
  for await (const chunk of session.generate(ids, { ...OPTIONS, ...shape, maxTokens: 30 })) {
    seen.push(...chunk.tokenIds);
    if (random.integer(0, 3) === 0) await turn();
    if (seen.length >= after) break;
  }
  expect([...session.tokenIds.subarray(before)]).toEqual(seen);
}

async function abortSoon(work: (signal: AbortSignal) => Promise<unknown>, random: Random): Promise<void> {
  const controller = new AbortController();
  const done = work(controller.signal).catch((error: unknown) => {
    expect(error).toMatchObject({ code: 'ERR_ABORTED' });
  });
  if (random.integer(0, 2) === 0) await turn();
  controller.abort();
  await done;
}

async function step(session: Session, random: Random): Promise<void> {
  const ids = Array.from({ length: 1 + random.integer(0, 20) }, () => random.integer(0, VOCAB));
  switch (random.integer(0, 7)) {
    case 0:
      await session.append(ids);
      break;
    case 1:
      await session.rewind(random.integer(0, session.tokens + 1));
      break;
    case 2:
      await session
        .generate(ids, { ...OPTIONS, maxTokens: 1 + random.integer(0, 20), temperature: random.integer(0, 2) })
        .result();
      break;
    case 3:
      await leaveLoop(session, ids, random.integer(0, 30), random);
      break;
    case 4:
      await abortSoon((signal) => session.generate(ids, { ...OPTIONS, signal }).result(), random);
      break;
    case 5:
      await abortSoon((signal) => session.append(ids, { signal }), random);
      break;
    default: {
      const run = session.generate(ids, { ...OPTIONS, maxTokens: 40 });
      await turn();
      run.abort();
      const { tokenIds } = await run.result();
      expect([...session.tokenIds].slice(session.tokens - tokenIds.length)).toEqual(tokenIds);
    }
  }
}

it.each([1, 2, 3])('sessions keep their state, seed %i', async (seed) => {
  const random = new Random(seed);
  let sessions = [await model.createSession()];
  for (let round = 0; round < 60; round++) {
    await Promise.all(sessions.map((session) => step(session, random)));
    const at = random.integer(0, sessions.length);
    const session = sessions[at] as Session;
    if (sessions.length < 4) sessions.push(await session.fork());
    else sessions = sessions.filter((other) => other !== session || void other.dispose());
    if (session.tokens > 0 && sessions.includes(session)) {
      const ids = session.tokenIds;
      const { tokenIds } = await session.generate([], { ...OPTIONS, maxTokens: 12 }).result();
      expect(tokenIds).toEqual(await expected(ids, 12));
      expect(session.kv.tokens).toBe(session.tokens - 1);
    }
    for (const each of sessions) if (each.tokens > 400) await each.rewind(100);
  }
  await Promise.all(sessions.map((session) => session.dispose()));
  expect(model.kvUsage()).toMatchObject({ sessions: 0, usedBytes: 0 });
});
