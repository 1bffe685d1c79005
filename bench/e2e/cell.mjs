// One cell of the measurement: the planned requests at one rate, drafted in one way, against one model.
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';

/** @typedef {import('./plan.mjs').PlannedRequest} PlannedRequest */
/** @typedef {Pick<import('redrafter').GenerateOptions, 'drafting' | 'beamWidth' | 'beamLength'>} Drafting */
/** @typedef {{ p50: number, p95: number, p99: number }} Percentiles */

/**
 * What became of a request. Times are milliseconds after its planned arrival, so that one which this process starts
 * late counts as waiting.
 * @typedef {{
 *   index: number, tokenIds: readonly number[], startedMs: number, firstTokenMs: number, lastTokenMs: number,
 *   queuedMs: number, decodedTokens: number, rounds: number
 * }} Outcome
 */

/** @param {readonly number[]} values @returns {Percentiles} nearest rank; 0 where there is nothing */
export function percentiles(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (/** @type {number} */ p) => round(sorted[Math.max(Math.ceil((p / 100) * sorted.length) - 1, 0)] ?? 0);
  return { p50: at(50), p95: at(95), p99: at(99) };
}

/** @param {number} value */
export const round = (value) => Math.round(value * 1000) / 1000;

/**
 * Asks as a backend does: a session of its own, iterated as tokens come, disposed of. Undefined: refused, as the queue
 * is full. Any other error is a fault of the run.
 * @param {import('redrafter').Model} model @param {PlannedRequest} request @param {Drafting} drafting
 * @param {number} arrival when it was to come, by performance.now
 * @returns {Promise<Outcome | undefined>}
 */
export async function ask(model, request, drafting, arrival) {
  const started = performance.now();
  const session = await model.createSession();
  try {
    const { maxTokens, temperature, seed } = request;
    const generation = session.generate(request.text, { maxTokens, temperature, seed, ignoreEos: true, ...drafting });
    let [first, last] = [0, 0];
    for await (const { tokenIds } of generation) {
      if (tokenIds.length === 0) continue;
      last = performance.now();
      if (first === 0) first = last;
    }
    const { tokenIds, stats } = await generation.result();
    return {
      index: request.index,
      tokenIds,
      startedMs: started - arrival,
      firstTokenMs: first - arrival,
      lastTokenMs: last - arrival,
      queuedMs: stats.queuedMs,
      decodedTokens: stats.tokensPerStep * stats.rounds,
      rounds: stats.rounds,
    };
  } catch (error) {
    if (/** @type {{ code?: unknown }} */ (error).code === 'ERR_QUEUE_FULL') return undefined;
    throw error;
  } finally {
    await session.dispose();
  }
}

/**
 * Open loop: requests come when they were planned to, however many are being answered. It ends when the last one has.
 * @param {import('redrafter').Model} model
 * @param {{ requests: readonly PlannedRequest[], arrivalsMs: readonly number[], drafting: Drafting,
 *   batches: () => { batches: number, messages: number } }} cell
 */
export async function runCell(model, { requests, arrivalsMs, drafting, batches }) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const before = batches();
  delay.enable();
  const start = performance.now();
  const outcomes = await Promise.all(
    requests.map(async (request, i) => {
      const arrival = start + (arrivalsMs[i] ?? 0);
      await wait(arrival - performance.now());
      return ask(model, request, drafting, arrival);
    }),
  );
  const seconds = (performance.now() - start) / 1000;
  await wait(5); // a delay is counted by the timer after it
  delay.disable();
  const after = batches();
  const done = outcomes.filter((outcome) => outcome !== undefined);
  const loop = { batches: after.batches - before.batches, messages: after.messages - before.messages, delay };
  return { done, figures: figuresOf(done, outcomes.length - done.length, seconds, loop) };
}

/**
 * @param {readonly Outcome[]} done @param {number} refused @param {number} seconds
 * @param {{ batches: number, messages: number, delay: import('node:perf_hooks').IntervalHistogram }} loop
 */
function figuresOf(done, refused, seconds, { batches, messages, delay }) {
  const sum = (/** @type {(outcome: Outcome) => number} */ of) =>
    done.reduce((total, outcome) => total + of(outcome), 0);
  const tokens = sum(({ tokenIds }) => tokenIds.length);
  const rounds = sum((outcome) => outcome.rounds);
  const several = done.filter(({ tokenIds }) => tokenIds.length > 1);
  return {
    requests: done.length + refused,
    done: done.length,
    refused,
    seconds: round(seconds),
    tokensPerSecond: round(tokens / seconds),
    requestsPerSecond: round(done.length / seconds),
    timeToFirstTokenMs: percentiles(done.map(({ firstTokenMs }) => firstTokenMs)),
    timePerTokenMs: percentiles(
      several.map(({ firstTokenMs, lastTokenMs, tokenIds }) => (lastTokenMs - firstTokenMs) / (tokenIds.length - 1)),
    ),
    queuedMs: percentiles(done.map(({ queuedMs }) => queuedMs)),
    startedMs: percentiles(done.map(({ startedMs }) => startedMs)),
    eventLoopDelayMs: {
      p50: round(delay.percentile(50) / 1e6),
      p99: round(delay.percentile(99) / 1e6),
      max: round(delay.max / 1e6),
    },
    batchesPerSecond: round(batches / seconds),
    messagesPerSecond: round(messages / seconds),
    tokensPerStep: rounds > 0 ? round(sum(({ decodedTokens }) => decodedTokens) / rounds) : 0,
  };
}

/** @typedef {ReturnType<typeof figuresOf>} Figures */
