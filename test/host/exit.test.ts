/** Every way in which a process can end while a model works, and what callbacks may do. */
import { describe, expect, it } from 'vitest';

import { exits, INDEX, NATIVE, scriptRunner } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const script = scriptRunner(writeTinyModel());

const START = `const m = await load(); const s = await m.createSession();`;

describe('a process exits with its own code', () => {
  const cases: Record<string, string> = {
    'inside a chunk loop': `${START} for await (const chunk of s.generate([1], long)) process.exit(7);`,
    'after a chunk, from a microtask': `
      ${START} for await (const chunk of s.generate([1], long)) Promise.resolve().then(() => process.exit(7));`,
    'in mid-decode of several sessions': `
      ${START}
      const all = await Promise.all([1, 2, 3, 4].map(() => m.createSession()));
      for (const each of all) each.generate([1, 2], long);
      setTimeout(() => process.exit(7), 10);`,
    'in mid-decode of constrained requests, whose masks a worker computes': `
      ${START}
      const grammar = { type: 'json' };
      for (let i = 0; i < 3; i++) (await m.createSession()).generate([1, 2], { ...long, grammar });
      for await (const chunk of s.generate([1], { ...long, grammar })) setTimeout(() => process.exit(7), 10);`,
    'before the grammar of a request is compiled': `
      ${START} s.generate([1], { ...long, grammar: { type: 'json' } }); setTimeout(() => process.exit(7), 1);`,
    'in mid-prefill': `
      const m = await load({ prefillChunk: 1 }); const s = await m.createSession();
      s.append(Array(4000).fill(1)); setTimeout(() => process.exit(7), 5);`,
    'in mid-load': `load(); setTimeout(() => process.exit(7), 1);`,
    'in mid-load of several models': `load(); load(); load(); setImmediate(() => process.exit(7));`,
    'when a model has just loaded': `load().then(() => process.exit(7));`,
    'in mid-dispose': `${START} s.generate([1], long); m.dispose(); process.exit(7);`,
    'when a model has just been disposed of': `${START} m.dispose().then(() => process.exit(7));`,
    'from a listener of abort': `
      ${START}
      const controller = new AbortController();
      controller.signal.addEventListener('abort', () => process.exit(7));
      s.generate([1], { ...long, signal: controller.signal });
      setTimeout(() => controller.abort(), 5);`,
    'when its exit listener starts work': `
      ${START}
      process.on('exit', () => { s.generate([1], long); m.dispose(); load(); });
      setTimeout(() => process.exit(7), 1);`,
    'when beforeExit starts work once': `
      ${START}
      process.once('beforeExit', () => s.generate([1], { maxTokens: 50 }).result().then(() => { process.exitCode = 7; }));`,
    'by an uncaught exception with a listener': `
      ${START}
      process.on('uncaughtException', (error) => process.exit(error.message === 'mine' ? 7 : 1));
      for await (const chunk of s.generate([1], long)) setTimeout(() => { throw new Error('mine'); });`,
    'by an unhandled rejection with a listener': `
      process.on('unhandledRejection', (error) => process.exit(error.code === 'ERR_DISPOSED' ? 7 : 1));
      ${START} m.dispose(); s.append([1]);`,
  };
  it.each(Object.keys(cases))('%s', async (name) => {
    expect(await script(cases[name] ?? '')).toEqual(exits(7));
  });

  it('exits when all that is left is a generation that pauses, as nobody reads it', async () => {
    const body = `${START}
      const reader = s.generate([1], long)[Symbol.asyncIterator]();
      await reader.next();
      while (m.queueUsage().pausedRequests < 1) await wait(5);
      process.exitCode = 7;`;
    expect(await script(body)).toEqual(exits(7));
  });

  it('dies of an exception thrown in a chunk loop', async () => {
    const { code, signal, stderr } = await script(
      `${START} for await (const chunk of s.generate([1], long)) throw new Error('mine');`,
    );
    expect([code, signal]).toEqual([1, null]);
    expect(stderr).toContain('Error: mine');
  });
});

describe('the callback that hears of messages', () => {
  // Here the boundary is used as it is, for what the library itself does not do.
  const ENGINE = `
    const { native } = await import(${JSON.stringify(NATIVE)});
    const options = { model: paths.model, drafter: null, device: 'cpu', threads: 1, dtype: 'auto', drafterDtype: 'auto', contextTokens: 0,
      kvTokens: 0, prefillChunk: 0, memoryBudgetBytes: 0, maxActiveRequests: 0, maxQueuedRequests: 0, maxQueuedTokens: 0, prefixCacheBytes: -1 };
    const none = new Int32Array(0);
    const decode = (engine, maxTokens) => {
      engine.openSession(1, 1);
      engine.generate(2, 1, Int32Array.of(1, 2, 3), { maxTokens, temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0n,
        matcher: 0, beamWidth: 0, beamLength: 0, adaptive: false, eosTokenIds: none, stopTokenIds: none, logprobs: -1, priority: 0,
        deadlineMs: 0, bufferTokens: 1e6, keepTokens: -1, slideKeep: -1, slideTail: 0, repetitionPenalty: 1,
        presencePenalty: 0, frequencyPenalty: 0, minTokens: 0, bannedTokenIds: none, biasTokenIds: none,
        biases: new Float32Array(0) });
    };
    /** Calls on(message, engine) for each message, and throws what it threw last. */
    const start = (on) => {
      const engine = new (native().Engine)(options, (messages) => {
        let thrown;
        for (const m of messages) try { on(m, engine); } catch (error) { thrown = { error }; }
        if (thrown !== undefined) throw thrown.error;
      });
      return engine;
    };`;

  it.each(['new Error("mine")', '"mine"', 'null', 'Object.freeze(new Error("mine"))'])(
    'may throw %s: that is an uncaught exception, and the engine goes on',
    async (thrown) => {
      const body = `${ENGINE}
        let caught = 0;
        process.on('uncaughtException', () => { caught++; });
        start((m, engine) => {
          if (m.type === 'ready') decode(engine, 50);
          if (m.type === 'finish') engine.close();
          if (m.type === 'closed') console.log(caught > 1);
          throw ${thrown};
        });`;
      expect(await script(body)).toEqual(exits(0, 'true\n'));
    },
  );

  it('ends the process by what it throws when nobody listens', async () => {
    const { code, signal, stderr } = await script(`${ENGINE} start(() => { throw new RangeError('mine'); });`);
    expect([code, signal]).toEqual([1, null]);
    expect(stderr).toContain('RangeError: mine');
    expect(stderr).not.toContain('DEP0168');
  });

  it.each(['ready', 'tokens', 'finish', 'closed'])('may end the process, at %s', async (type) => {
    const body = `${ENGINE}
      start((m, engine) => {
        if (m.type === ${JSON.stringify(type)}) process.exit(7);
        if (m.type === 'ready') decode(engine, 50);
        if (m.type === 'finish') engine.close();
      });`;
    expect(await script(body)).toEqual(exits(7));
  });

  it('may close the engine, use it after that, and collect it', async () => {
    const body = `${ENGINE}
      const codes = [];
      let ended = false;
      const ref = new WeakRef(start((m, engine) => {
        if (m.type === 'ready') decode(engine, 4000);
        if (m.type === 'tokens' && !ended) {
          ended = true;
          engine.close(); engine.close(); engine.unref(); engine.ref(); engine.abort(2, 0);
          gc();
        }
        if (m.type !== 'closed') return;
        for (const call of ['usage', 'openSession', 'readKv']) try { engine[call](1, 2); } catch (error) { codes.push(error.code); }
        engine.close(); engine.abort(1, 1); engine.ref(); engine.unref();
        gc();
      }));
      while (codes.length < 3) await wait(5);
      console.log(codes.join(), await collected(() => ref.deref() === undefined));`;
    expect(await script(body, { flags: ['--expose-gc'] })).toEqual(
      exits(0, 'ERR_DISPOSED,ERR_DISPOSED,ERR_DISPOSED true\n'),
    );
  });

  it.each(['ready', 'tokens'])('may end its worker, at %s', async (type) => {
    const worker = `
      import { parentPort, workerData } from 'node:worker_threads';
      const paths = workerData;
      ${ENGINE}
      start((m, engine) => {
        if (m.type === ${JSON.stringify(type)}) process.exit(3);
        if (m.type === 'ready') decode(engine, 4000);
      });`;
    const body = `
      import { Worker } from 'node:worker_threads';
      const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
      const codes = await Promise.all([1, 2, 3, 4].map(() => new Promise((ok) => new Worker(url, { workerData: paths }).once('exit', ok))));
      console.log(codes.join());`;
    expect(await script(body)).toEqual(exits(0, '3,3,3,3\n'));
  });

  it('may throw in a worker, which ends by it', async () => {
    const worker = `
      const { Model } = await import(${JSON.stringify(INDEX)});
      const { workerData: paths } = await import('node:worker_threads');
      ${ENGINE}
      start((m, engine) => { if (m.type === 'ready') decode(engine, 4000); else throw new RangeError('mine'); });`;
    const body = `
      import { Worker } from 'node:worker_threads';
      const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
      const error = await new Promise((ok) => new Worker(url, { workerData: paths }).once('error', ok));
      console.log(error.name, error.message);`;
    expect(await script(body)).toEqual(exits(0, 'RangeError mine\n'));
  });
});
