import { describe, expect, it } from 'vitest';

import { directory, expectError, io } from './build.js';
import { type Json, LLAMA, text, without } from './configs.js';

describe('drafters', () => {
  const APPLE: Json = {
    model_type: 'recurrent_drafting_drafter',
    architectures: ['Drafter'],
    vocab_size: 1000,
    hidden_size: 64,
    num_draft_layers: 2,
  };
  const OURS: Json = {
    model_type: 'redrafter_drafter',
    architectures: ['RecurrentDrafter'],
    cell: 'gru',
    vocab_size: 1000,
    hidden_size: 64,
    num_draft_layers: 0,
    exit_dim: 32,
  };
  const drafter = (config: Json): Json => io.readDrafterConfig(directory({ 'config.json': text(config) }));

  it.each<[string, Json, Json]>([
    ["Apple's without rnn", APPLE, { cell: 'sum', appleFormat: true, vocab: 1000, hidden: 64, exit: 128, blocks: 2 }],
    [
      "Apple's with rnn",
      { ...APPLE, rnn: true, exit_dim: 96, num_lookback_tokens: -1, emb_norm: true },
      { cell: 'elman', appleFormat: true, vocab: 1000, hidden: 64, exit: 96, blocks: 2 },
    ],
    [
      "Apple's by architecture",
      without(APPLE, 'model_type'),
      { cell: 'sum', appleFormat: true, vocab: 1000, hidden: 64, exit: 128, blocks: 2 },
    ],
    [
      "Apple's by type",
      without(APPLE, 'architectures'),
      { cell: 'sum', appleFormat: true, vocab: 1000, hidden: 64, exit: 128, blocks: 2 },
    ],
    ['ours', OURS, { cell: 'gru', appleFormat: false, vocab: 1000, hidden: 64, exit: 32, blocks: 0 }],
    [
      'ours, sum',
      { ...OURS, cell: 'sum' },
      { cell: 'sum', appleFormat: false, vocab: 1000, hidden: 64, exit: 32, blocks: 0 },
    ],
    [
      'ours, elman',
      { ...OURS, cell: 'elman', exit_dim: null },
      { cell: 'elman', appleFormat: false, vocab: 1000, hidden: 64, exit: 128, blocks: 0 },
    ],
  ])('reads %s', (_, config, expected) => {
    expect(drafter(config)).toEqual(expected);
  });

  it.each<[string, Json, RegExp]>([
    ['a model', LLAMA, /"model_type" is "llama": this is not a drafter/],
    ['nothing', {}, /"model_type" is missing: this is not a drafter/],
    ['ours without a cell', without(OURS, 'cell'), /"cell" is missing/],
    ['an unknown cell', { ...OURS, cell: 'lstm' }, /"cell" must be "sum", "elman" or "gru", got the string "lstm"/],
    ['a cell that is a number', { ...OURS, cell: 1 }, /"cell" must be a string, got 1/],
    ['rnn as a number', { ...APPLE, rnn: 1 }, /"rnn" must be true or false, got 1/],
    ['no vocabulary', without(APPLE, 'vocab_size'), /"vocab_size" is missing/],
    ['no hidden size', without(APPLE, 'hidden_size'), /"hidden_size" is missing/],
    ['no layers', without(APPLE, 'num_draft_layers'), /"num_draft_layers" is missing/],
    ['exit_dim -1', { ...APPLE, exit_dim: -1 }, /"exit_dim" must be an integer from 1 to 1048576, got -1/],
    ['layers -1', { ...APPLE, num_draft_layers: -1 }, /"num_draft_layers" must be an integer from 0 to 64, got -1/],
    ['65 layers', { ...APPLE, num_draft_layers: 65 }, /from 0 to 64, got 65/],
    ['hidden 2^31', { ...OURS, hidden_size: 2 ** 31 }, /"hidden_size" must be an integer/],
    ['hidden 0', { ...OURS, hidden_size: 0 }, /"hidden_size" must be an integer/],
    ['a string', { ...OURS, vocab_size: '1000' }, /"vocab_size" must be an integer .*got the string "1000"/],
  ])('C04 refuses %s', (_, config, message) => {
    expectError(() => drafter(config), 'ERR_CONFIG', /config\.json/, message);
  });
});
