/** A random model with a byte-level tokenizer and a random drafter: everything the API needs, in a second. */
import { join } from 'node:path';

import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { byteLevel, writeTokenizer } from './tokenizers.js';

export const VOCAB = 264;

export const TINY = {
  vocab: VOCAB,
  hidden: 32,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  ffn: 48,
  maxPositions: 4096,
};

export interface TinyModel {
  model: string;
  drafter: string;
  /** The same model without tokenizer.json. */
  idsOnly: string;
}

export function writeTinyModel(): TinyModel {
  const root = temporaryDirectory('tiny');
  const paths = { model: join(root, 'model'), drafter: join(root, 'drafter'), idsOnly: join(root, 'ids-only') };
  writeTinyLlama(paths.model, TINY, 11);
  writeTinyLlama(paths.idsOnly, TINY, 11);
  writeTinyDrafter(paths.drafter, 'gru', VOCAB, TINY.hidden, 12);
  const template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}";
  writeTokenizer({ tokenizer: byteLevel([{ id: 258, content: '<|end|>', special: true }]), template }, paths.model);
  return paths;
}

/** Resolves after the messages that are under way have been delivered. */
export function turn(ms = 0): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
