// Very many tiny requests, a fifth of which end in the middle, in every way that there is. Memory must stay flat, the
// KV cache must come back to the last block, and no error may be left over.
import { performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';

import { round } from './cell.mjs';
import { settledMemory, touchMemory } from './memory.mjs';
import { randomOf } from './plan.mjs';
import { below, equal, GOALS } from './report.mjs';

const AT_ONCE = 32;
/** Points at which memory is looked at; the first ones are warm-up. */
const SAMPLES = 20;
const WARM_UP = 4;
const ABORTED_SHARE = 0.2;
const WAYS = /** @type {const} */ (['abort', 'signal', 'leave', 'dispose', 'deadline']);
/** Errors that requests get for what this program does to them. */
const WANTED = ['ERR_ABORTED', 'ERR_DISPOSED'];

/** @typedef {typeof WAYS[number] | 'none'} Way */
/** @typedef {'done' | 'cut' | 'failed'} End */

/**
 * @param {number} seed @param {number} count @param {readonly string[]} texts
 * Of an aborted one, `after` is a number of tokens or of milliseconds.
 */
export function planSoak(seed, count, texts) {
  const random = randomOf(seed, 'soak');
  const below = (/** @type {number} */ end) => Math.floor(random() * end);
  return Array.from({ length: count }, () => {
    const way = random() < ABORTED_SHARE ? (WAYS[below(WAYS.length)] ?? 'abort') : 'none';
    return {
      text: (texts[below(texts.length)] ?? '').slice(0, 1 + below(60)),
      maxTokens: 1 + below(12) + (way === 'none' ? 0 : 40),
      temperature: random() < 0.5 ? 0 : 1,
      seed: below(2 ** 32),
      drafting: random() < 0.75,
      prefixKey: random() < 0.25 ? `tenant ${below(3)}` : undefined,
      way: /** @type {Way} */ (way),
      after: below(24),
    };
  });
}

/** @typedef {ReturnType<typeof planSoak>[number]} SoakRequest */

/**
 * @param {import('redrafter').Model} model @param {SoakRequest} request
 * @returns {Promise<End>} `cut`: it ended before its last token
 */
async function soakOne(model, { text, maxTokens, temperature, seed, drafting, prefixKey, way, after }) {
  const session = await model.createSession(prefixKey === undefined ? {} : { prefixKey });
  const controller = new AbortController();
  const options = { maxTokens, temperature, seed, drafting, ignoreEos: true, signal: controller.signal };
  try {
    const generation = session.generate(text, way === 'deadline' ? { ...options, deadlineMs: 1 + after } : options);
    if (way === 'signal') void wait(after).then(() => { controller.abort(); }); // prettier-ignore
    if (way === 'dispose') void wait(after).then(() => session.dispose());
    let tokens = 0;
    if (way === 'abort' && after === 0) generation.abort();
    for await (const { tokenIds } of generation) {
      tokens += tokenIds.length;
      if (way === 'abort' && tokens >= after) generation.abort();
      if (way === 'leave' && tokens >= after) break;
    }
    const { finishReason } = await generation.result();
    return finishReason === 'length' ? 'done' : 'cut';
  } catch (error) {
    const code = /** @type {{ code?: string }} */ (error).code ?? '';
    if ((way === 'signal' || way === 'dispose') && WANTED.includes(code)) return 'cut';
    process.stderr.write(`soak: a request that ended by ${way} failed: ${String(error)}\n`);
    return 'failed';
  } finally {
    await session.dispose();
  }
}

/**
 * Runs `requests`, AT_ONCE at a time.
 * @param {import('redrafter').Model} model @param {readonly SoakRequest[]} requests
 * @param {Record<End, number>} ends
 */
async function soakAll(model, requests, ends) {
  const queue = requests.values();
  const worker = async () => {
    for (const request of queue) ends[await soakOne(model, request)]++;
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/**
 * @param {import('redrafter').Model} model
 * @param {{ seed: number, count: number, texts: readonly string[], onProgress?: (done: number) => void }} options
 */
export async function soak(model, { seed, count, texts, onProgress }) {
  let unhandled = 0;
  const onUnhandled = (/** @type {unknown} */ error) => {
    unhandled++;
    process.stderr.write(`soak: unhandled: ${String(error)}\n`);
  };
  process.on('unhandledRejection', onUnhandled);
  process.on('uncaughtException', onUnhandled);
  try {
    const { freeBlocks } = model.kvUsage();
    await touchMemory(model);
    const plan = planSoak(seed, count, texts);
    const start = performance.now();
    /** @type {Record<End, number>} */
    const ends = { done: 0, cut: 0, failed: 0 };
    /** @type {{ requests: number, bytes: number }[]} */
    const memory = [];
    for (let i = 0; i < SAMPLES; i++) {
      const until = Math.floor(((i + 1) * count) / SAMPLES);
      await soakAll(model, plan.slice(Math.floor((i * count) / SAMPLES), until), ends);
      memory.push({ requests: until, bytes: await settledMemory() });
      onProgress?.(until);
    }
    const seconds = round((performance.now() - start) / 1000);
    await model.clearPrefixes();
    const lost = freeBlocks - model.kvUsage().freeBlocks;
    return { requests: count, seconds, ...ends, unhandled, lostBlocks: lost, ...growthOf(memory), memory };
  } finally {
    process.off('unhandledRejection', onUnhandled);
    process.off('uncaughtException', onUnhandled);
  }
}

/**
 * From the end of the warm-up to the end of all.
 * @param {readonly { requests: number, bytes: number }[]} memory
 */
export function growthOf(memory) {
  const warm = memory[WARM_UP - 1]?.bytes ?? 0;
  const end = memory.at(-1)?.bytes ?? 0;
  return { warmBytes: warm, endBytes: end, growthBytes: end - warm };
}

/** @param {Pick<Awaited<ReturnType<typeof soak>>, 'growthBytes' | 'lostBlocks' | 'unhandled' | 'failed'>} result */
export function soakBars({ growthBytes, lostBlocks, unhandled, failed }) {
  return [
    below('resident memory, end less warm-up, bytes', growthBytes, GOALS.memoryGrowthBytes),
    equal('KV blocks lost', lostBlocks, 0),
    equal('unhandled errors', unhandled, 0),
    equal('requests that failed', failed, 0),
  ];
}
