/** Weights that do not fit their configuration: refused by name, before anything is computed. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import {
  readTensors,
  temporaryDirectory,
  type TensorSpec,
  writeSafetensors,
  writeTinyDrafter,
  writeTinyLlama,
} from '../../kit/checkpoint.js';
import { TestEngine } from '../../kit/native-engine.js';

const shape = { vocab: 40, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 48, maxPositions: 128 };

/** A good model directory, then changed. */
function model(change: (tensors: Record<string, TensorSpec>) => void, config: Record<string, unknown> = {}): string {
  const directory = temporaryDirectory('weights');
  writeTinyLlama(directory, shape, 5);
  const tensors = readTensors(directory);
  change(tensors);
  writeSafetensors(directory, tensors);
  const path = join(directory, 'config.json');
  const old = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify({ ...old, ...config }));
  return directory;
}

const zeros = (dims: number[]): TensorSpec => ({ shape: dims, fill: () => 0 });

describe('weights that do not fit', () => {
  const cases: [string, (t: Record<string, TensorSpec>) => void, Record<string, unknown>, RegExp][] = [
    ['a missing norm', (t) => delete t['model.norm.weight'], {}, /"model.norm.weight" is missing/],
    [
      'a missing layer',
      () => undefined,
      { num_hidden_layers: 2 },
      /"model.layers.1.input_layernorm.weight" is missing/,
    ],
    [
      'embedding rows that are not the vocabulary',
      () => undefined,
      { vocab_size: 41 },
      /embed_tokens.*\[40, 32\].*\[41, 32\]/,
    ],
    [
      'a transposed matrix',
      (t) => (t['model.layers.0.mlp.down_proj.weight'] = zeros([48, 32])),
      {},
      /down_proj.*\[48, 32\]/,
    ],
    [
      'a vector for a matrix',
      (t) => (t['model.layers.0.self_attn.k_proj.weight'] = zeros([512])),
      {},
      /k_proj.*\[512\]/,
    ],
    ['untied but without a head', (t) => delete t['lm_head.weight'], {}, /"lm_head.weight" is missing/],
    ['biases asked for but absent', () => undefined, { attention_bias: true }, /q_proj.bias" is missing/],
  ];
  for (const [name, change, config, message] of cases) {
    it(name, async () => {
      await expect(TestEngine.load(model(change, config))).rejects.toMatchObject({
        code: 'ERR_MODEL_FORMAT',
        message: expect.stringMatching(message) as string,
      });
    });
  }

  it('integers where floats are needed', async () => {
    const directory = model(() => undefined);
    const path = join(directory, 'model.safetensors');
    const bytes = readFileSync(path);
    const at = bytes.indexOf('"model.norm.weight":{"dtype":"F32"');
    bytes.write('I32', at + '"model.norm.weight":{"dtype":"'.length);
    writeFileSync(path, bytes);
    await expect(TestEngine.load(directory)).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringMatching(/"model.norm.weight" is i32/) as string,
    });
  });

  it('tied embeddings need no head, and ignore one', async () => {
    const tied = { tie_word_embeddings: true };
    const without = await TestEngine.load(model((t) => delete t['lm_head.weight'], tied));
    const ignored = await TestEngine.load(model(() => undefined, tied));
    const untied = await TestEngine.load(model(() => undefined));
    const ids = async (engine: TestEngine): Promise<number[]> => {
      const { ids: got } = await engine.generate(await engine.open(), [1, 2, 3], { maxTokens: 20 });
      await engine.close();
      return got;
    };
    const expected = await ids(without);
    expect(await ids(ignored)).toEqual(expected);
    expect(await ids(untied)).not.toEqual(expected);
  });

  it('NaN weights are an error of the request, and the engine lives', async () => {
    const engine = await TestEngine.load(model((t) => (t['model.norm.weight'] = { shape: [32], fill: () => NaN })));
    const session = await engine.open();
    await expect(engine.generate(session, [1, 2], {})).rejects.toMatchObject({ code: 'ERR_NUMERIC' });
    await expect(engine.generate(session, [3], { temperature: 1 })).rejects.toMatchObject({ code: 'ERR_NUMERIC' });
    await engine.rewind(session, 0);
    await engine.closeSession(session);
    expect(engine.kvUsage().freeBlocks).toBe(engine.kvUsage().totalBlocks);
    await engine.close();
  });

  it('infinite, denormal and zero weights decode without harm', async () => {
    for (const value of [Infinity, 1e-42, 0]) {
      const engine = await TestEngine.load(
        model((t) => (t['model.layers.0.mlp.down_proj.weight'] = { shape: [32, 48], fill: () => value })),
      );
      const outcome = engine.generate(await engine.open(), [1, 2], { maxTokens: 4 }).then(
        ({ ids }) => ids.length,
        (error: unknown) => (error as { code: string }).code,
      );
      expect([4, 'ERR_NUMERIC']).toContain(await outcome);
      await engine.close();
    }
  });
});

describe('requests the native side refuses by itself', () => {
  it('ids outside the vocabulary, empty sessions, full contexts, busy and unknown sessions', async () => {
    const directory = model(() => undefined);
    const engine = await TestEngine.load(directory, { contextTokens: 32 });
    const session = await engine.open();
    for (const id of [-1, 40, 2 ** 31 - 1])
      await expect(engine.generate(session, [id], {})).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(engine.generate(session, [], {})).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(engine.generate(session, new Array<number>(32).fill(1), {})).rejects.toMatchObject({
      code: 'ERR_CONTEXT',
    });
    await expect(engine.rewind(session, 5)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(engine.fork(99_999)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    // Slow enough that the commands behind it find it running, even on a busy machine: plain loops, one row a round.
    const long = temporaryDirectory('long');
    writeTinyLlama(long, { ...shape, maxPositions: 4096 }, 3);
    const slow = await TestEngine.load(long, { device: 'cpu:oracle', prefillChunk: 1 });
    const busy = await slow.open();
    const first = slow.generate(busy, new Array<number>(3000).fill(1), { maxTokens: 20 });
    const second = slow.generate(busy, [1], {});
    const copy = slow.fork(busy);
    await expect(second).rejects.toMatchObject({ code: 'ERR_BUSY' });
    await expect(copy).rejects.toMatchObject({ code: 'ERR_BUSY' });
    expect((await first).ids.length).toBe(20);
    await slow.close();
    await engine.close();
    await expect(TestEngine.load(directory, { contextTokens: 500 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
    await expect(TestEngine.load(directory, { device: 'cuda:99' })).rejects.toMatchObject({ code: 'ERR_BACKEND' });
    await expect(TestEngine.load(directory, { device: 'tpu' })).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(TestEngine.load(join(directory, 'none'))).rejects.toMatchObject({ code: 'ERR_FILE' });
  });

  it('a drafter for another model', async () => {
    const directory = model(() => undefined);
    const drafter = temporaryDirectory('drafter');
    writeTinyDrafter(drafter, 'gru', 40, 64, 1);
    await expect(TestEngine.load(directory, { drafter })).rejects.toMatchObject({ code: 'ERR_DRAFTER' });
  });
});
