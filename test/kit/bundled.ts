/** The bundled model: really trained, so that drafting really accepts. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Tokenizer } from '../../lib/tokenizer.js';

export const bundled = fileURLToPath(new URL('../../models/ts-declarations', import.meta.url));
export const trainedDrafters = { elman: join(bundled, 'drafter-elman'), gru: join(bundled, 'drafter-gru') };

export interface Prompt {
  name: string;
  text: string;
}

export const prompts = JSON.parse(readFileSync(join(bundled, 'prompts.json'), 'utf8')) as Prompt[];

const vocab = (JSON.parse(readFileSync(join(bundled, 'config.json'), 'utf8')) as { vocab_size: number }).vocab_size;

let tokenizer: Tokenizer | undefined;

/** Token ids of the held-out prompts, in order. */
export async function promptIds(): Promise<number[][]> {
  tokenizer ??= (await Tokenizer.load(bundled, vocab)) ?? undefined;
  const loaded = tokenizer;
  if (loaded === undefined) throw new Error('the bundled model has no tokenizer');
  return prompts.map(({ text }) => [...loaded.encode(text)]);
}
