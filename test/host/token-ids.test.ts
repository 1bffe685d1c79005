/** Hostile token ids: every element that is not an id, and arrays that change while they are read. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { Model, RedrafterError, type Session } from '../../lib/index.js';
import { VOCAB, writeTinyModel } from '../lib/tiny.js';

const paths = writeTinyModel();
let model: Model;
let session: Session;

beforeAll(async () => {
  model = await Model.load(paths.model, { threads: 1, contextTokens: 100 });
  session = await model.createSession();
});

afterAll(() => model.dispose());

type Ids = readonly number[] | Int32Array;

async function code(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'ok';
  } catch (error) {
    return error instanceof RedrafterError ? error.code : String(error);
  }
}

/** What generate, append and stopTokenIds say to the ids; the session is then as it was. */
async function outcomes(ids: unknown): Promise<string[]> {
  await model.clearPrefixes();
  const used = model.kvUsage();
  const said = [
    await code(() => session.generate(ids as Ids, { maxTokens: 1, ignoreEos: true }).result()),
    await code(() => session.rewind(0)),
    await code(() => session.append(ids as Ids)),
    await code(() => session.rewind(0)),
    await code(() => session.generate([1], { maxTokens: 1, stopTokenIds: ids as number[] }).result()),
    await code(() => session.rewind(0)),
  ];
  await model.clearPrefixes();
  expect(model.kvUsage()).toEqual(used);
  expect(session.tokens).toBe(0);
  return said.filter((_, i) => i % 2 === 0);
}

const WRONG = ['ERR_INVALID_ARGUMENT', 'ERR_INVALID_ARGUMENT', 'ERR_INVALID_ARGUMENT'];

const NOT_IDS: unknown[] = [
  -1,
  VOCAB,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 32 + 5,
  2 ** 53,
  1.5,
  -1e-300,
  NaN,
  Infinity,
  '5',
  5n,
  true,
  null,
  undefined,
  {},
  [],
  [5],
  () => 5,
  { valueOf: () => 5 },
  Object(5),
];

it.each(NOT_IDS.map((id) => [id]))('id %s', async (id) => {
  for (const ids of [[id], [1, id], [1, id, 2], [...Array<number>(40).fill(3), id]]) {
    // An array of objects is a conversation, and one that is malformed.
    expect(await outcomes(ids)).toEqual(WRONG);
  }
});

it('ids that a typed array cannot hold exactly were never given: its elements are what counts', async () => {
  expect(await outcomes(Int32Array.of(-1))).toEqual(WRONG);
  expect(await outcomes(Uint32Array.of(2 ** 32 - 1))).toEqual(WRONG);
  expect(await outcomes(Int32Array.of(2 ** 32 + 5))).toEqual(['ok', 'ok', 'ok']); // wraps to 5 in the caller's array
  for (const other of [Float32Array.of(1), Uint8Array.of(1), BigInt64Array.of(1n), new DataView(new ArrayBuffer(4))]) {
    expect(await outcomes(other)).toEqual(WRONG);
  }
});

it('holes, sparse arrays and long ones', async () => {
  // eslint-disable-next-line no-sparse-arrays -- the hole is the case
  expect(await outcomes([1, , 2])).toEqual(WRONG);
  expect(await outcomes(new Array(3))).toEqual(WRONG);
  const TOO_LONG = ['ERR_CONTEXT', 'ERR_CONTEXT'];
  expect((await outcomes(new Array(2 ** 32 - 1))).slice(0, 2)).toEqual(TOO_LONG);
  expect((await outcomes(new Int32Array(101))).slice(0, 2)).toEqual(TOO_LONG);
  expect(await outcomes(new Int32Array(100))).toEqual(['ERR_CONTEXT', 'ok', 'ok']); // no room for a new token
  expect(await outcomes(new Int32Array(99))).toEqual(['ok', 'ok', 'ok']);
  expect(await outcomes([])).toEqual(['ERR_INVALID_ARGUMENT', 'ok', 'ok']);
  expect(await outcomes(new Int32Array(0))).toEqual(['ERR_INVALID_ARGUMENT', 'ok', 'ok']);
});

it('proxies and getters that throw let it through', async () => {
  const mine = new Proxy([1, 2], {
    get: (target, key, self): unknown => {
      if (key === '1') throw new RangeError('mine');
      return Reflect.get(target, key, self);
    },
  });
  expect(await outcomes(mine)).toEqual(Array(3).fill('RangeError: mine'));
});

it('a getter that disposes of the session, its model, or starts work of its own', async () => {
  const armed = (act: () => unknown): number[] => {
    const ids = [1, 2, 3];
    Object.defineProperty(ids, 1, { get: () => (void act(), 2) });
    return ids;
  };
  const own = await Model.load(paths.model, { threads: 1 });
  const busy = await own.createSession();
  expect(await code(() => busy.generate(armed(() => busy.append([4]))))).toBe('ERR_BUSY');
  await own.createSession(); // answered after the append
  expect([...busy.tokenIds]).toEqual([4]);
  expect(await code(() => busy.append(armed(() => busy.dispose())))).toBe('ERR_DISPOSED');
  const last = await own.createSession();
  expect(await code(() => last.generate(armed(() => own.dispose())))).toBe('ERR_DISPOSED');
  await own.dispose();
});

it('an array that shrinks or grows while it is read', async () => {
  const shrinking: number[] = [1, 2, 3];
  Object.defineProperty(shrinking, 0, { get: () => ((shrinking.length = 1), 1) });
  expect(await code(() => session.append(shrinking))).toBe('ERR_INVALID_ARGUMENT');
  const growing: number[] = [1, 2, 3];
  Object.defineProperty(growing, 0, { get: () => (growing.push(4), 1) });
  expect(await code(() => session.append(growing))).toBe('ok');
  expect([...session.tokenIds]).toEqual([1, 2, 3]);
  await session.rewind(0);
});

it('detached, resized and shared buffers', async () => {
  const detached = Int32Array.of(1, 2, 3);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  expect(await outcomes(detached)).toEqual(['ERR_INVALID_ARGUMENT', 'ok', 'ok']); // it has no elements left

  const resizable = new (
    ArrayBuffer as unknown as new (
      bytes: number,
      options: { maxByteLength: number },
    ) => ArrayBuffer & { resize(bytes: number): void }
  )(12, { maxByteLength: 4096 });
  const tracking = new Int32Array(resizable);
  const fixed = new Int32Array(resizable, 0, 3);
  tracking.set([1, 2, 3]);
  const run = session.append(tracking);
  resizable.resize(0); // after the call: the ids were copied
  await run;
  expect([...session.tokenIds]).toEqual([1, 2, 3]);
  await session.rewind(0);
  expect(await code(() => session.append(fixed))).toBe('ok'); // out of bounds: no elements
  resizable.resize(4000);
  expect((await outcomes(tracking)).slice(0, 2)).toEqual(['ERR_CONTEXT', 'ERR_CONTEXT']);

  const shared = new Int32Array(new SharedArrayBuffer(12));
  shared.set([1, 2, 3]);
  const work = session.append(shared);
  shared.fill(-1);
  await work;
  expect([...session.tokenIds]).toEqual([1, 2, 3]);
  await session.rewind(0);
});

it('a buffer that another thread changes during the call gives ids or an error, never anything else', async () => {
  const { Worker } = await import('node:worker_threads');
  const shared = new Int32Array(new SharedArrayBuffer(4 * 90));
  const source = `
    const ids = new Int32Array(require('node:worker_threads').workerData);
    for (let i = 0; ; i++) { ids[i % 80] = i % 3 === 0 ? -1 : i % 200; if (Atomics.load(ids, 89) === 1) break; }`;
  const worker = new Worker(source, { eval: true, workerData: shared.buffer });
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  const seen = new Set<string>();
  for (let i = 0; i < 200; i++) {
    seen.add(await code(() => session.append(shared.subarray(0, 80))));
    expect(session.tokenIds.every((id) => id >= 0 && id < VOCAB)).toBe(true);
    await session.rewind(0);
  }
  Atomics.store(shared, 89, 1);
  await ended;
  for (const outcome of seen) expect(['ok', 'ERR_INVALID_ARGUMENT']).toContain(outcome);
});
