import type { Generation, GenerationResult } from '../generation.js';
import type { Session } from '../session.js';
import type { Admission } from './admission.js';
import { Answer, finishOf, usageOf, type Usage } from './answer.js';
import { EventStream, tooSlow } from './event-stream.js';
import type { Exchange } from './exchange.js';
import { HttpError, toHttpError } from './http-error.js';
import type { ResolvedServer } from './options.js';
import type { Job, JobContext } from './request.js';

/** Where jobs are carried out. */
export interface Workplace {
  options: ResolvedServer;
  context: JobContext;
  admission: Admission;
  fingerprint: string;
}

/** The answer to a job: an object, or a stream of events whose first one is there already. */
export type Outcome = { whole: object } | { events: ReadableStream<Uint8Array> };

/** A session for one request, with its turn; `close` gives both back. */
interface Run {
  generation: Generation;
  queueMs: number;
  close: () => Promise<void>;
}

/**
 * Waits for a turn and generates. Whatever goes wrong before the first token throws an HttpError; later it ends the
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
    const result = await run.generation.result();
    return { whole: answer.whole(result, report(result, run, exchange)) };
  } finally {
    await run.close();
  }
}

async function start(job: Job, exchange: Exchange, { context, admission, options }: Workplace): Promise<Run> {
  const { signal } = exchange;
  const asked = performance.now();
  const leave = await admission.enter(signal);
  const queueMs = performance.now() - asked;
  exchange.log.queueMs = Math.round(queueMs);
  const { requestTimeoutMs } = options;
  const deadline = setTimeout(() => {
    exchange.abort(new HttpError(504, 'request_timeout', `generation took longer than ${requestTimeoutMs} ms`));
  }, requestTimeoutMs);
  let session: Session | undefined;
  const close = async (): Promise<void> => {
    clearTimeout(deadline);
    await session?.dispose();
    leave();
  };
  try {
    session = await context.model.createSession(job.prefixes);
    return { generation: session.generate(job.ids, { ...job.options, signal }), queueMs, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function stream(
  run: Run,
  answer: Answer,
  exchange: Exchange,
  options: ResolvedServer,
): Promise<EventStream['readable']> {
  const chunks = run.generation[Symbol.asyncIterator]();
  let first;
  try {
    first = await chunks.next();
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
    for (let next = first; next.done !== true; next = await chunks.next()) {
      send(answer.part(next.value));
      await events.room(); // what is not read, here or by the client, makes the generation pause
    }
    const result = await run.generation.result();
    send(answer.closing(result, report(result, run, exchange)));
  };
  // The turn is given back before the stream ends, so that a client which goes on at once finds it free.
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
function report(result: GenerationResult, run: Run, { log }: Exchange): Usage {
  const { stats, finishReason } = result;
  log.completionTokens = stats.tokens;
  log.finishReason = finishOf(finishReason);
  log.tokensPerStep = Number(stats.tokensPerStep.toFixed(3));
  log.timeToFirstTokenMs = Math.round(stats.timeToFirstTokenMs);
  return usageOf(result, run.queueMs + stats.queuedMs);
}
