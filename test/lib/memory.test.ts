/** estimateMemory says before loading exactly what memoryUsage says after it, and the process grows by that. */
import { execFile } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { estimateMemory, inspect, type MemoryOptions, Model, RedrafterError } from '../../lib/index.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import {
  readTensors,
  temporaryDirectory,
  writeSafetensors,
  writeTinyDrafter,
  writeTinyLlama,
} from '../kit/checkpoint.js';
import { writeTinyModel } from './tiny.js';

const golden = fileURLToPath(new URL('../fixtures/golden', import.meta.url));
const models = readdirSync(golden).filter((name) => !name.startsWith('drafter'));
const drafters = readdirSync(golden).filter((name) => name.startsWith('drafter'));

const tiny = writeTinyModel();

async function expectExact(directory: string, options: MemoryOptions): Promise<void> {
  const estimate = await estimateMemory(directory, options);
  const { weightBytes, drafterBytes, kvBytes, workspaceBytes, totalBytes, ...more } = estimate;
  expect(more).toEqual({});
  expect(weightBytes + drafterBytes + kvBytes + workspaceBytes).toBe(totalBytes);
  await using model = await Model.load(directory, options);
  expect(model.memoryUsage()).toEqual({ ...estimate, kvUsedBytes: 0 });
  expect(model.kvUsage().totalBytes).toBe(kvBytes);
}

describe('an estimate equals what loading reports', () => {
  it.each(models)('golden %s', async (name) => {
    await expectExact(join(golden, name), { threads: 2 });
    await expectExact(join(golden, name), { threads: 1, dtype: 'bf16', contextTokens: 20, kvTokens: 77 });
  });

  it.each(drafters)('golden %s', async (name) => {
    const target = (await inspect(join(golden, name))).config;
    const fits = async (model: string): Promise<boolean> => {
      const { config } = await inspect(join(golden, model));
      return config['vocab'] === target['vocab'] && config['hidden'] === target['hidden'];
    };
    let tried = 0;
    for (const model of models) {
      if (!(await fits(model))) continue;
      tried++;
      await expectExact(join(golden, model), { drafter: join(golden, name), threads: 2 });
    }
    expect(tried).toBeGreaterThan(0);
  });

  const options: MemoryOptions[] = [
    {},
    { drafter: trainedDrafters.gru },
    { drafter: trainedDrafters.elman, dtype: 'f32', threads: 3 },
    { drafter: trainedDrafters.gru, drafterDtype: 'bf16' },
    { drafter: trainedDrafters.gru, dtype: 'f32', drafterDtype: 'q8_0' },
    { dtype: 'f16', device: 'cpu:base', threads: 1 },
    { contextTokens: 100, kvTokens: 1000, prefillChunk: 4096 },
    { prefillChunk: 1, threads: 64 },
  ];
  it.each(options.map((each) => ({ name: JSON.stringify(each).replaceAll(bundled, ''), options: each })))(
    'bundled model, $name',
    async ({ options: each }) => {
      await expectExact(bundled, each);
    },
  );

  it('each option changes what it should', async () => {
    const base = await estimateMemory(bundled, { threads: 1 });
    const delta = async (change: MemoryOptions): Promise<string[]> => {
      const other = await estimateMemory(bundled, { threads: 1, ...change });
      const keys = ['weightBytes', 'drafterBytes', 'kvBytes', 'workspaceBytes'] as const;
      return keys.filter((key) => other[key] !== base[key]);
    };
    expect(await delta({ drafter: trainedDrafters.gru })).toEqual(['drafterBytes', 'workspaceBytes']);
    expect(await delta({ dtype: 'f32' })).toEqual(['weightBytes']);
    expect(await delta({ threads: 2 })).toEqual(['workspaceBytes']);
    expect(await delta({ kvTokens: 64 })).toEqual(['kvBytes']);
    expect(await delta({ contextTokens: 64 })).toEqual(['kvBytes', 'workspaceBytes']);
    expect(await delta({ prefillChunk: 1000 })).toEqual(['workspaceBytes']);
    const halved = (await estimateMemory(bundled, { dtype: 'bf16' })).weightBytes;
    expect((await estimateMemory(bundled, { dtype: 'f32' })).weightBytes / halved).toBeCloseTo(2, 1);
  });

  it('allocates nothing for absurd sizes', async () => {
    const before = process.memoryUsage().rss;
    const { kvBytes } = await estimateMemory(bundled, { kvTokens: 2 ** 31 - 1 });
    expect(kvBytes).toBeGreaterThan(1e12);
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
  });
});

describe('a memory budget', () => {
  const drafter = tiny.drafter;
  const base = { drafter, threads: 1, contextTokens: 100 } as const;
  const total = async (options: MemoryOptions): Promise<number> =>
    (await estimateMemory(tiny.model, { ...base, ...options })).totalBytes;
  /** KV tokens that loading within the budget gives, and that the estimate says the same as the model. */
  async function tokens(options: MemoryOptions): Promise<number> {
    await expectExact(tiny.model, { ...base, ...options });
    await using model = await Model.load(tiny.model, { ...base, ...options });
    expect(model.memoryUsage().totalBytes).toBeLessThanOrEqual(options.memoryBudgetBytes ?? Infinity);
    return model.info.kvTokens;
  }

  it('gives the KV cache what the rest leaves, between one session and the default', async () => {
    const most = await total({}); // 400 tokens in 25 blocks
    const least = await total({ kvTokens: 100 }); // 7 blocks
    const block = (most - least) / 18;
    expect(await tokens({})).toBe(400);
    expect(await tokens({ memoryBudgetBytes: 2 ** 53 - 1 })).toBe(400);
    expect(await tokens({ memoryBudgetBytes: most })).toBe(400);
    expect(await tokens({ memoryBudgetBytes: most - 1 })).toBe(384);
    expect(await tokens({ memoryBudgetBytes: least + 2 * block })).toBe(144);
    expect(await tokens({ memoryBudgetBytes: least + 2 * block - 1 })).toBe(128);
    expect(await tokens({ memoryBudgetBytes: least + block - 1 })).toBe(112);
    expect(await tokens({ memoryBudgetBytes: least })).toBe(112);
    expect(await tokens({ memoryBudgetBytes: least, kvTokens: 100 })).toBe(100);
    expect(await tokens({ memoryBudgetBytes: most, kvTokens: 50 })).toBe(50);
    // The default that fits is kept although no whole block would be left of it.
    expect(await tokens({ memoryBudgetBytes: await total({ contextTokens: 7 }), contextTokens: 7 })).toBe(28);
  });

  it('lets a session of the whole context run when it has room for one', async () => {
    const memoryBudgetBytes = await total({ kvTokens: 100 });
    await using model = await Model.load(tiny.model, { ...base, memoryBudgetBytes });
    const session = await model.createSession();
    const shape = { beamWidth: 64, beamLength: 8, ignoreEos: true };
    const { tokenIds, finishReason } = await session.generate([1, 2, 3], { ...shape, maxTokens: 500 }).result();
    expect([tokenIds.length, finishReason]).toEqual([97, 'length']);
  });

  /** How loading fails, which is how estimating does. */
  async function refusal(options: MemoryOptions): Promise<string> {
    const all = { ...base, ...options };
    const [estimate, load] = await Promise.all(
      [estimateMemory(tiny.model, all), Model.load(tiny.model, all)].map((work) =>
        work.then(
          () => 'none',
          (error: unknown) => `${(error as RedrafterError).code}: ${(error as RedrafterError).message}`,
        ),
      ),
    );
    expect(load).toBe(estimate);
    return load ?? '';
  }

  it('that is too small is ERR_OOM with the numbers and what to lower', async () => {
    const needed = await estimateMemory(tiny.model, { ...base, kvTokens: 100 });
    const { weightBytes, drafterBytes, kvBytes, workspaceBytes, totalBytes } = needed;
    const message = await refusal({ memoryBudgetBytes: totalBytes - 1 });
    expect(message).toBe(
      `ERR_OOM: memoryBudgetBytes is ${totalBytes - 1}, but the model needs ${totalBytes}: weights ${weightBytes}, ` +
        `drafter ${drafterBytes}, KV cache ${kvBytes} (one session of contextTokens = 100), workspace ${workspaceBytes}; ` +
        'raise it, or lower contextTokens, prefillChunk or threads, or load with a dtype of 16 bits or without a drafter',
    );
    expect(await refusal({ memoryBudgetBytes: 1 })).toMatch(/^ERR_OOM: memoryBudgetBytes is 1, /);
    const asked = await refusal({ memoryBudgetBytes: (await total({ kvTokens: 300 })) - 1, kvTokens: 300 });
    expect(asked).toMatch(/^ERR_OOM: .* \(kvTokens = 300\), .*; raise it, or lower kvTokens, contextTokens, /);
    expect(await tokens({ memoryBudgetBytes: await total({ kvTokens: 300 }), kvTokens: 300 })).toBe(300);
  });

  it('is looked at before any weight is read', async () => {
    const directory = temporaryDirectory('budget');
    writeTinyLlama(
      directory,
      { vocab: 40, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 48, maxPositions: 128 },
      1,
    );
    const tensors = readTensors(directory);
    tensors['model.embed_tokens.weight'] = { shape: [40, 32], fill: () => 1e6 }; // too large for f16
    writeSafetensors(directory, tensors);
    const load = (memoryBudgetBytes: number): Promise<Model> =>
      Model.load(directory, { dtype: 'f16', threads: 1, memoryBudgetBytes });
    const fits = (await estimateMemory(directory, { dtype: 'f16', threads: 1 })).totalBytes;
    await expect(load(fits)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(load(10_000)).rejects.toMatchObject({ code: 'ERR_OOM' });
  });
});

describe('memory in use', () => {
  it('follows the KV cache', async () => {
    const model = await Model.load(bundled, { kvTokens: 2000, threads: 1 });
    expect(model.memoryUsage().kvUsedBytes).toBe(0);
    const session = await model.createSession();
    await session.append(new Int32Array(40).fill(5));
    const { kvUsedBytes, kvBytes } = model.memoryUsage();
    expect(kvUsedBytes).toBe(session.kv.bytes);
    expect(kvUsedBytes).toBeGreaterThan(0);
    expect(kvUsedBytes).toBeLessThan(kvBytes);
    await session.dispose();
    expect(model.memoryUsage().kvUsedBytes).toBe(0);
    await model.dispose();
    expect(() => model.memoryUsage()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }) as Error);
  });
});

describe('an estimate that cannot be made', () => {
  const misfit = temporaryDirectory('misfit');
  writeTinyDrafter(misfit, 'gru', 264, 64, 1);
  const cases: [code: string, directory: unknown, options?: unknown][] = [
    ['ERR_INVALID_ARGUMENT', ''],
    ['ERR_INVALID_ARGUMENT', 7],
    ['ERR_INVALID_ARGUMENT', tiny.model, { dtype: 'f8' }],
    ['ERR_INVALID_ARGUMENT', tiny.model, { drafter: tiny.drafter, drafterDtype: 'q4_1' }],
    ['ERR_INVALID_ARGUMENT', tiny.model, { contextTokens: 5000 }],
    ['ERR_INVALID_ARGUMENT', tiny.model, { device: 'cpu:tpu' }],
    ['ERR_BACKEND', tiny.model, { device: 'cuda:99' }],
    ['ERR_FILE', join(tiny.model, 'none')],
    ['ERR_CONFIG', tiny.drafter],
    ['ERR_FILE', tiny.model, { drafter: join(tiny.model, 'none') }],
    ['ERR_DRAFTER', tiny.model, { drafter: misfit }],
  ];
  it('takes no options that only loading has', async () => {
    const options = { onProgress: () => undefined } as MemoryOptions;
    await expect(estimateMemory(tiny.model, options)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });

  it.each(cases)('%s, as loading does: %j %j', async (code, directory, options) => {
    const attempt = estimateMemory(directory as string, options as MemoryOptions);
    await expect(attempt).rejects.toBeInstanceOf(RedrafterError);
    await expect(attempt).rejects.toMatchObject({ code });
    await expect(Model.load(directory as string, options as MemoryOptions)).rejects.toMatchObject({ code });
  });
});

/** A Llama of `layers` times 22 MB of f32 weights, all of them random bits of moderate size. */
function writeLargeModel(layers: number): string {
  const directory = temporaryDirectory('resident');
  const [vocab, hidden, ffn] = [2048, 768, 1408];
  const shapes: [string, number[]][] = [['model.embed_tokens.weight', [vocab, hidden]]];
  for (let i = 0; i < layers; i++) {
    const p = `model.layers.${i}.`;
    for (const name of ['q', 'k', 'v', 'o']) shapes.push([`${p}self_attn.${name}_proj.weight`, [hidden, hidden]]);
    shapes.push([`${p}mlp.gate_proj.weight`, [ffn, hidden]], [`${p}mlp.up_proj.weight`, [ffn, hidden]]);
    shapes.push([`${p}mlp.down_proj.weight`, [hidden, ffn]], [`${p}input_layernorm.weight`, [hidden]]);
    shapes.push([`${p}post_attention_layernorm.weight`, [hidden]]);
  }
  shapes.push(['model.norm.weight', [hidden]]);
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of shapes) {
    const bytes = 4 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  // One stretch of values over and over: only its size matters.
  const some = Float32Array.from({ length: 1 << 16 }, (_, i) => Math.sin(i * i) / 16);
  const data = Buffer.alloc(offset, Buffer.from(some.buffer));
  writeFileSync(join(directory, 'model.safetensors'), Buffer.concat([size, json, data]));
  const config = {
    architectures: ['LlamaForCausalLM'], vocab_size: vocab, hidden_size: hidden, intermediate_size: ffn, num_hidden_layers: layers,
    num_attention_heads: 12, num_key_value_heads: 12, max_position_embeddings: 4096, rms_norm_eps: 1e-5, tie_word_embeddings: true,
  }; // prettier-ignore
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  return directory;
}

interface Resident {
  estimate: { totalBytes: number; kvBytes: number; workspaceBytes: number };
  usage: { totalBytes: number; kvUsedBytes: number };
  /** Growth of anonymous resident memory, and how much the peak of the process lay above the end. */
  grown: number;
  overshoot: number;
}

/** Loads in a process of its own and touches all memory there is: every KV block and the widest passes. */
function residentGrowth(directory: string, options: object): Promise<Resident> {
  const body = `
    import { readFileSync } from 'node:fs';
    import { estimateMemory, Model } from ${JSON.stringify(new URL('../../dist/index.mjs', import.meta.url).href)};
    const [directory, options, small] = ${JSON.stringify([directory, options, tiny.model])};
    const kib = (key) => 1024 * Number(new RegExp(key + ':\\\\s+(\\\\d+) kB').exec(readFileSync('/proc/self/status', 'utf8'))[1]);
    // What a process needs once, whatever the model.
    const first = await Model.load(small, { threads: 2, kvTokens: 16, contextTokens: 64 });
    await (await (await first.createSession()).generate([1, 2], { maxTokens: 8 })).result();
    await first.dispose();
    gc();
    const before = kib('RssAnon');
    const estimate = await estimateMemory(directory, options);
    const model = await Model.load(directory, options);
    gc();
    // One session after another until no block is free, then trees as wide as they can be.
    const sessions = [];
    const ids = (count) => Int32Array.from({ length: count }, (_, i) => (i * 7 + sessions.length) % 2000);
    while (model.kvUsage().freeBlocks > 0) {
      const session = await model.createSession();
      sessions.push(session);
      await session.append(ids(Math.min(model.info.contextTokens, 16 * model.kvUsage().freeBlocks)));
    }
    const usage = model.memoryUsage();
    await Promise.all(sessions.slice(1).map((s) => s.dispose()));
    await sessions[0].rewind(32);
    const shape = { maxTokens: 10, beamWidth: 64, beamLength: 8, temperature: 1, ignoreEos: true };
    await sessions[0].generate(ids(3), shape).result();
    gc();
    const grown = kib('RssAnon') - before;
    console.log(JSON.stringify({ estimate, usage, grown, overshoot: kib('VmHWM') - kib('VmRSS') }));
    await model.dispose();`;
  return new Promise((resolve, reject) => {
    const args = ['--expose-gc', '--input-type=module', '-e', body];
    execFile(process.execPath, args, { timeout: 100_000 }, (error, stdout, stderr) => {
      if (error !== null) reject(new Error(stderr, { cause: error }));
      else resolve(JSON.parse(stdout) as Resident);
    });
  });
}

// A sanitizer has memory of its own for every allocation.
const sanitized = process.env['LD_PRELOAD']?.includes('asan') === true;

describe.runIf(process.platform === 'linux' && !sanitized)('resident memory', () => {
  const directory = writeLargeModel(10);
  const drafter = temporaryDirectory('resident');
  writeTinyDrafter(drafter, 'gru', 2048, 768, 3);
  it.each(['auto', 'bf16'] as const)('grows by what was estimated, dtype %s', { timeout: 120_000 }, async (dtype) => {
    const options = { drafter, dtype, threads: 2, contextTokens: 512, kvTokens: 1024, prefillChunk: 512 };
    const { estimate, usage, grown, overshoot } = await residentGrowth(directory, options);
    expect(usage.totalBytes).toBe(estimate.totalBytes);
    expect(usage.kvUsedBytes).toBe(estimate.kvBytes);
    expect(estimate.totalBytes).toBeGreaterThan(200e6);
    expect(Math.abs(grown / estimate.totalBytes - 1)).toBeLessThan(0.05);
    // Nothing is held twice on the way.
    expect(overshoot).toBeLessThan(0.05 * estimate.totalBytes);
  });
});
