import { describe, expect, it } from 'vitest';

import { expectError } from './build.js';
import { type Json, LLAMA, raw, read, without } from './configs.js';

const CODE = 'ERR_CONFIG';

describe('rope', () => {
  const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 512 };
  const llama3 = {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  it.each<[string, Json, Json]>([
    ['theta', { rope_theta: 500000.0 }, { theta: 500000, scaling: 'none' }],
    ['theta with an exponent', { rope_theta: raw('1e6') }, { theta: 1e6 }],
    ['null', { rope_scaling: null, rope_parameters: null }, { scaling: 'none' }],
    ['default', { rope_scaling: { rope_type: 'default' } }, { scaling: 'none' }],
    ['linear', { rope_scaling: { type: 'linear', factor: 2.5 } }, { scaling: 'linear', factor: 2.5 }],
    [
      'both names of the type',
      { rope_scaling: { type: 'linear', rope_type: 'linear', factor: 2 } },
      { scaling: 'linear' },
    ],
    [
      'llama3',
      { rope_scaling: llama3 },
      { scaling: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 },
    ],
    [
      'yarn',
      { rope_scaling: yarn },
      {
        scaling: 'yarn',
        factor: 4,
        originalMaxPositions: 512,
        betaFast: 32,
        betaSlow: 1,
        attentionFactor: 0,
        truncate: true,
      },
    ],
    ['yarn without the original length', { rope_scaling: { type: 'yarn', factor: 2 } }, { originalMaxPositions: 2048 }],
    [
      'yarn with everything',
      {
        rope_scaling: {
          ...yarn,
          attention_factor: 1.2,
          mscale: 0.7,
          mscale_all_dim: 0.5,
          beta_fast: 16,
          beta_slow: 2,
          truncate: false,
        },
      },
      { attentionFactor: 1.2, mscale: 0.7, mscaleAllDim: 0.5, betaFast: 16, betaSlow: 2, truncate: false },
    ],
    [
      'yarn with nulls',
      { rope_scaling: { ...yarn, attention_factor: null, mscale: null, beta_fast: null } },
      { attentionFactor: 0, betaFast: 32 },
    ],
    [
      'rope_parameters',
      { rope_parameters: { rope_theta: 1e6, rope_type: 'default' } },
      { theta: 1e6, scaling: 'none' },
    ],
    ['rope_parameters without a type', { rope_parameters: { rope_theta: 1e6 } }, { theta: 1e6, scaling: 'none' }],
    ['theta inside wins', { rope_theta: 5, rope_parameters: { rope_theta: 1e6 } }, { theta: 1e6 }],
    [
      'theta outside counts',
      { rope_theta: 1e6, rope_parameters: { rope_type: 'linear', factor: 2 } },
      { theta: 1e6, factor: 2 },
    ],
    [
      'both objects, equal',
      { rope_theta: 1e6, rope_scaling: llama3, rope_parameters: { ...llama3, rope_theta: 1e6 } },
      { theta: 1e6, scaling: 'llama3' },
    ],
    [
      'a full rotation',
      { partial_rotary_factor: 1.0, rope_parameters: { partial_rotary_factor: 1 } },
      { scaling: 'none' },
    ],
  ])('reads %s', (_, more, expected) => {
    expect(read({ ...LLAMA, ...more })).toMatchObject({ rope: expected });
  });

  it('lets yarn extend the context, and nothing else', () => {
    expect(
      read({ ...LLAMA, rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 2048 } }),
    ).toMatchObject({ maxPositions: 8192 });
    expect(read({ ...LLAMA, max_position_embeddings: 8192, rope_scaling: yarn })).toMatchObject({ maxPositions: 8192 });
    expect(read({ ...LLAMA, rope_scaling: { type: 'linear', factor: 4 } })).toMatchObject({ maxPositions: 2048 });
    const far = { type: 'yarn', factor: 1e6, original_max_position_embeddings: 2 ** 31 - 1 };
    expect(read({ ...LLAMA, rope_scaling: far })).toMatchObject({ maxPositions: 2 ** 31 - 1 });
  });

  const bad: [string, Json, RegExp][] = [
    [
      'dynamic',
      { rope_scaling: { type: 'dynamic', factor: 2 } },
      /"rope_scaling": "type" is "dynamic", which is not supported/,
    ],
    ['longrope', { rope_scaling: { rope_type: 'longrope', factor: 2 } }, /"rope_type" is "longrope"/],
    ['an unknown type', { rope_scaling: { rope_type: 'x\n' } }, /"rope_type" is "x\\u000a"/],
    ['a type that is a number', { rope_scaling: { rope_type: 1 } }, /"rope_type" must be a string, got 1/],
    [
      'two types',
      { rope_scaling: { rope_type: 'default', type: 'mrope' } },
      /"type" is "mrope", but "rope_type" is "default"/,
    ],
    ['a factor without a type', { rope_scaling: { factor: 2 } }, /"rope_type" is missing/],
    ['a string', { rope_scaling: 'linear' }, /"rope_scaling" must be an object, got the string "linear"/],
    ['no factor', { rope_scaling: { type: 'linear' } }, /"rope_scaling": "factor" is missing/],
    [
      'factor 0',
      { rope_scaling: { type: 'linear', factor: 0 } },
      /"factor" must be a number from 1e-06 to 1e\+06, got 0/,
    ],
    ['factor -2', { rope_scaling: { type: 'linear', factor: -2 } }, /got -2/],
    ['factor null', { rope_scaling: { type: 'linear', factor: null } }, /"factor" must be a number .*got null/],
    ['factor 1e400', { rope_scaling: raw('{"type":"linear","factor":1e400}') }, /got 1e400/],
    ['llama3 without its keys', { rope_scaling: { type: 'llama3', factor: 8 } }, /"low_freq_factor" is missing/],
    [
      'llama3 without the original length',
      { rope_scaling: without(llama3, 'original_max_position_embeddings') },
      /"original_max_position_embeddings" is missing/,
    ],
    [
      'llama3 with equal bounds',
      { rope_scaling: { ...llama3, high_freq_factor: 1 } },
      /"high_freq_factor" must be greater than "low_freq_factor", got 1/,
    ],
    [
      'a fractional original length',
      { rope_scaling: { ...llama3, original_max_position_embeddings: 0.5 } },
      /an integer from 1 to 2147483647, got 0.5/,
    ],
    [
      'yarn with reversed betas',
      { rope_scaling: { ...yarn, beta_fast: 1, beta_slow: 32 } },
      /"beta_fast" must not be less than/,
    ],
    ['yarn with attention_factor 0', { rope_scaling: { ...yarn, attention_factor: 0 } }, /"attention_factor" must be/],
    ['yarn with theta 1', { rope_theta: 1, rope_scaling: yarn }, /greater than 1 for yarn/],
    ['yarn with truncate 1', { rope_scaling: { ...yarn, truncate: 1 } }, /"truncate" must be true or false, got 1/],
    ['contradicting objects', { rope_scaling: llama3, rope_parameters: { rope_theta: 1e4 } }, /contradict each other/],
    [
      'objects per layer type',
      { rope_parameters: { full_attention: { rope_theta: 1e4 } } },
      /"full_attention" is an object: settings per layer type/,
    ],
    ['a partial rotation', { partial_rotary_factor: 0.5 }, /"partial_rotary_factor" must be 1 .*got 0.5/],
    [
      'a partial rotation inside',
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      /"partial_rotary_factor" must be 1/,
    ],
    ...['0', '-1', '"10000"', 'null', '1e999', '0.5', '[1]', 'true'].map((value): [string, Json, RegExp] => [
      `theta ${value}`,
      { rope_theta: raw(value) },
      /"rope_theta" must be a number from 1 to 1e\+15, got /,
    ]),
    ['theta NaN', { rope_theta: raw('NaN') }, /invalid JSON/],
  ];
  it.each(bad)('refuses %s', (_, more, message) => {
    expectError(() => read({ ...LLAMA, ...more }), CODE, /config\.json/, message);
  });
});
