/** What a process sees: when it may exit, what happens when it exits early, and several threads of JavaScript. */
import { describe, expect, it } from 'vitest';

import { exits, INDEX, scriptRunner } from '../kit/script.js';
import { writeTinyModel } from './tiny.js';

const script = scriptRunner(writeTinyModel());

describe('a process', () => {
  it('exits by itself with an idle model and session', async () => {
    expect(await script(`const m = await load(); await m.createSession(); console.log('idle');`)).toEqual(
      exits(0, 'idle\n'),
    );
  });

  it('stays alive while work is pending', async () => {
    const body = `
      const s = await (await load()).createSession();
      s.generate([1, 2], { maxTokens: 200, ignoreEos: true }).result().then((r) => console.log(r.tokenIds.length));`;
    expect(await script(body)).toEqual(exits(0, '200\n'));
  });

  it('stays alive while a model loads', async () => {
    expect(await script(`load().then((m) => console.log(m.info.family));`)).toEqual(exits(0, 'llama\n'));
  });

  it('may exit in mid-generation, in mid-load and by an uncaught error', async () => {
    const start = `const s = await (await load()).createSession(); s.generate([1], long);`;
    expect(await script(`${start} setTimeout(() => process.exit(7), 5);`)).toEqual(exits(7));
    expect(await script(`load(); process.exit(8);`)).toEqual(exits(8));
    const thrown = await script(`${start} setTimeout(() => { throw new Error('mine'); }, 5);`);
    expect([thrown.code, thrown.signal]).toEqual([1, null]);
    expect(thrown.stderr).toContain('Error: mine');
  });

  it('hears of no rejection that is handled elsewhere', async () => {
    const body = `
      const m = await load();
      const s = await m.createSession();
      const run = s.generate([1], long); // nobody listens
      const other = (await m.createSession()).generate([1], long);
      setTimeout(() => m.dispose(), 5);
      try { for await (const chunk of other); } catch (error) { console.log(error.code); }`;
    expect(await script(body)).toEqual(exits(0, 'ERR_DISPOSED\n'));
  });

  it('survives a callback that throws while loading', async () => {
    const body = `
      try { await Model.load(paths.model, { onProgress() { throw new TypeError('mine'); } }); console.log('loaded'); }
      catch (error) { console.log(error.message); }`;
    expect(await script(body)).toEqual(exits(0, 'mine\n'));
  });

  it('can load several models, and lets the event loop turn meanwhile', async () => {
    const body = `
      const models = await Promise.all([load(), load(), load()]);
      let turns = 0;
      const timer = setInterval(() => turns++, 1);
      const outs = await Promise.all(models.map(async (m) => {
        const s = await m.createSession();
        return (await s.generate([1, 2, 3], { maxTokens: 2000, ignoreEos: true }).result()).tokenIds.join();
      }));
      clearInterval(timer);
      console.log(new Set(outs).size, turns > 5);
      await Promise.all(models.map((m) => m.dispose()));`;
    expect(await script(body)).toEqual(exits(0, '1 true\n'));
  });

  it('can use models in workers, and end a worker in mid-generation', async () => {
    const worker = `
      const { Model } = await import(${JSON.stringify(INDEX)});
      const { parentPort, workerData } = await import('node:worker_threads');
      const m = await Model.load(workerData, { threads: 1 });
      const s = await m.createSession();
      const r = await s.generate([1, 2, 3], { maxTokens: 50, ignoreEos: true }).result();
      s.generate([], { maxTokens: 4000, ignoreEos: true });
      parentPort.postMessage(r.tokenIds.join());`;
    const body = `
      import { Worker } from 'node:worker_threads';
      const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
      const outs = new Set();
      const m = await load();
      const mine = (await (await m.createSession()).generate([1, 2, 3], { maxTokens: 50, ignoreEos: true }).result());
      outs.add(mine.tokenIds.join());
      for (let round = 0; round < 3; round++) {
        const workers = Array.from({ length: 2 }, () => new Worker(url, { workerData: paths.model }));
        const messages = workers.map((w) => new Promise((ok, bad) => w.once('message', ok).once('error', bad)));
        for (const out of await Promise.all(messages)) outs.add(out);
        await Promise.all(workers.map((w) => w.terminate()));
      }
      console.log(outs.size);`;
    expect(await script(body)).toEqual(exits(0, '1\n'));
  });
});
