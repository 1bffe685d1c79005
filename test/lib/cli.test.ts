import { execFile, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { beforeAll, describe, expect, it } from 'vitest';

import { type BackendStatus, estimateMemory, getBackends } from '../../lib/index.js';
import { temporaryDirectory } from '../kit/checkpoint.js';
import { writeTinyModel } from './tiny.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const paths = writeTinyModel();

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function redrafter(...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [MAIN, ...args], (_, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

interface Json {
  tokenIds: number[];
  text: string;
  finishReason: string;
  logprobs?: { id: number; logprob: number; top: [number, number][] }[];
  stats: Record<string, unknown>;
}

async function json(...args: string[]): Promise<Json> {
  const { code, stdout, stderr } = await redrafter('generate', ...args, '--json');
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout.endsWith('}\n') && !stdout.slice(0, -1).includes('\n')).toBe(true);
  return JSON.parse(stdout) as Json;
}

const IDS = ['--prompt-ids', '72,101,108', '--max-tokens', '24', '--threads', '1', '--device', 'cpu'];

beforeAll(() => {
  if (!existsSync(MAIN)) throw new Error('dist/ is missing: run `npm run build`');
});

describe('redrafter generate --context-policy', () => {
  it('ends with the context, or slides', async () => {
    const args = ['--model', paths.model, ...IDS, '--max-tokens', '60', '--ignore-eos', '--context-tokens', '40'];
    expect((await json(...args)).tokenIds).toHaveLength(40 - 3);
    expect((await json(...args, '--context-policy', 'error')).tokenIds).toHaveLength(40 - 3);
    const slid = await json(...args, '--context-policy', 'slide:3');
    expect([slid.tokenIds.length, slid.stats['droppedTokens']]).toEqual([60, expect.any(Number)]);
    expect(slid.stats['droppedTokens']).toBeGreaterThan(0);
    const { code, stderr } = await redrafter('generate', ...args, '--context-policy', 'slide:x');
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining('--context-policy must be error, slide or slide:TOKENS'),
    ]);
  });
});

describe('redrafter generate --json', () => {
  it('prints exactly the fields of its contract', async () => {
    const out = await json(
      '--model',
      paths.model,
      '--drafter',
      paths.drafter,
      ...IDS,
      '--logprobs',
      '2',
      '--beam-length',
      '4',
    );
    expect(Object.keys(out)).toEqual(['tokenIds', 'text', 'finishReason', 'logprobs', 'stats']);
    expect(Object.keys(out.stats)).toEqual([
      'promptTokens',
      'reusedTokens',
      'droppedTokens',
      'tokens',
      'rounds',
      'draftedRounds',
      'draftedNodes',
      'draftedByDepth',
      'acceptedByDepth',
      'acceptanceByDepth',
      'tokensPerStep',
      'timeToFirstTokenMs',
      'queuedMs',
      'prefillMs',
      'draftMs',
      'verifyMs',
      'hostMs',
      'totalMs',
      'tokensPerSecond',
    ]);
    expect(out.tokenIds).toHaveLength(24);
    expect(out.logprobs).toHaveLength(24);
    expect(out.logprobs?.[0]).toMatchObject({ id: out.tokenIds[0], top: [[out.tokenIds[0], out.logprobs?.[0]?.logprob], [expect.any(Number), expect.any(Number)]] }); // prettier-ignore
    expect(out.stats.acceptedByDepth).toHaveLength(4);
    expect(out.finishReason).toBe('length');
  });

  it('gives the same with and without a drafter, and without a tokenizer but for the text', async () => {
    const plain = await json('--model', paths.model, ...IDS);
    const shape = ['--beam-width', '8', '--beam-length', '5'];
    const drafted = await json('--model', paths.model, '--drafter', paths.drafter, ...IDS, ...shape);
    expect(Object.keys(plain)).toEqual(['tokenIds', 'text', 'finishReason', 'stats']);
    expect([drafted.tokenIds, drafted.text]).toEqual([plain.tokenIds, plain.text]);
    expect(drafted.stats.acceptedByDepth).toHaveLength(5);
    const bare = await json('--model', paths.idsOnly, '--drafter', 'none', ...IDS);
    expect([bare.tokenIds, bare.text]).toEqual([plain.tokenIds, '']);
  });

  it('takes a dtype', async () => {
    const logprob = async (dtype: string): Promise<number | undefined> =>
      (await json('--model', paths.model, ...IDS, '--logprobs', '0', '--dtype', dtype)).logprobs?.[0]?.logprob;
    const [f32, bf16] = [await logprob('f32'), await logprob('bf16')];
    expect(bf16).toBeCloseTo(f32 ?? NaN, 1);
    expect(bf16).not.toBe(f32);
  });

  it('quantises a model, which then gives what loading with the dtype gives', async () => {
    const out = join(temporaryDirectory('cli'), 'out');
    const { stdout } = await redrafter('quantize', paths.model, '--dtype', 'q8_0', '--out', out);
    expect(stdout).toMatch(/ of weights became .* in /);
    const logprob = async (...flags: string[]): Promise<number | undefined> =>
      (await json(...flags, ...IDS, '--logprobs', '0')).logprobs?.[0]?.logprob;
    const stored = await logprob('--model', out);
    expect(stored).toBe(await logprob('--model', paths.model, '--dtype', 'q8_0'));
    expect(stored).not.toBe(await logprob('--model', paths.model, '--dtype', 'f32'));
  });

  it('takes penalties, biases, bans and a minimal length', async () => {
    const with_ = async (...flags: string[]): Promise<number[]> =>
      (await json('--model', paths.model, ...IDS, ...flags)).tokenIds;
    const plain = await with_();
    for (const flag of ['--repetition-penalty=1.5', '--presence-penalty=2', '--frequency-penalty=-2']) {
      expect(await with_(flag)).not.toEqual(plain);
    }
    const [first = 0, ...rest] = await with_('--logit-bias', '17=100,18=100', '--ban', '18', '--min-tokens', '5');
    expect([first, new Set(rest)]).toEqual([17, new Set([17])]);
    for (const wrong of ['17', '17=x', 'x=1', '17=1,17=2', '17=101']) {
      const { code, stderr } = await redrafter('generate', '--model', paths.model, ...IDS, '--logit-bias', wrong);
      expect([code, stderr]).toEqual([1, expect.stringMatching(/logit-?bias/i)]);
    }
  });

  it('samples from a seed of 64 bits', async () => {
    const sample = (seed: string): Promise<Json> =>
      json('--model', paths.model, ...IDS, '--temperature', '1.5', '--top-k', '100', '--top-p', '0.99', '--min-p', '1e-4', '--seed', seed); // prettier-ignore
    const [a, b, c] = [await sample('18446744073709551615'), await sample('18446744073709551615'), await sample('7')];
    expect(a.tokenIds).toEqual(b.tokenIds);
    expect(a.tokenIds).not.toEqual(c.tokenIds);
  });

  it('takes text, and text through the chat template', async () => {
    const text = await json('--model', paths.model, '--prompt', 'Hel', '--max-tokens', '24', '--threads', '1');
    expect(text.tokenIds).toEqual((await json('--model', paths.model, ...IDS)).tokenIds);
    const chat = await json('--model', paths.model, '--prompt', 'Hel', '--chat', '--max-tokens', '5', '--threads', '1');
    const raw = await json('--model', paths.model, '--prompt', '[user]Hel\n', '--max-tokens', '5', '--threads', '1');
    expect(chat.tokenIds).toEqual(raw.tokenIds);
  });
});

describe('redrafter generate with a grammar', () => {
  const file = (name: string, text: string): string => {
    const path = join(temporaryDirectory('cli-grammar'), name);
    writeFileSync(path, text);
    return path;
  };
  const args = ['generate', '--model', paths.model, '--prompt', 'a', '--temperature', '1', '--seed', '3'];

  it('gives text that follows it', async () => {
    const schema = file('schema.json', '{"type":"array","items":{"enum":[1,"x"]},"minItems":2,"maxItems":2}');
    const { code, stdout } = await redrafter(...args, '--json-schema', schema);
    expect(code).toBe(0);
    for (const item of JSON.parse(stdout) as unknown[]) expect([1, 'x']).toContain(item);
    const grammar = file('grammar.txt', 'root ::= ("ab" | "cd"){3}');
    expect((await redrafter(...args, '--grammar', grammar)).stdout).toMatch(/(ab|cd){3}\n?$/);
  });

  it.each([
    ['ERR_GRAMMAR', '--json-schema', file('wrong.json', '{"type":')],
    ['ERR_GRAMMAR', '--json-schema', file('not.json', '{"not":{}}')],
    ['ERR_GRAMMAR', '--grammar', file('wrong.txt', 'root ::= other')],
    ['ERR_FILE', '--grammar', 'no-such-file'],
  ])('%s for %s %s', async (error, flag, path) => {
    const { code, stderr } = await redrafter(...args, flag, path);
    expect(code).not.toBe(0);
    expect(stderr).toContain(error);
  });
});

describe('redrafter generate', () => {
  it('streams text and ends with a line of figures on stderr', async () => {
    const plain = await json('--model', paths.model, ...IDS);
    const { code, stdout, stderr } = await redrafter('generate', '--model', paths.model, ...IDS);
    expect(code).toBe(0);
    expect(stdout.trimEnd()).toBe(plain.text.trimEnd());
    expect(stderr).toMatch(/^24 tokens, [\d.]+ tokens\/s, 1\.00 tokens per step\n$/);
  });

  it('ends by Ctrl-C with what there is', async () => {
    const args = ['generate', '--model', paths.model, '--prompt', 'Hello', '--max-tokens', '4000', '--ignore-eos'];
    const child = spawn(process.execPath, [MAIN, ...args, '--threads', '1', '--device', 'cpu:oracle']);
    let stderr = '';
    child.stderr.on('data', (data) => (stderr += String(data)));
    child.stdout.once('data', () => child.kill('SIGINT'));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect([code, stderr]).toEqual([130, expect.stringMatching(/^\d+ tokens?, /)]);
  });

  it('is quiet when its reader goes away', async () => {
    const args = ['generate', '--model', paths.model, '--prompt', 'Hello', '--max-tokens', '2000', '--ignore-eos'];
    const child = spawn(process.execPath, [MAIN, ...args, '--threads', '1']);
    let stderr = '';
    child.stderr.on('data', (data) => (stderr += String(data)));
    child.stdout.once('data', () => child.stdout.destroy());
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(0);
    expect(stderr).not.toContain('rror');
  });
});

describe('errors', () => {
  const model = ['--model', paths.model];
  const cases: [code: string, ...args: string[]][] = [
    ['ERR_INVALID_ARGUMENT', 'generate'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--prompt-ids', '1'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt-ids', '1', '--chat'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt-ids', '1,,2'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt-ids', ''],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt-ids', '264'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', ''],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--max-tokens', '0'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--max-tokens', '1e3'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--max-tokens', '12abc'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--temperature', 'NaN'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--temperature', '-1'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--top-p', '0'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--seed', '18446744073709551616'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--beam-width', '65'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--threads', '0'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--device', 'tpu'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--dtype', 'f64'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--drafter-dtype', 'q4_1'],
    ['ERR_INVALID_ARGUMENT', 'generate', ...model, '--prompt', 'a', '--nonsense'],
    ['ERR_INVALID_ARGUMENT', 'nonsense'],
    ['ERR_INVALID_ARGUMENT', 'inspect'],
    ['ERR_INVALID_ARGUMENT', 'demo', '--drafter', 'lstm'],
    ['ERR_FILE', 'generate', '--model', `${paths.model}-not`, '--prompt', 'a'],
    ['ERR_FILE', 'inspect', `${paths.model}-not`],
    ['ERR_FILE', 'estimate', `${paths.model}-not`],
    ['ERR_BACKEND', 'estimate', paths.model, '--device', 'cuda:99'],
    ['ERR_INVALID_ARGUMENT', 'estimate', paths.model, '--kv-tokens', '0'],
    ...['', '4 GiB', '4gib', '4K', '1.5', '1.5B', '-1', '1e9', '0x10', '0', '.5GB', '99999999999TiB'].map(
      (text): [string, ...string[]] => ['ERR_INVALID_ARGUMENT', 'estimate', paths.model, '--memory-budget', text],
    ),
    ['ERR_OOM', 'estimate', paths.model, '--memory-budget', '1kB'],
    ['ERR_TOKENIZER', 'generate', '--model', paths.idsOnly, '--prompt', 'a'],
  ];
  it.each(cases.map(([code, ...args]) => ({ name: args.join(' ').replace(paths.model, 'M'), code, args })))(
    '$code: $name',
    async ({ code, args }) => {
      const outcome = await redrafter(...args);
      expect(outcome.stdout).toBe('');
      expect(outcome.code).toBe(1);
      const [first, ...advice] = outcome.stderr.trimEnd().split('\n');
      expect(first).toMatch(/^error \[ERR_[A-Z_]+\]: \S/);
      expect(first).toContain(`[${code}]`);
      expect(advice.length).toBeLessThanOrEqual(1);
    },
  );
});

describe('other commands', () => {
  it('inspect shows configuration and tensors', async () => {
    const { code, stdout } = await redrafter('inspect', paths.model, '--json');
    expect(code).toBe(0);
    const found = JSON.parse(stdout) as { kind: string; config: object; tensors: { name: string }[] };
    expect(found).toMatchObject({ kind: 'model', config: { vocab: 264, layers: 2 } });
    expect(found.tensors.map(({ name }) => name)).toContain('lm_head.weight');
    expect((await redrafter('inspect', paths.drafter)).stdout).toContain('drafter:');
    expect((await redrafter('inspect', paths.model)).stdout).toMatch(/lm_head\.weight +f32 +264 x 32/);
  });

  it('estimate tells bytes by purpose', async () => {
    const dtypes = ['--dtype', 'bf16', '--drafter-dtype', 'q8_0'];
    const flags = ['--drafter', paths.drafter, ...dtypes, '--threads', '2', '--context-tokens', '100'];
    const more = ['--kv-tokens', '500', '--prefill-chunk', '32', '--device', 'cpu'];
    const { code, stdout, stderr } = await redrafter('estimate', paths.model, ...flags, ...more, '--json');
    expect([code, stderr]).toEqual([0, '']);
    const options = {
      ...({ drafter: paths.drafter, dtype: 'bf16', drafterDtype: 'q8_0', threads: 2, contextTokens: 100 } as const),
    };
    const estimate = await estimateMemory(paths.model, { ...options, kvTokens: 500, prefillChunk: 32 });
    expect(JSON.parse(stdout)).toEqual(estimate);
    expect(estimate.drafterBytes).toBeLessThan(
      (await estimateMemory(paths.model, { ...options, drafterDtype: 'bf16' })).drafterBytes,
    );
    const text = (await redrafter('estimate', paths.model, ...flags, ...more)).stdout;
    expect(text).toMatch(new RegExp(`^total +[\\d.]+ MB +${estimate.totalBytes} B$`, 'm'));
  });

  it.each([
    ['5000000', 5_000_000],
    ['5MB', 5_000_000],
    ['4.75MiB', 4_980_736],
    ['1.000005GB', 1_000_005_000],
  ])('estimate keeps to a budget of %s', async (text, memoryBudgetBytes) => {
    const flags = ['--threads', '1', '--memory-budget', text, '--json'];
    const { stdout } = await redrafter('estimate', paths.model, ...flags);
    const estimate = await estimateMemory(paths.model, { threads: 1, memoryBudgetBytes });
    expect(JSON.parse(stdout)).toEqual(estimate);
    expect(estimate.totalBytes).toBeLessThanOrEqual(memoryBudgetBytes);
  });

  it('info tells devices with reasons', async () => {
    const { stdout } = await redrafter('info', '--json');
    const info = JSON.parse(stdout) as { backends: BackendStatus[] };
    expect(info.backends).toEqual(getBackends());
    const text = (await redrafter('info')).stdout;
    for (const { device } of info.backends) expect(text).toContain(`  ${device} `);
    expect(text).toMatch(/^ {2}(cpu:\w+|cuda) +available, taken by auto$/m);
    expect(text).toMatch(/^ {2}cuda +(available, taken by auto|not available: .* \([A-Z_]+\))$/m);
  });

  it('help and version go to stdout with exit code 0', async () => {
    for (const args of [
      ['--help'],
      ['--version'],
      ['generate', '--help'],
      ['estimate', '--help'],
      ['demo', '--help'],
    ]) {
      const { code, stdout, stderr } = await redrafter(...args);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).not.toBe('');
    }
  });

  it('demo decodes both ways and finds the ids equal', async () => {
    const { code, stdout, stderr } = await redrafter('demo', '--prompts', '2', '--max-tokens', '20', '--threads', '1');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('token ids are equal');
    expect(stdout).toContain('tokens/step');
  });
});
