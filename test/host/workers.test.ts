/** Workers that end in the middle of everything, while the main thread goes on undisturbed. */
import { expect, it } from 'vitest';

import { INDEX, scriptRunner } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const script = scriptRunner(writeTinyModel());

/** Ways to end. All but the first three are ended from outside, at the message `now`. */
const WAYS = ['exit', 'throw', 'reject', 'loop', 'load', 'spin', 'prefill', 'dispose', 'collect', 'several'] as const;

const WORKER = `
  const { Model } = await import(${JSON.stringify(INDEX)});
  const { parentPort, workerData: { paths, way } } = await import('node:worker_threads');
  const now = () => parentPort.postMessage('now');
  setInterval(() => {}, 1000); // alive until it is ended
  const load = () => Model.load(paths.model, { drafter: paths.drafter, threads: 2, prefillChunk: 1, kvTokens: 1 << 15 });
  const long = { maxTokens: 4000, ignoreEos: true };
  if (way === 'load') { load(); load(); now(); }
  const m = await load();
  const s = await m.createSession();
  if (way === 'prefill') { s.append(Array(4000).fill(1)); setTimeout(now, 2); await new Promise(() => {}); }
  if (way === 'several') for (let i = 0; i < 4; i++) (await m.createSession()).generate([1, 2], long).result();
  let chunks = 0;
  for await (const chunk of s.generate([1, 2, 3], long)) {
    if (++chunks < 3) continue;
    if (way === 'exit') process.exit(0);
    if (way === 'throw') setImmediate(() => { throw new Error('mine'); });
    if (way === 'reject') throw new Error('mine');
    if (way === 'spin') { now(); for (;;); }
    if (way === 'dispose') { m.dispose(); s.dispose(); setInterval(now, 1000); now(); await new Promise(() => {}); }
    if (way === 'collect') for (let i = 0; i < 3; i++) await (await m.createSession()).append([i]);
    now();
  }`;

it('100 workers that end in mid-decode change nothing for the main thread', async () => {
  const count = 100;
  const body = `
    import { Worker } from 'node:worker_threads';
    const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(WORKER)}));
    const ways = ${JSON.stringify(WAYS)};
    const outcomes = {};
    const end = (way) => new Promise((resolve) => {
      const worker = new Worker(url, { workerData: { paths, way }, stderr: true });
      let ended;
      worker.once('message', () => { if (way !== 'exit' && way !== 'throw' && way !== 'reject') worker.terminate(); });
      worker.once('error', (error) => { ended = error.message; });
      worker.once('exit', (code) => {
        const outcome = way + ':' + (ended ?? code);
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        resolve();
      });
    });

    const m = await load();
    const decode = async () => {
      const s = await m.createSession();
      const { tokenIds } = await s.generate([1, 2, 3], { maxTokens: 300, ignoreEos: true }).result();
      await s.dispose();
      return tokenIds.join();
    };
    const alone = await decode();
    await Promise.all(ways.map(end));
    Object.keys(outcomes).forEach((key) => delete outcomes[key]);
    const threads = status('Threads');
    let [next, done, same, other] = [0, false, 0, 0];
    const lane = async () => { while (next < ${count}) await end(ways[next++ % ways.length]); };
    const workers = Promise.all([lane(), lane(), lane(), lane()]).then(() => { done = true; });
    while (!done) (await decode()) === alone ? same++ : other++;
    await workers;
    for (let i = 0; i < 100 && status('Threads') > threads; i++) await wait(10);
    console.log(JSON.stringify({ outcomes, other, same: same > 3, threads: status('Threads') <= threads }));`;
  const { code, signal, stdout, stderr } = await script(body.replaceAll("status('Threads')", STATUS), {
    timeout: 120_000,
  });
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' });
  const own: Partial<Record<(typeof WAYS)[number], string>> = { exit: '0', throw: 'mine', reject: 'mine' };
  const outcomes = WAYS.map((way) => [`${way}:${own[way] ?? '1'}`, count / WAYS.length]);
  expect(JSON.parse(stdout)).toEqual({
    outcomes: Object.fromEntries(outcomes) as unknown,
    other: 0,
    same: true,
    threads: true,
  });
}, 180_000);

/** Only Linux tells how many threads a process has. */
const STATUS = process.platform === 'linux' ? "status('Threads')" : '0';
