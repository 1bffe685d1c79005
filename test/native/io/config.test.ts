import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { directory, expectError, io, pick, xorshift } from './build.js';
import { type Json, LLAMA, MISTRAL, QWEN2, QWEN3, raw, read, text, without } from './configs.js';

const CODE = 'ERR_CONFIG';

describe('families and their defaults', () => {
  const rope = {
    theta: 10000,
    scaling: 'none',
    factor: 1,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 0,
    betaFast: 32,
    betaSlow: 1,
    attentionFactor: 0,
    mscale: 0,
    mscaleAllDim: 0,
    truncate: true,
  };
  const llama = {
    architecture: 'LlamaForCausalLM',
    family: 'llama',
    vocab: 1000,
    hidden: 64,
    layers: 2,
    heads: 4,
    kvHeads: 4,
    headDim: 16,
    ffn: 128,
    maxPositions: 2048,
    slidingWindow: 0,
    normEps: 1e-6,
    tiedEmbeddings: false,
    qkvBias: false,
    oBias: false,
    mlpBias: false,
    qkNorm: false,
    rope,
    eos: [],
  };
  it.each<[string, Json, Json]>([
    ['llama', LLAMA, llama],
    [
      'mistral',
      MISTRAL,
      { ...llama, architecture: 'MistralForCausalLM', family: 'mistral', slidingWindow: 4096, maxPositions: 4096 },
    ],
    [
      'qwen2',
      QWEN2,
      { ...llama, architecture: 'Qwen2ForCausalLM', family: 'qwen2', qkvBias: true, maxPositions: 32768 },
    ],
    [
      'qwen3',
      QWEN3,
      { ...llama, architecture: 'Qwen3ForCausalLM', family: 'qwen3', qkNorm: true, headDim: 128, maxPositions: 32768 },
    ],
  ])('%s', (_, config, expected) => {
    expect(read(config)).toEqual(expected);
  });

  it.each<[string, Json, Json]>([
    ['grouped heads', { ...LLAMA, num_key_value_heads: 2 }, { kvHeads: 2 }],
    ['null for grouped heads', { ...LLAMA, num_key_value_heads: null }, { kvHeads: 4 }],
    ['a head size', { ...LLAMA, head_dim: 32 }, { headDim: 32 }],
    ['null for the head size', { ...LLAMA, head_dim: null }, { headDim: 16 }],
    [
      'a head size where hidden is no multiple of heads',
      { ...LLAMA, hidden_size: 66, head_dim: 32 },
      { headDim: 32, hidden: 66 },
    ],
    ['eps', { ...LLAMA, rms_norm_eps: 1e-5 }, { normEps: 1e-5 }],
    ['tied embeddings', { ...LLAMA, tie_word_embeddings: true }, { tiedEmbeddings: true }],
    ['llama attention_bias', { ...LLAMA, attention_bias: true }, { qkvBias: true, oBias: true }],
    ['llama mlp_bias', { ...LLAMA, mlp_bias: true }, { mlpBias: true }],
    ['qwen3 attention_bias', { ...QWEN3, attention_bias: true }, { qkvBias: true, oBias: true }],
    ['qwen2 has no attention_bias', { ...QWEN2, attention_bias: true }, { qkvBias: true, oBias: false }],
    ['mistral has no attention_bias', { ...MISTRAL, attention_bias: true }, { qkvBias: false, oBias: false }],
    ['no model_type', without(LLAMA, 'model_type'), { family: 'llama' }],
    ['the activation', { ...LLAMA, hidden_act: 'silu' }, {}],
    ['a null quantization_config', { ...LLAMA, quantization_config: null }, {}],
    ['positions', { ...LLAMA, max_position_embeddings: 131072 }, { maxPositions: 131072 }],
    ['the largest vocabulary', { ...LLAMA, vocab_size: 1 << 24 }, { vocab: 1 << 24 }],
  ])('reads %s', (_, config, expected) => {
    expect(read(config)).toMatchObject(expected);
  });

  it.each<[string, Json, number, number]>([
    ['mistral, a window', { ...MISTRAL, sliding_window: 1024 }, 1024, 1024],
    [
      'mistral, a window above the limit',
      { ...MISTRAL, sliding_window: 1024, max_position_embeddings: 512 },
      1024,
      512,
    ],
    ['mistral, null', { ...MISTRAL, sliding_window: null }, 0, 131072],
    ['qwen2, not used', { ...QWEN2, sliding_window: 1024, use_sliding_window: false }, 0, 32768],
    ['qwen2, no word about use', { ...QWEN2, sliding_window: 1024 }, 0, 32768],
    ['qwen2, used', { ...QWEN2, sliding_window: 1024, use_sliding_window: true }, 1024, 1024],
    ['qwen3, used', { ...QWEN3, sliding_window: 1024, use_sliding_window: true }, 1024, 1024],
    ['qwen3, used, null', { ...QWEN3, sliding_window: null, use_sliding_window: true }, 0, 32768],
    ['qwen3, used, absent', { ...QWEN3, use_sliding_window: true }, 4096, 4096],
    ['qwen3, layer types', { ...QWEN3, layer_types: ['full_attention', 'full_attention'] }, 0, 32768],
    ['llama has none', { ...LLAMA, sliding_window: 16 }, 0, 2048],
  ])('windows: %s', (_, config, slidingWindow, maxPositions) => {
    expect(read(config)).toMatchObject({ slidingWindow, maxPositions });
  });
});

describe('eos', () => {
  it.each<[string, Json, Json | undefined, number[]]>([
    ['from config.json', { eos_token_id: 2 }, undefined, [2]],
    ['a list', { eos_token_id: [2, 0, 999, 2] }, undefined, [2, 0, 999]],
    ['null', { eos_token_id: null }, undefined, []],
    ['from generation_config.json', { eos_token_id: 2 }, { eos_token_id: [3, 4] }, [3, 4]],
    ['generation_config.json without it', { eos_token_id: 2 }, { temperature: 0.7 }, [2]],
    ['generation_config.json with null', { eos_token_id: 2 }, { eos_token_id: null }, [2]],
    ['generation_config.json with an empty list', { eos_token_id: 2 }, { eos_token_id: [] }, [2]],
  ])('%s', (_, more, generation, eos) => {
    expect(read({ ...LLAMA, ...more }, generation)).toMatchObject({ eos });
  });

  const ids = ['1000', '-1', '1.5', '"2"', 'true', '{}', '[1000]', '[[2]]', '[null]', '2147483648', '4294967298'];
  it.each(ids)('C02 refuses %s', (value) => {
    const message = /"eos_token_id" must be an id from 0 to 999, or a list of such ids, got /;
    expectError(() => read({ ...LLAMA, eos_token_id: raw(value) }), CODE, /config\.json/, message);
    expectError(() => read(LLAMA, { eos_token_id: raw(value) }), CODE, /generation_config\.json/, message);
  });

  it('refuses a list of thousands', () => {
    expectError(() => read({ ...LLAMA, eos_token_id: Array(1000).fill(1) }), CODE, /lists 1000 ids/);
  });

  it.each([
    ['x', /invalid JSON/],
    ['[]', /expected a JSON object, got an array/],
  ])('refuses generation_config.json %s', (generation, message) => {
    expectError(() => read(LLAMA, generation), CODE, /generation_config\.json/, message);
  });
});

describe('C02 numbers', () => {
  const required = ['vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads'];
  const optional = ['num_key_value_heads', 'head_dim', 'max_position_embeddings'];
  const values = [
    '0',
    '-1',
    '-0',
    '2147483648',
    '4294967297',
    '18446744073709551616',
    '1e308',
    '1e2',
    '32.0',
    '32.5',
    '"32"',
    'true',
    '[32]',
    '{}',
  ];
  const rows = [...required, ...optional].flatMap((key) =>
    [...values, ...(key === 'max_position_embeddings' ? ['null'] : [])].map((value) => [key, value] as const),
  );
  it.each(rows)('%s = %s', (key, value) => {
    expectError(
      () => read({ ...LLAMA, [key]: raw(value) }),
      CODE,
      new RegExp(`config.json": "${key}" must be an integer from \\d+ to \\d+, got `),
    );
  });
  it.each(required)('%s = null', (key) => {
    expectError(() => read({ ...LLAMA, [key]: null }), CODE, new RegExp(`"${key}" must be an integer .*got null`));
  });
  it.each(required)('no %s', (key) => {
    expectError(() => read(without(LLAMA, key)), CODE, new RegExp(`"${key}" is missing, expected an integer`));
  });

  it.each<[string, Json, RegExp]>([
    ['kv heads above heads', { num_key_value_heads: 8 }, /"num_key_value_heads" must be an integer from 1 to 4, got 8/],
    [
      'kv heads not dividing',
      { num_key_value_heads: 3 },
      /"num_key_value_heads" is 3, which does not divide "num_attention_heads" 4/,
    ],
    [
      'hidden no multiple of heads',
      { hidden_size: 66 },
      /"hidden_size" is 66, not a multiple of "num_attention_heads" 4/,
    ],
    ['an odd head size', { head_dim: 15 }, /"head_dim" is 15, it must be even/],
    ['an odd derived head size', { hidden_size: 60 }, /"head_dim" is 15, it must be even/],
    ['a huge derived head size', { hidden_size: 8192 }, /"head_dim" is 2048, it must be even and at most 1024/],
    ['a million layers', { num_hidden_layers: 1_000_000 }, /from 1 to 1024, got 1000000/],
    [
      'a window of 0',
      { architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 0 },
      /"sliding_window" must be an integer/,
    ],
    [
      'unknown layer types',
      { layer_types: ['linear_attention'] },
      /"layer_types" must be a list of .*got the string "linear_attention"/,
    ],
    ['layer types that are no list', { layer_types: 'full_attention' }, /"layer_types" must be a list, got/],
    ...['0', '-1', '-1e-6', '1e-400', '2', '"1e-6"', 'null', '1e999', '{}'].map((value): [string, Json, RegExp] => [
      `eps ${value}`,
      { rms_norm_eps: raw(value) },
      /"rms_norm_eps" must be a number from 1e-30 to 1, got/,
    ]),
    ...['tie_word_embeddings', 'attention_bias', 'mlp_bias'].flatMap((key) =>
      ['0', '"false"', 'null', '[]'].map((value): [string, Json, RegExp] => [
        `${key} ${value}`,
        { [key]: raw(value) },
        new RegExp(`"${key}" must be true or false, got`),
      ]),
    ),
    ...['"gelu"', '"SiLU"', 'null', '1'].map((value): [string, Json, RegExp] => [
      `hidden_act ${value}`,
      { hidden_act: raw(value) },
      /"hidden_act" must be "silu", the only activation supported, got/,
    ]),
  ])('%s', (_, more, message) => {
    expectError(() => read({ ...LLAMA, ...more }), CODE, message);
  });

  it('escapes and cuts values in messages', () => {
    expectError(
      () => read({ ...LLAMA, hidden_act: `a\n\u001b[31m${'x'.repeat(1e5)}` }),
      CODE,
      /"a\\u000a\\u001b\[31mx+"\.\.\. \(100007 bytes\)/,
    );
    expectError(() => read({ ...LLAMA, vocab_size: raw('9'.repeat(1e5)) }), CODE, /got 9{40}\.\.\.$/);
  });
});

describe('C02 what kind of model', () => {
  it.each<[string, Json, RegExp]>([
    [
      'an unknown architecture',
      { architectures: ['GPT2LMHeadModel'] },
      /names "GPT2LMHeadModel", which is not supported \(LlamaForCausalLM, /,
    ],
    ['an evil one', { architectures: ['x\n\u001b[2J'] }, /names "x\\u000a\\u001b\[2J"/],
    ['no list', { architectures: 'LlamaForCausalLM' }, /"architectures" must be a list with one name/],
    ['an empty list', { architectures: [] }, /a list with one name/],
    ['two', { architectures: ['LlamaForCausalLM', 'MistralForCausalLM'] }, /a list with one name/],
    ['a number', { architectures: [1] }, /a list with one name/],
    ['null', { architectures: null }, /a list with one name, got null/],
    [
      'another type',
      { model_type: 'mistral' },
      /"model_type" is "mistral", which contradicts the architecture "LlamaForCausalLM"/,
    ],
    ['a type that is a number', { model_type: 7 }, /"model_type" must be a string, got 7/],
    [
      'a drafter',
      { architectures: ['Drafter'], model_type: 'recurrent_drafting_drafter' },
      /this is a drafter, not a model/,
    ],
    [
      'quantized',
      { quantization_config: { quant_method: 'gptq' } },
      /"quantization_config" is present: of quantized checkpoints only those that redrafter quantize has written are supported/,
    ],
    ['quantized for MLX', { quantization: { bits: 4 } }, /"quantization" is present/],
  ])('%s', (_, more, message) => {
    expectError(() => read({ ...LLAMA, ...more }), CODE, message);
  });
  it('no architecture', () => {
    expectError(() => read(without(LLAMA, 'architectures')), CODE, /"architectures" is missing/);
  });
});

it('C03 ignores keys that would run or fetch something, and every unknown key', () => {
  const code = {
    auto_map: { AutoConfig: 'evil.Config', AutoModelForCausalLM: 'https://example.com/x--evil.Model' },
    _attn_implementation_internal: 'kernels-community/evil',
    custom_pipelines: { x: { impl: 'evil.Pipeline' } },
    _name_or_path: '../../etc/passwd',
    trust_remote_code: true,
    __proto__x: { y: 1 },
    constructor: { prototype: 1 },
    unknown: [[[{}]]],
  };
  expect(read({ ...LLAMA, ...code })).toEqual(read(LLAMA));
  expect(({} as Json)['y']).toBeUndefined();
});

describe('files', () => {
  it.each<[string, () => string, string, RegExp]>([
    ['no directory', () => join(directory(), 'none'), 'ERR_FILE', /no such directory/],
    ['no config.json', () => directory(), 'ERR_FILE', /config\.json": no such file/],
    [
      'config.json is a directory',
      () => {
        const dir = directory();
        mkdirSync(join(dir, 'config.json'));
        return dir;
      },
      'ERR_FILE',
      /it is a directory/,
    ],
    ['empty', () => directory({ 'config.json': '' }), CODE, /found the end of the text/],
    ['null', () => directory({ 'config.json': 'null' }), CODE, /expected a JSON object, got null/],
    ['a list', () => directory({ 'config.json': '[]' }), CODE, /expected a JSON object, got an array/],
    [
      'a duplicate key',
      () => directory({ 'config.json': '{"vocab_size":1,"vocab_size":2}' }),
      CODE,
      /the key "vocab_size" twice/,
    ],
    ['5 MB', () => directory({ 'config.json': ' '.repeat(5e6) }), CODE, /5000000 bytes, more than the 4194304 allowed/],
    ['nested', () => directory({ 'config.json': '['.repeat(4e6) }), CODE, /nested deeper/],
  ])('%s', (_, make, code, message) => {
    const dir = make();
    expectError(() => io.readModelConfig(dir), code, message);
    expectError(() => io.readDrafterConfig(dir), code, message);
  });

  it('reads fail with ERR_FILE', () => {
    const dir = directory({ 'config.json': text(LLAMA) });
    io.failRead(1);
    expectError(() => io.readModelConfig(dir), 'ERR_FILE', /cannot read ".*config\.json"/);
    expect(io.readModelConfig(dir)).toMatchObject({ vocab: 1000 });
  });
});

it('gives a configuration or ERR_CONFIG for 2,000 configurations with random values', () => {
  const random = xorshift(5);
  const values = [
    '0',
    '-1',
    '1',
    '2',
    '3',
    '64',
    '2147483648',
    '1e308',
    '0.5',
    '"x"',
    '"default"',
    '"yarn"',
    'null',
    'true',
    'false',
    '[]',
    '[1]',
    '{}',
    '{"type":"yarn","factor":2}',
    '{"rope_type":"linear"}',
    '["full_attention"]',
  ];
  const full: Json = {
    ...QWEN3,
    num_key_value_heads: 2,
    head_dim: 16,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: true,
    attention_bias: false,
    hidden_act: 'silu',
    max_position_embeddings: 512,
    rope_theta: 1e4,
    rope_scaling: null,
    rope_parameters: null,
    sliding_window: 64,
    use_sliding_window: true,
    eos_token_id: 3,
    layer_types: null,
    partial_rotary_factor: 1,
    quantization_config: null,
    extra: 1,
  };
  const keys = Object.keys(full);
  let loaded = 0;
  for (let i = 0; i < 2000; ++i) {
    const config = { ...full };
    for (let n = random(2); n >= 0; --n) config[pick(random, keys)] = raw(pick(random, values));
    try {
      const got = read(config) as { heads: number; kvHeads: number; headDim: number; maxPositions: number };
      ++loaded;
      expect(got.heads % got.kvHeads).toBe(0);
      expect(got.headDim % 2).toBe(0);
      expect(got.maxPositions).toBeGreaterThan(0);
    } catch (error) {
      expect(error).toMatchObject({ code: CODE });
    }
  }
  expect(loaded).toBeGreaterThan(200);
});
