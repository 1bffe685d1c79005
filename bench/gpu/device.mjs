// The promise and the event loop, through the public API on a device, with nothing but Node.js: the bundled model decodes
// requests alone and together, greedy and sampled with seeds; plainly, drafted with given shapes, and with shapes that are
// chosen for each round. Ids must be the same, drafts must be accepted, and the event loop must stay free while the device
// works. How fast each of the three is, is told.
//
//   node bench/gpu/device.mjs [--device cuda] [--tokens N] [--seconds N] [--limit-ms N] [--plant] [--json FILE]
//
// --plant compares with other seeds, which must fail. Exits with 1 when something differs, no draft was accepted, or the
// 99th percentile of the event loop's delay reaches the limit (5) while a model decodes. An idle loop shows about 1 ms; where
// that reaches the limit already, the machine is too busy to tell, and says so.
import { readFileSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Model, version } from '../../dist/index.mjs';

const SIZES = [1, 2, 5, 16, 33];
const { values } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda' },
    tokens: { type: 'string', default: '48' },
    seconds: { type: 'string', default: '3' },
    'limit-ms': { type: 'string', default: '5' },
    plant: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const device = /** @type {'cuda'} */ (values.device);
const maxTokens = Number(values.tokens);
const limitMs = Number(values['limit-ms']);
const bundled = fileURLToPath(new URL('../../models/ts-declarations', import.meta.url));
/** @type {unknown} */
const parsed = JSON.parse(readFileSync(`${bundled}/prompts.json`, 'utf8'));
const prompts = /** @type {{ text: string }[]} */ (parsed);

/** @typedef {import('../../dist/index.mjs').GenerateOptions} GenerateOptions */

/** Request i: even ones greedy, odd ones sampled. @param {number} i @returns {GenerateOptions} */
const optionsOf = (i) => ({
  maxTokens,
  ignoreEos: true,
  ...(i % 2 === 0 ? {} : { temperature: 0.8, topP: 0.95, seed: i }),
});
/** How requests decode. @type {Record<string, (i: number) => GenerateOptions>} */
const MODES = {
  plain: () => ({ drafting: false }),
  fixed: (i) => ({ beamWidth: [8, 4, 1][i % 3] ?? 1, beamLength: 4 }),
  adaptive: () => ({}),
};

/** @param {Model} model @param {number} i @param {GenerateOptions} options */
async function generate(model, i, options) {
  const session = await model.createSession();
  const text = prompts[i % prompts.length]?.text.slice(0, 40 + 8 * i) ?? '';
  const result = await session.generate(text, options).result();
  await session.dispose();
  return result;
}

/** @param {Model} model */
async function compare(model) {
  /** @type {number[][]} */
  const alone = [];
  for (let i = 0; i < Math.max(...SIZES); i++) {
    const options = optionsOf(i);
    if (values.plant && options.seed !== undefined) options.seed = Number(options.seed) + 1000;
    alone.push((await generate(model, i, { ...options, drafting: false })).tokenIds);
  }
  let [ids, differing, decoded, rounds] = [0, 0, 0, 0];
  for (const size of SIZES) {
    for (const [mode, drafting] of Object.entries(MODES)) {
      const requests = Array.from({ length: size }, (_, j) => (j + size) % alone.length);
      const results = await Promise.all(requests.map((i) => generate(model, i, { ...optionsOf(i), ...drafting(i) })));
      results.forEach(({ tokenIds, stats }, j) => {
        const expected = alone[requests[j] ?? 0] ?? [];
        ids += expected.length;
        differing += Math.abs(expected.length - tokenIds.length);
        tokenIds.forEach((id, at) => (differing += at < expected.length && id !== expected[at] ? 1 : 0));
        if (mode === 'fixed') {
          [decoded, rounds] = [decoded + stats.tokensPerStep * stats.rounds, rounds + stats.rounds];
        }
      });
    }
  }
  return { ids, differing, tokensPerStep: decoded / Math.max(rounds, 1) };
}

/** Delay of the event loop, in ms, while `work` runs. @param {() => Promise<unknown>} work */
async function delay(work) {
  await wait(50);
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await work();
  await wait(5); // a delay is counted by the timer after it
  histogram.disable();
  const ms = (/** @type {number} */ ns) => Math.round(ns / 1e4) / 100;
  return { p50: ms(histogram.percentile(50)), p99: ms(histogram.percentile(99)), max: ms(histogram.max) };
}

/**
 * So many requests at once for a while, and new ones as they end: tokens per second, and the delay of the event loop.
 * @param {Model} model @param {number} requests @param {(i: number) => GenerateOptions} drafting
 */
async function decode(model, requests, drafting) {
  let [tokens, ms] = [0, 0];
  const delayMs = await delay(async () => {
    const start = performance.now();
    const decodeOne = async (/** @type {number} */ i) => {
      do {
        tokens += (await generate(model, i, { ...optionsOf(i), ...drafting(i) })).tokenIds.length;
      } while (performance.now() - start < 1000 * Number(values.seconds));
    };
    await Promise.all(Array.from({ length: requests }, (_, i) => decodeOne(i)));
    ms = performance.now() - start;
  });
  return { tokensPerSecond: Math.round((1000 * tokens) / ms), delayMs };
}

const idle = await delay(() => wait(1000 * Number(values.seconds)));
const model = await Model.load(bundled, {
  ...{ drafter: `${bundled}/drafter-gru`, device, contextTokens: 1024, kvTokens: 33 * 1024 },
});
const { info } = model;
const lossless = await compare(model);
/** @type {{ requests: number, mode: string, tokensPerSecond: number, delayMs: Awaited<ReturnType<typeof delay>> }[]} */
const decoded = [];
for (const requests of [1, 8]) {
  for (const [mode, drafting] of Object.entries(MODES)) {
    decoded.push({ requests, mode, ...(await decode(model, requests, drafting)) });
  }
}
await model.dispose();

const report = { version: version(), node: process.version, device: info.device, level: info.level, dtype: info.dtype };
console.log(`redrafter ${report.version}, Node.js ${report.node}, ${info.device} ${info.level}, ${info.dtype}`);
console.log(`${lossless.ids} ids, ${lossless.differing} differ; ${lossless.tokensPerStep.toFixed(2)} tokens per step`);
const shown = (/** @type {typeof idle} */ { p50, p99, max }) => `event loop p50 ${p50} p99 ${p99} max ${max} ms`;
console.log(`idle: ${shown(idle)}`);
for (const { requests, mode, tokensPerSecond, delayMs } of decoded)
  console.log(`${requests} at once, ${mode}: ${tokensPerSecond} tokens/s, ${shown(delayMs)}`);
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ ...report, lossless, idleDelayMs: idle, decoded }, null, 2)}\n`);
}
const faults = [];
if (lossless.differing > 0) faults.push(`${lossless.differing} ids differ`);
if (lossless.tokensPerStep < 1.2) faults.push('too few drafts were accepted to have tried anything');
if (idle.p99 >= limitMs) console.log('the machine is too busy to tell whether decoding holds up the event loop');
else if (decoded.some(({ delayMs }) => delayMs.p99 >= limitMs))
  faults.push(`the event loop was held up for ${limitMs} ms or more`);
for (const fault of faults) console.log(`FAILED: ${fault}`);
process.exitCode = faults.length > 0 ? 1 : 0;
