/** Several models at once, of several dtypes, in several threads, loaded side by side: each gives what it gives alone. */
import { expect, it } from 'vitest';

import { estimateMemory, Model } from '../../lib/index.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { exits, INDEX, scriptRunner } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const DTYPES = ['auto', 'f32', 'f16', 'bf16'] as const;
const load = (dtype: (typeof DTYPES)[number]): Promise<Model> =>
  Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1, dtype, kvTokens: 1024 });

async function decode(model: Model): Promise<string> {
  await using session = await model.createSession();
  const { tokenIds, logprobs } = await session
    .generate([1, 2, 3], { maxTokens: 60, ignoreEos: true, logprobs: 0 })
    .result();
  return JSON.stringify([tokenIds, logprobs]);
}

it('models of four dtypes work side by side', async () => {
  const alone: string[] = [];
  for (const dtype of DTYPES) {
    await using model = await load(dtype);
    alone.push(await decode(model));
  }
  expect(new Set(alone).size).toBeGreaterThan(1); // f16 rounds bf16 weights, so they are told apart
  const models = await Promise.all(DTYPES.map(load));
  expect(models.map((model) => model.info.dtype)).toEqual(['bf16', 'f32', 'f16', 'bf16']);
  for (let i = 0; i < 3; i++) expect(await Promise.all(models.map(decode))).toEqual(alone);
  // One that goes takes nothing from the others, even in the midst of their work.
  const rest = models.slice(1).map(decode);
  await models[0]?.dispose();
  expect(await Promise.all(rest)).toEqual(alone.slice(1));
  await Promise.all(models.map((model) => model.dispose()));
});

it('loads and estimates run side by side and agree', async () => {
  const work = DTYPES.flatMap((dtype) => [load(dtype), load(dtype)]);
  const estimates = await Promise.all(
    DTYPES.map((dtype) => estimateMemory(bundled, { drafter: trainedDrafters.gru, threads: 1, dtype, kvTokens: 1024 })),
  );
  const models = await Promise.all(work);
  for (const [i, model] of models.entries()) {
    expect(model.memoryUsage()).toEqual({ ...estimates[Math.floor(i / 2)], kvUsedBytes: 0 });
  }
  await Promise.all(models.map((model) => model.dispose()));
});

it('several workers load two models each at once, and end in the midst of it', async () => {
  const worker = `
    const { Model } = await import(${JSON.stringify(INDEX)});
    const { parentPort, workerData: paths } = await import('node:worker_threads');
    const options = (dtype) => ({ drafter: paths.drafter, threads: 2, dtype });
    const models = await Promise.all(['f32', 'bf16'].map((dtype) => Model.load(paths.model, options(dtype))));
    const outs = await Promise.all(models.map(async (m) => {
      const s = await m.createSession();
      return (await s.generate([1, 2, 3], { maxTokens: 50, ignoreEos: true }).result()).tokenIds.join();
    }));
    parentPort.postMessage(outs.join(' '));
    Model.load(paths.model, options('f16')); Model.load(paths.model, options('f32')); // ended while they load`;
  const body = `
    import { Worker } from 'node:worker_threads';
    const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
    const one = () => new Promise((ok, bad) => {
      const w = new Worker(url, { workerData: paths });
      w.once('error', bad).once('message', (out) => w.terminate().then(() => ok(out)));
    });
    const outs = new Set();
    for (let i = 0; i < 3; i++) for (const out of await Promise.all([one(), one(), one(), one()])) outs.add(out);
    console.log(outs.size, [...outs][0].split(' ').length);`;
  expect(await scriptRunner(writeTinyModel())(body)).toEqual(exits(0, '1 2\n'));
});

it('callbacks of a load may start other loads, and may end their own', async () => {
  const controller = new AbortController();
  const inner: Promise<Model>[] = [];
  const onProgress = (): void => {
    if (inner.length === 0) inner.push(load('f32'));
    controller.abort('enough');
  };
  const outer = Model.load(bundled, { dtype: 'f32', threads: 1, onProgress, signal: controller.signal });
  await expect(outer).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'enough' });
  const [model] = await Promise.all(inner);
  expect(model?.info.dtype).toBe('f32');
  await model?.dispose();
});
