/**
 * The part of `@huggingface/tokenizers` that is used here, typed. Its own declarations import without file
 * extensions, which TypeScript does not resolve for Node.
 */
import { Tokenizer } from '@huggingface/tokenizers';

import type { AddedToken } from './added-tokens.js';
import { type Slices } from './json-slices.js';

interface TokenizerModel {
  (words: string[]): string[];
  tokens_to_ids: Map<string, number>;
  unk_token_id?: number | undefined;
}

/** What BPE has more: its merges, each under its two parts written as JSON. */
interface BpeModel extends TokenizerModel {
  vocab: (string | undefined)[];
  unk_token?: string | undefined;
  merges: [string, string][];
  bpe_ranks: Map<string, number>;
}

export interface TokenizerLibrary {
  normalizer: ((text: string) => string) | null;
  pre_tokenizer: ((text: string, options: { section_index: number }) => string[]) | null;
  model: TokenizerModel;
  post_processor: {
    post_process(tokens: string[], pair: null, addSpecialTokens: boolean): { tokens: string[] };
  } | null;
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): Map<number, AddedToken>;
}

type Constructor = new (tokenizer: object, config: object) => TokenizerLibrary;

/** Builds the library's tokenizer from the two JSON files. Throws what it throws. */
export function createLibrary(tokenizer: object, config: object): TokenizerLibrary {
  return new (Tokenizer as Constructor)(tokenizer, config);
}

/**
 * Gives a BPE model that was built with an empty vocabulary and no merges those of `vocab` and `merges`: what its
 * constructor does, in slices, so that a large vocabulary does not hold the event loop.
 */
export async function fillBpe(library: TokenizerLibrary, vocab: Slices, merges: Slices): Promise<void> {
  const model = library.model as BpeModel;
  const added = [...library.get_added_tokens_decoder().values()];
  for await (const piece of vocab) {
    for (const [token, id] of Object.entries(piece as Record<string, number>)) {
      model.tokens_to_ids.set(token, id);
      model.vocab[id] = token;
    }
  }
  // The constructor added these last.
  for (const { content, id } of added) {
    model.tokens_to_ids.set(content, id);
    model.vocab[id] = content;
  }
  model.unk_token_id = model.unk_token === undefined ? undefined : model.tokens_to_ids.get(model.unk_token);
  for await (const piece of merges) {
    for (const merge of piece as (string | [string, string])[]) {
      const pair = typeof merge === 'string' ? (merge.split(' ', 2) as [string, string]) : merge;
      model.bpe_ranks.set(JSON.stringify(pair), model.merges.length);
      model.merges.push(pair);
    }
  }
}
