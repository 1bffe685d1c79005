/** What nobody can reach any more gives its memory and its threads back; what is still awaited stays. */
import { describe, expect, it } from 'vitest';

import { bundled } from '../kit/bundled.js';
import { exits, scriptRunner, type Outcome } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const run = scriptRunner(writeTinyModel());
const script = (body: string): Promise<Outcome> => run(body, { flags: ['--expose-gc'] });

describe('a session that nobody can reach', () => {
  it('gives its KV cache back', async () => {
    const body = `
      const m = await load();
      const before = JSON.stringify(m.kvUsage());
      await (async () => {
        const s = await m.createSession();
        await s.append([1, 2, 3]);
        await s.fork();
        await s.generate([1, 2, 3], { maxTokens: 20 }).result();
      })();
      console.log(m.kvUsage().sessions, m.kvUsage().usedBytes > 0);
      console.log(await collected(() => JSON.stringify(m.kvUsage()) === before));`;
    expect(await script(body)).toEqual(exits(0, '2 true\ntrue\n'));
  });

  it('does so while its model decodes for others, whose output is not touched', async () => {
    const body = `
      const m = await load({ kvTokens: 16384 });
      const plain = await (await m.createSession()).generate([1, 2, 3], long).result();
      const kept = await m.createSession();
      const running = kept.generate([1, 2, 3], long);
      let ended = false;
      const result = running.result().finally(() => { ended = true; });
      for (let i = 0; i < 5; i++) await (await m.createSession()).append([1, 2, 3]);
      const most = m.kvUsage().sessions;
      const gone = await collected(() => ended || m.kvUsage().sessions === 1);
      console.log(most, gone, ended, (await result).tokenIds.join() === plain.tokenIds.join());`;
    const { code, stdout, stderr } = await script(body);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^[67] true false true\n$/); // the first session may go early
  });

  it('can be disposed of before: nothing is closed twice', async () => {
    const body = `
      const m = await load();
      for (let i = 0; i < 10; i++) { const s = await m.createSession(); await s.append([i + 1]); if (i % 2) await s.dispose(); }
      const other = await m.createSession();
      console.log(await collected(() => m.kvUsage().sessions === 1));
      console.log((await other.generate([1], { maxTokens: 5, ignoreEos: true }).result()).tokenIds.length);`;
    expect(await script(body)).toEqual(exits(0, 'true\n5\n'));
  });
});

describe('a generation that pauses, and whose iterator nobody can reach', () => {
  const PAUSED = `
    const paused = async (m) => {
      const s = await m.createSession();
      await s.generate([1, 2, 3], { maxTokens: 1000, ignoreEos: true })[Symbol.asyncIterator]().next();
      while (m.queueUsage().pausedRequests < 1) await wait(5);
    };`;

  it('goes on to its end, and gives its KV cache back', async () => {
    const body = `${PAUSED}
      const m = await load();
      const before = JSON.stringify(m.kvUsage());
      await paused(m);
      console.log(await collected(() => JSON.stringify(m.kvUsage()) === before), m.stats.tokens);`;
    expect(await script(body)).toEqual(exits(0, 'true 1000\n'));
  });

  it('does not keep its model, if nobody can reach that either', async () => {
    const body = `${PAUSED}
      await (await load()).dispose();
      const threads = status('Threads');
      await (async () => paused(await load()))();
      console.log(status('Threads') > threads, await collected(() => status('Threads') <= threads));`;
    expect(await script(body)).toEqual(exits(0, 'true true\n'));
  });

  it('stays as long as its iterator does, and can be read on', async () => {
    const body = `
      const reader = await (async () => {
        const generation = (await (await load()).createSession()).generate([1, 2, 3], { maxTokens: 1000, ignoreEos: true });
        const reader = generation[Symbol.asyncIterator]();
        await reader.next();
        return reader;
      })();
      for (let i = 0; i < 50; i++) { gc(); await wait(5); }
      let tokens = 1;
      for await (const chunk of reader) tokens += chunk.tokenIds.length;
      console.log(tokens);`;
    expect(await script(body)).toEqual(exits(0, '1000\n'));
  });
});

describe('work that is awaited', () => {
  it('keeps its session, through a pending result() alone', async () => {
    const body = `
      const start = async () => (await (await load()).createSession()).generate([1, 2, 3], { maxTokens: 600, ignoreEos: true }).result();
      let turns = 0;
      const timer = setInterval(() => { gc(); turns++; }, 1);
      const pending = await (async () => [start(), start()])();
      const results = await Promise.all(pending);
      clearInterval(timer);
      console.log(results.map((r) => r.tokenIds.length).join(), turns > 3);`;
    expect(await script(body)).toEqual(exits(0, '600,600 true\n'));
  });

  it('keeps its session, through an iteration or an append alone', async () => {
    const body = `
      const timer = setInterval(gc, 1);
      let tokens = 0;
      for await (const chunk of (await (await load()).createSession()).generate([1, 2, 3], { maxTokens: 600, ignoreEos: true })) {
        tokens += chunk.tokenIds.length;
        await wait(1);
      }
      await (await (await load({ prefillChunk: 1 })).createSession()).append(Array(300).fill(7));
      clearInterval(timer);
      console.log(tokens);`;
    expect(await script(body)).toEqual(exits(0, '600\n'));
  });

  it('keeps its model while it loads, is disposed of, or a session is all that is left of it', async () => {
    const body = `
      const timer = setInterval(gc, 1);
      const session = await (async () => (await load()).createSession())();
      for (let i = 0; i < 20; i++) { await (await load()).dispose(); gc(); }
      await wait(50);
      console.log((await session.generate([1], { maxTokens: 9, ignoreEos: true }).result()).tokenIds.length);
      clearInterval(timer);`;
    expect(await script(body)).toEqual(exits(0, '9\n'));
  });
});

describe.runIf(process.platform === 'linux')('a model that nobody can reach', () => {
  it('ends its thread and frees its memory once it is idle', async () => {
    const body = `
      const large = () => Model.load(${JSON.stringify(bundled)}, { threads: 2 });
      await (await large()).dispose();
      const [threads, rss] = [status('Threads'), status('VmRSS')];
      const use = async (i) => {
        const m = await large();
        if (i % 2 === 0) return;
        const s = await m.createSession();
        await s.append([1, 2, 3]);
        await s.generate([], { maxTokens: 8 }).result();
        if (i % 4 === 1) for await (const chunk of s.generate([1], long)) break;
      };
      const loads = [0, 1, 2, 3, 4, 5, 6, 7].map(use);
      await Promise.all(loads.slice(0, 4));
      console.log(status('Threads') >= threads + 2);
      await Promise.all(loads);
      console.log(await collected(() => status('Threads') <= threads));
      console.log((status('VmRSS') - rss) >> 10, (status('VmHWM') - rss) >> 10);`;
    const { code, stdout, stderr } = await script(body);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [many, ended, memory = ''] = stdout.split('\n');
    expect([many, ended]).toEqual(['true', 'true']);
    if ('ASAN_OPTIONS' in process.env) return; // a sanitizer keeps what was freed
    const [after = NaN, most = NaN] = memory.split(' ').map(Number); // MB above one model, which takes 20
    expect(most).toBeGreaterThan(60);
    expect(after).toBeLessThan(most / 2);
  });

  it('does not wait for what is reachable from its own callbacks', async () => {
    const body = `
      await (await load()).dispose();
      const threads = status('Threads');
      await (async () => {
        let m;
        const signal = new AbortController().signal;
        m = await load({ onProgress: () => m, signal });
        const s = await m.createSession();
        m.back = s;
        await s.generate([1], { maxTokens: 3, signal }).result();
      })();
      console.log(await collected(() => status('Threads') <= threads));`;
    expect(await script(body)).toEqual(exits(0, 'true\n'));
  });

  it('is not collected while work runs that nobody awaits, and is afterwards', async () => {
    const body = `
      await (await load()).dispose();
      const threads = status('Threads');
      await (async () => { (await (await load()).createSession()).generate([1], { maxTokens: 400, ignoreEos: true }); })();
      console.log(await collected(() => status('Threads') <= threads));`;
    expect(await script(body)).toEqual(exits(0, 'true\n'));
  });
});
