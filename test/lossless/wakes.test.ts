/** One wake of the event loop per round, for all requests together. */
import { describe, expect, it } from 'vitest';

import { native, type NativeMessage } from '../../lib/native.js';
import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';

describe('the event loop', () => {
  it('is woken at most once per round, however many requests run', async () => {
    const ids = await promptIds();
    const requests = 8;
    const batches: NativeMessage[][] = [];
    await new Promise<void>((resolve) => {
      const { Engine } = native();
      let finished = 0;
      const engine = new Engine(
        {
          model: bundled,
          drafter: trainedDrafters.gru,
          device: 'cpu',
          dtype: 'auto',
          threads: 2,
          contextTokens: 0,
          kvTokens: 0,
          prefillChunk: 0,
          memoryBudgetBytes: 0,
        },
        (messages) => {
          batches.push(messages);
          for (const message of messages) {
            if (message.type === 'ready') {
              for (let i = 1; i <= requests; i++) {
                engine.openSession(i, i);
                engine.generate(100 + i, i, Int32Array.from(ids[i] ?? [1]), {
                  maxTokens: 100,
                  temperature: 0,
                  topK: 0,
                  topP: 1,
                  minP: 0,
                  seed: 0n,
                  beamWidth: 2,
                  beamLength: 3,
                  adaptive: false,
                  eosTokenIds: new Int32Array(0),
                  stopTokenIds: new Int32Array(0),
                  logprobs: -1,
                });
              }
            } else if (message.type === 'finish' && ++finished === requests) engine.close();
            else if (message.type === 'closed') resolve();
          }
        },
      );
    });
    const withTokens = batches.filter((batch) => batch.some(({ type }) => type === 'tokens')).length;
    const messages = batches.flat().filter(({ type }) => type === 'tokens').length;
    const rounds = batches.flat().flatMap((m) => (m.type === 'finish' ? [m.stats.rounds] : []));
    // Prefill rounds come before; a request that starts later still shares the rounds of the others.
    expect(withTokens).toBeLessThanOrEqual(Math.max(...rounds) + requests + 2);
    expect(messages).toBeGreaterThan(3 * withTokens);
  });
});
