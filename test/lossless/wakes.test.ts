/** One wake of the event loop per round, for all requests together. */
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { native, type NativeMessage, type NativeModule } from '../../lib/native.js';
import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { engineOptions, generateOptions } from '../kit/native-engine.js';
import { testing } from '../kit/testing.js';

const REQUESTS = 8;

interface Engine {
  model: string;
  drafter: string;
  device: string;
  maxTokens: number;
  ids: number[][];
}

/** The messages of each wake, from loading to the end of all requests. */
async function wakesOf({ Engine }: NativeModule, options: Engine): Promise<NativeMessage[][]> {
  const { model, drafter, device, maxTokens, ids } = options;
  const batches: NativeMessage[][] = [];
  await new Promise<void>((resolve, reject) => {
    let finished = 0;
    const engine = new Engine(engineOptions(model, { drafter, device }), (messages) => {
      batches.push(messages);
      for (const message of messages) {
        if (message.type === 'ready') {
          for (let i = 1; i <= REQUESTS; i++) {
            engine.openSession(i, i, '');
            engine.generate(
              100 + i,
              i,
              Int32Array.from(ids[i] ?? [1]),
              generateOptions({ maxTokens, beamWidth: 2, beamLength: 3 }),
            );
          }
        } else if (message.type === 'finish' && ++finished === REQUESTS) engine.close();
        else if (message.type === 'failed' || message.type === 'error') reject(new Error(message.message));
        else if (message.type === 'closed') resolve();
      }
    });
  });
  return batches;
}

function expectFew(batches: NativeMessage[][]): void {
  const withTokens = batches.filter((batch) => batch.some(({ type }) => type === 'tokens')).length;
  const messages = batches.flat().filter(({ type }) => type === 'tokens').length;
  const rounds = batches.flat().flatMap((m) => (m.type === 'finish' ? [m.stats.rounds] : []));
  expect(rounds).toHaveLength(REQUESTS);
  // Prefill rounds come before; a request that starts later still shares the rounds of the others.
  expect(withTokens).toBeLessThanOrEqual(Math.max(...rounds) + REQUESTS + 2);
  expect(messages).toBeGreaterThan(3 * withTokens);
}

describe('the event loop', () => {
  it('is woken at most once per round, however many requests run', async () => {
    const ids = await promptIds();
    const options = { model: bundled, drafter: trainedDrafters.gru, device: 'cpu', maxTokens: 100, ids };
    expectFew(await wakesOf(native(), options));
  });

  // There, the messages of a round go out when the next one is on its way.
  it.skipIf(testing['simt'] === undefined)('is so where rounds run on a device by themselves', async () => {
    const directory = temporaryDirectory('wakes');
    const model = join(directory, 'model');
    const drafter = join(directory, 'drafter');
    writeTinyLlama(
      model,
      { vocab: 23, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 32, maxPositions: 512 },
      51,
    );
    writeTinyDrafter(drafter, 'gru', 23, 32, 52);
    const ids = Array.from({ length: REQUESTS + 1 }, (_, i) => [i, 1, 2]);
    const options = { model, drafter, device: 'cuda:host', maxTokens: 20, ids };
    const batches = await wakesOf(testing['addon'] as NativeModule, options);
    expectFew(batches);
    // All tokens of a request come before its end, and in as many messages as rounds and its prompt gave some.
    for (let ticket = 101; ticket <= 100 + REQUESTS; ticket++) {
      const own = batches.flat().filter((message) => 'ticket' in message && message.ticket === ticket);
      const last = own.at(-1);
      if (last?.type !== 'finish') throw new Error('its end is not the last');
      expect(own.slice(0, -1).map(({ type }) => type)).toEqual(Array(last.stats.rounds + 1).fill('tokens'));
    }
  });
});
