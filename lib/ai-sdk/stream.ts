import { AbortError, fromThrown } from '../errors.js';
import type { Call } from './call.js';
import { endingOf, failedEnding } from './result.js';
import type { StreamPart } from './spec.js';

/** Id of the one block of text that an answer has. */
const TEXT = '0';

/**
 * The parts of an answer as they come. An error in the midst of it is a part, followed by a finish with the reason
 * `error`; a signal that fires makes the stream itself fail, with the `AbortError`. Cancelling the stream ends the
 * generation. Whoever has seen the finish, or the failure, or has awaited the cancellation, finds the KV cache as it
 * was before the call.
 *
 * @param raw Whether to give out each {@link Chunk} too, before its text.
 */
export function streamOf(call: Call, modelId: string, raw: boolean): ReadableStream<StreamPart> {
  const parts = partsOf(call, modelId, raw);
  let cancelled = false;
  return new ReadableStream<StreamPart>({
    async pull(controller) {
      const { done, value } = await parts.next();
      if (cancelled) return;
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      cancelled = true;
      call.generation.abort();
      await call.closed;
    },
  });
}

async function* partsOf(call: Call, modelId: string, raw: boolean): AsyncGenerator<StreamPart, undefined> {
  yield { type: 'stream-start', warnings: call.warnings };
  yield { type: 'response-metadata', timestamp: call.started, modelId };
  let open = false;
  try {
    for await (const chunk of call.generation) {
      if (raw) yield { type: 'raw', rawValue: chunk };
      if (chunk.text === '') continue;
      if (!open) yield { type: 'text-start', id: TEXT };
      open = true;
      yield { type: 'text-delta', id: TEXT, delta: chunk.text };
    }
    const result = await call.result();
    if (open) yield { type: 'text-end', id: TEXT };
    yield { type: 'finish', ...endingOf(result) };
  } catch (thrown) {
    await call.closed;
    const error = fromThrown(thrown);
    if (error instanceof AbortError) throw error;
    if (open) yield { type: 'text-end', id: TEXT };
    yield { type: 'error', error };
    yield { type: 'finish', ...failedEnding(error.code) };
  }
}
