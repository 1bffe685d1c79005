/**
 * The part of `@huggingface/tokenizers` that is used here, typed. Its own declarations import without file
 * extensions, which TypeScript does not resolve for Node.
 */
import { Tokenizer } from '@huggingface/tokenizers';

import type { AddedToken } from './added-tokens.js';

interface TokenizerModel {
  (words: string[]): string[];
  tokens_to_ids: Map<string, number>;
  unk_token_id?: number;
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
