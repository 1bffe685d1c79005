/** Every public method in every state: the outcome is the one in the table, and nothing is left behind. */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { Model, RedrafterError, type Chunk, type Generation, type Session } from '../../lib/index.js';
import { bundled } from '../kit/bundled.js';
import { temporaryDirectory } from '../kit/checkpoint.js';

const STATES = ['idle', 'prefill', 'decoding', 'paused', 'aborted', 'failed', 'closed', 'disposed'] as const;
type State = (typeof STATES)[number];

interface Scene {
  model: Model;
  session: Session;
  generation: Generation;
  iterator: AsyncIterator<Chunk, undefined>;
}

type SessionMethod = Exclude<keyof Session, 'readKv' | typeof Symbol.asyncDispose>;
type GenerationMethod = 'result' | 'abort' | 'seed' | 'next' | 'return';
type ModelMethod = Exclude<keyof Model, typeof Symbol.asyncDispose>;
type Method = `session.${SessionMethod}` | `generation.${GenerationMethod}` | `model.${ModelMethod}`;

const SAVED = join(temporaryDirectory('states'), 'saved.session');

/** What is done. Work that is still running is ended, so that no cell waits for thousands of tokens. */
const DO: Record<Method, (scene: Scene) => unknown> = {
  'session.generate': ({ session }) => session.generate([5], { maxTokens: 2 }).result(),
  'session.generateMany': async ({ session }) => {
    const samples = await session.generateMany([5], { n: 2, maxTokens: 2 });
    await Promise.all(samples.map((sample) => sample.result()));
  },
  'session.append': ({ session }) => session.append([5]),
  'session.fork': async ({ session }) => (await session.fork()).dispose(),
  'session.rewind': ({ session }) => session.rewind(0),
  'session.tokens': ({ session }) => session.tokens,
  'session.tokenIds': ({ session }) => session.tokenIds,
  'session.kv': ({ session }) => session.kv,
  'session.stats': ({ session }) => session.stats.generations,
  'session.save': ({ session }) => session.save(`${SAVED}.again`),
  'session.dispose': ({ session }) => session.dispose(),
  'generation.result': ({ generation }) => {
    const result = generation.result();
    generation.abort();
    return result;
  },
  'generation.abort': ({ generation }) => {
    generation.abort();
  },
  'generation.seed': ({ generation }) => generation.seed,
  'generation.next': async ({ generation, iterator }) => {
    generation.abort();
    while ((await iterator.next()).done !== true);
  },
  'generation.return': ({ iterator }) => iterator.return?.(),
  'model.createSession': async ({ model }) => (await model.createSession()).dispose(),
  'model.restoreSession': async ({ model }) => (await model.restoreSession(SAVED)).dispose(),
  'model.clearPrefixes': ({ model }) => model.clearPrefixes(),
  'model.stats': ({ model }) => model.stats.generations,
  'model.kvUsage': ({ model }) => model.kvUsage(),
  'model.queueUsage': ({ model }) => model.queueUsage(),
  'model.memoryUsage': ({ model }) => model.memoryUsage(),
  'model.info': ({ model }) => model.info.family,
  'model.tokenizer': ({ model }) => model.tokenizer?.encode('x'),
  'model.dispose': ({ model }) => model.dispose(),
};

type Row = Record<State, string>;
const row = (...outcomes: string[]): Row =>
  Object.fromEntries(STATES.map((state, i) => [state, outcomes.length === 1 ? outcomes[0] : outcomes[i]])) as Row;
const ALWAYS = row('ok');
const [BUSY, GONE, ABORTED, FULL] = ['ERR_BUSY', 'ERR_DISPOSED', 'ERR_ABORTED', 'ERR_KV_FULL'];
const ONE_AT_A_TIME = row('ok', BUSY, BUSY, BUSY, 'ok', 'ok', GONE, GONE);
const WHILE_MODEL = row('ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok', GONE);
const OUTCOME = row('ok', 'ok', 'ok', 'ok', ABORTED, FULL, GONE, GONE);

const EXPECTED: Record<Method, Row> = {
  'session.generate': ONE_AT_A_TIME,
  'session.append': ONE_AT_A_TIME,
  'session.generateMany': ONE_AT_A_TIME,
  'session.fork': ONE_AT_A_TIME,
  'session.rewind': ONE_AT_A_TIME,
  'session.tokens': ALWAYS,
  'session.tokenIds': ALWAYS,
  'session.kv': WHILE_MODEL,
  'session.stats': ALWAYS,
  'session.save': ONE_AT_A_TIME,
  'session.dispose': ALWAYS,
  'generation.result': OUTCOME,
  'generation.abort': ALWAYS,
  'generation.seed': ALWAYS,
  'generation.next': OUTCOME,
  'generation.return': ALWAYS,
  'model.createSession': WHILE_MODEL,
  'model.restoreSession': WHILE_MODEL,
  'model.clearPrefixes': WHILE_MODEL,
  'model.stats': ALWAYS,
  'model.kvUsage': WHILE_MODEL,
  'model.queueUsage': WHILE_MODEL,
  'model.memoryUsage': WHILE_MODEL,
  'model.info': ALWAYS,
  'model.tokenizer': ALWAYS,
  'model.dispose': ALWAYS,
};
const METHODS = Object.keys(EXPECTED) as Method[];

// The bundled model takes a second for all these tokens, so a generation is still running when a cell acts. 2000 do not fit the cache.
const LONG = { maxTokens: 1200, ignoreEos: true };
const load = (): Promise<Model> => Model.load(bundled, { threads: 1, kvTokens: 1400, prefillChunk: 1 });

async function swallow(work: Promise<unknown>): Promise<void> {
  await work.catch(() => undefined);
}

/** A session and its generation in a state. */
async function enter(state: State, model: Model): Promise<Scene> {
  const session = await model.createSession();
  const controller = new AbortController();
  const options = state === 'failed' ? { maxTokens: 2000 } : state === 'idle' ? { maxTokens: 3 } : LONG;
  const input = state === 'prefill' ? Array<number>(500).fill(7) : [1, 2, 3];
  const generation = session.generate(input, { ...options, signal: controller.signal });
  const iterator = generation[Symbol.asyncIterator]();
  if (state === 'idle' || state === 'failed') await swallow(generation.result());
  else if (state !== 'prefill') await iterator.next();
  if (state === 'decoding') void swallow(generation.result());
  if (state === 'aborted') {
    controller.abort();
    await swallow(generation.result());
  }
  if (state === 'closed') await session.dispose();
  if (state === 'disposed') await model.dispose();
  return { model, session, generation, iterator };
}

async function outcomeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'ok';
  } catch (error) {
    return error instanceof RedrafterError ? error.code : `not a RedrafterError: ${String(error)}`;
  }
}

let model: Model;
let works: number[];

async function tryOut(): Promise<number[]> {
  const session = await model.createSession();
  const { tokenIds } = await session.generate([1, 2, 3], { maxTokens: 3, ignoreEos: true }).result();
  await session.dispose();
  return tokenIds;
}

beforeAll(async () => {
  model = await load();
  works = await tryOut();
  const session = await model.createSession();
  await session.append([1, 2, 3]);
  await session.save(SAVED);
  await session.dispose();
});

afterAll(() => model.dispose());

/** Carries out one cell; what differs from the expectation, or undefined. */
async function breach(method: Method, state: State, expected: string): Promise<string | undefined> {
  const start = model.kvUsage();
  const scene = await enter(state, model);
  const outcome = await outcomeOf(() => DO[method](scene));
  const wrong = outcome === expected ? [] : [`${outcome} instead of ${expected}`];
  await Promise.all([scene.session.dispose(), scene.session.dispose()]);
  await swallow(scene.generation.result());
  await scene.iterator.return?.();
  if (state === 'disposed' || method === 'model.dispose') {
    await Promise.all([model.dispose(), model.dispose()]);
    model = await load();
  }
  const end = model.kvUsage();
  if (end.freeBlocks !== start.freeBlocks || end.sessions !== start.sessions) wrong.push('left something in the cache');
  if ((await tryOut()).join() !== works.join()) wrong.push('changed what the model says');
  return wrong.length === 0 ? undefined : `${method} in ${state}: ${wrong.join(', ')}`;
}

async function breaches(methods: readonly Method[], table: Record<Method, Row>): Promise<string[]> {
  const found: (string | undefined)[] = [];
  for (const method of methods) {
    for (const state of STATES) found.push(await breach(method, state, table[method][state]));
  }
  return found.filter((one) => one !== undefined);
}

it.each(METHODS)('%s', async (method) => {
  expect(await breaches([method], EXPECTED)).toEqual([]);
});

it('a wrong table is noticed', async () => {
  const wrong = { ...EXPECTED, 'session.fork': row('ok'), 'generation.result': row(GONE) };
  const found = await breaches(['session.fork', 'generation.result'], wrong);
  expect(found.filter((one) => one.startsWith('session.fork'))).toHaveLength(5);
  expect(found.filter((one) => one.startsWith('generation.result'))).toHaveLength(6);
  expect(found[0]).toBe('session.fork in prefill: ERR_BUSY instead of ok');
});
