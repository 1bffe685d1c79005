/** How an engine ends when a kernel fails: on emulated devices whose n-th launch of an op leaves an error in its stream. */
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type EngineError, TestEngine } from '../kit/native-engine.js';
import { testing } from '../kit/testing.js';

const SHAPE: TinyShape = {
  ...{ vocab: 29, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 48, maxPositions: 512 },
};
const directory = temporaryDirectory('engine-faults');
const model = join(directory, 'model');
const drafter = join(directory, 'drafter');
writeTinyLlama(model, SHAPE, 31);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 32);

const simt = testing['simt'] as { allocatedBytes(): number; hostBytes(): number; freedEarly(): number } | undefined;
const held = (): (number | undefined)[] => [simt?.allocatedBytes(), simt?.hostBytes(), simt?.freedEarly()];
const prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
const fault = (op: string): string => `CUDA failed in ${op}: a planted fault (planted)`;

const load = (device: string): Promise<TestEngine> =>
  TestEngine.load(model, { device, drafter, contextTokens: 256, kvTokens: 300, prefillChunk: 8 });

async function failure(work: Promise<unknown>): Promise<Pick<EngineError, 'code' | 'message'>> {
  return work.then(
    () => ({ code: 'none', message: 'it resolved' }),
    (error: unknown) => {
      const { code, message } = error as EngineError;
      return { code, message: message.replace(`${code}: `, '') };
    },
  );
}

describe.skipIf(simt === undefined)('a device that fails', () => {
  // Three norms a pass, and a prompt takes three passes. The first round of a shape is run op by op, the second one is
  // recorded, and from then on the graph is launched.
  it.each([
    ['in a prompt', 'norm', 'norm-2'],
    ['while a round is recorded', 'norm', 'capture-1'],
    ['in a round', 'launch_graph', 'launch_graph-8'],
  ])('%s ends all requests with that error, those that wait too, and all later work', async (where, op, planted) => {
    const before = held();
    const engine = await load(`cuda:failing-${planted}`);
    const sessions = await Promise.all([engine.open(), engine.open(), engine.open()]);
    const [idle, late] = await Promise.all([engine.open(), engine.open()]);
    const tokens: number[][] = sessions.map(() => []);
    const requests = sessions.map((session, i) =>
      engine.generate(session, prompt, { maxTokens: 230, beamWidth: i, beamLength: 2 }, (soFar) => {
        tokens[i] = [...soFar];
      }),
    );
    // No blocks are left for it until the others end.
    const waiting = engine.generate(late, prompt, { maxTokens: 200 });
    const ended = await Promise.all([...requests, waiting].map(failure));
    expect(ended[0]).toEqual({ code: 'ERR_CUDA', message: fault(op) });
    // The engine may have ended before the others reached it.
    for (const { code, message } of ended) {
      expect(code).toBe('ERR_CUDA');
      expect(message.endsWith(fault(op))).toBe(true);
    }
    expect(engine.failure).toMatchObject({ code: 'ERR_CUDA' });
    expect(tokens.some((each) => each.length > 0)).toBe(where !== 'in a prompt');

    const message = `the model failed and can do no more work: ${fault(op)}`;
    const works = [engine.generate(idle, prompt), engine.open(), engine.readKv(idle), engine.closeSession(idle)];
    for (const refused of await Promise.all(works.map(failure))) expect(refused).toEqual({ code: 'ERR_CUDA', message });
    await engine.close();
    expect(held()).toEqual(before);

    // The next model is not concerned.
    const other = await load('cuda:host');
    expect((await other.generate(await other.open(), prompt, { maxTokens: 5 })).ids).toHaveLength(5);
    await other.close();
  });

  it('while the host reads what the engine has computed ends the engine, too', async () => {
    const engine = await load('cuda:failing-kv_export-1');
    const session = await engine.open();
    await engine.append(session, prompt);
    expect(await failure(engine.readKv(session))).toEqual({ code: 'ERR_CUDA', message: fault('kv_export') });
    expect(await failure(engine.open())).toMatchObject({ code: 'ERR_CUDA' });
    expect(engine.failure).toMatchObject({ code: 'ERR_CUDA' });
    await engine.close();
  });

  it('while a session is saved fails that, and nothing else where the device goes on', async () => {
    const engine = await load('cuda:failing-kv_export-2');
    const session = await engine.open();
    await engine.append(session, prompt);
    const file = join(directory, 'fault.session');
    expect(await failure(engine.save(session, file))).toEqual({ code: 'ERR_CUDA', message: fault('kv_export') });
    expect((await engine.generate(session, [], { maxTokens: 5 })).ids).toHaveLength(5);
    expect(await engine.save(session, file)).toMatchObject({ tokens: 25 });
    expect(engine.failure).toBeUndefined();
    await engine.close();
  });
});
