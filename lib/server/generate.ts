import type { Generation, GenerationResult } from '../generation.js';
import { reusedByRead, type Session } from '../session.js';
import { Answer, finishOf, usageOf, type Usage } from './answer.js';
import { EventStream, tooSlow } from './event-stream.js';
import type { Exchange } from './exchange.js';
import { busy, HttpError, toHttpError } from './http-error.js';
import type { OpenJobs } from './open-jobs.js';
import type { ResolvedServer } from './options.js';
import type { Job, JobContext } from './request.js';

/** Where jobs are carried out. */
export interface Workplace {
  options: ResolvedServer;
  context: JobContext;
  jobs: OpenJobs;
  fingerprint: string;
}

/** The answer to a job: an object, or a stream of events whose first one is there already. */
export type Outcome = { whole: object } | { events: ReadableStream<Uint8Array> };

/** A session for one request; `close` gives it back. */
interface Run {
  session: Session;
  /** By choice. */
  generations: Generation[];
  readMs: number;
  close: () => Promise<void>;
}

/**
 * Generates, in turn as the queue of the engine has it. Whatever goes wrong before the first token throws an HttpError; later it ends the
 * stream with an error event.
 */
export async function generate(job: Job, exchange: Exchange, place: Workplace): Promise<Outcome> {
  const { context, fingerprint } = place;
  const answer = new Answer(job, { name: context.modelName, fingerprint, tokenizer: context.tokenizer });
  exchange.log.stream = job.stream;
  exchange.log.promptTokens = job.ids.length;
  const run = await start(job, exchange, place);
  if (job.stream) return { events: await stream(run, answer, exchange, place.options) };
  try {
    const results = await allOf(run.generations);
    checkBegun(results);
    return { whole: answer.whole(results, report(results, run, exchange)) };
  } finally {
    await run.close();
  }
}

async function allOf(generations: readonly Generation[]): Promise<GenerationResult[]> {
  return Promise.all(generations.map((generation) => generation.result()));
}

/** Throws when the request's own deadline came before any token. */
function checkBegun(results: readonly GenerationResult[]): void {
  if (results.some(({ finishReason, tokenIds }) => finishReason !== 'deadline' || tokenIds.length > 0)) return;
  throw busy(503, 'deadline_exceeded', 'the deadline came before the first token, try later');
}

async function start(job: Job, exchange: Exchange, { context, jobs, options }: Workplace): Promise<Run> {
  const { signal } = exchange;
  const leave = jobs.begin();
  const { requestTimeoutMs } = options;
  const deadline = setTimeout(() => {
    exchange.abort(new HttpError(504, 'request_timeout', `the answer took longer than ${requestTimeoutMs} ms`));
  }, requestTimeoutMs);
  let session: Session | undefined;
  let generations: Generation[] = [];
  const close = async (): Promise<void> => {
    clearTimeout(deadline);
    // Choices have sessions of their own, which may still be running.
    if (job.n > 1) await endAll(generations);
    await session?.dispose();
    leave();
  };
  try {
    session = await context.model.createSession(job.prefixes);
    const begun = performance.now();
    const options = { ...job.options, signal };
    if (job.n === 1) generations = [session.generate(job.ids, options)];
    else generations = await session.generateMany(job.ids, { ...options, n: job.n });
    return { session, generations, readMs: job.n === 1 ? 0 : performance.now() - begun, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function endAll(generations: readonly Generation[]): Promise<void> {
  for (const generation of generations) generation.abort();
  await Promise.allSettled(generations.map((generation) => generation.result()));
}

async function stream(
  run: Run,
  answer: Answer,
  exchange: Exchange,
  options: ResolvedServer,
): Promise<EventStream['readable']> {
  const choices = run.generations.map((generation) => {
    const chunks = generation[Symbol.asyncIterator]();
    const first = chunks.next();
    first.catch(() => undefined); // it is awaited below, or another one is first
    return { generation, chunks, first };
  });
  try {
    const { done } = await Promise.race(choices.map(({ first }) => first));
    if (done === true) checkBegun(await allOf(run.generations));
  } catch (error) {
    await run.close();
    throw error;
  }
  const events = new EventStream(options, () => {
    exchange.abort(tooSlow());
    exchange.destroy();
  });
  const release = (): void => {
    events.release();
  };
  exchange.signal.addEventListener('abort', release, { once: true });
  if (exchange.signal.aborted) release();
  const send = (list: object[]): void => {
    for (const event of list) events.send(event);
  };
  const pump = async (): Promise<void> => {
    send(answer.opening());
    const passOn = async (
      { generation, chunks, first }: (typeof choices)[number],
      index: number,
    ): Promise<GenerationResult> => {
      for (let next = await first; next.done !== true; next = await chunks.next()) {
        send(answer.part(index, next.value));
        await events.room(); // what is not read, here or by the client, makes the generation pause
      }
      const result = await generation.result();
      if (result.finishReason !== 'abort') events.send(answer.ending(index, result));
      return result;
    };
    // When one fails the others end, before the event that says so.
    const all = choices.map((choice, index) => passOn(choice, index));
    const endTogether = (): Promise<void> => {
      events.release();
      return endAll(run.generations);
    };
    for (const each of all) each.catch(endTogether);
    await Promise.allSettled(all);
    const results = await Promise.all(all);
    send(answer.closing(report(results, run, exchange)));
  };
  // Everything is given back before the stream ends, so that a client which goes on at once finds it free.
  exchange.streaming = pump().then(
    async () => {
      await run.close();
      events.end();
    },
    async (error: unknown) => {
      await run.close();
      const failure = toHttpError(error);
      exchange.log.code = failure.code;
      events.end(failure.body());
    },
  );
  return events.readable;
}

/** Usage for the client, and the same figures for the log. */
function report(results: readonly GenerationResult[], run: Run, { log }: Exchange): Usage {
  const [{ finishReason, seed, stats: own }] = results as [GenerationResult];
  const many = results.length > 1;
  const stats = many ? run.session.stats : own;
  log.completionTokens = stats.tokens;
  log.finishReason = finishOf(finishReason);
  log.tokensPerStep = Number(stats.tokensPerStep.toFixed(3));
  const { readMs } = run;
  const queueMs = own.queuedMs;
  log.queueMs = Math.round(queueMs);
  log.timeToFirstTokenMs = Math.round(readMs + stats.timeToFirstTokenMs);
  // Samples find the whole prompt there; what counts is what was there when it was read for all of them.
  const cachedTokens = many ? reusedByRead(run.session) : own.reusedTokens;
  return usageOf({ promptTokens: own.promptTokens, cachedTokens, stats, seed, queueMs, readMs });
}
