// The tokenizer of a model directory as metadata of a GGUF: byte-level BPE, which is what the models here have.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** @typedef {import('./file.mjs').MetaValue} MetaValue */
/** @typedef {{ id: number, content: string, special: boolean }} AddedToken */
/** @typedef {{ type?: string, use_regex?: boolean, add_prefix_space?: boolean, pretokenizers?: PreTokenizer[],
 *   pattern?: { Regex?: string }, behavior?: string, invert?: boolean }} PreTokenizer */
/** @typedef {{ added_tokens?: AddedToken[], normalizer?: unknown, pre_tokenizer?: PreTokenizer | null,
 *   model?: { type?: string, vocab?: Record<string, number>, merges?: (string | [string, string])[],
 *   byte_fallback?: boolean } }} TokenizerJson */

/** Kinds of tokens. */
export const KIND = { normal: 1, control: 3, userDefined: 4, unused: 5 };

/** How a text is cut before merging: what a pattern in tokenizer.json is called in a GGUF. @type {Readonly<Record<string, string>>} */
const CALLED = {
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    'llama-bpe',
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+":
    'qwen2',
};

/**
 * The name of the pre-tokenizer; undefined where none is known to cut the same.
 * @param {PreTokenizer | null | undefined} pre
 */
export function preTokenizerName(pre) {
  if (pre?.type === 'ByteLevel' && pre.use_regex !== false && pre.add_prefix_space !== true) return 'gpt-2';
  const [split, bytes, ...rest] = pre?.type === 'Sequence' ? (pre.pretokenizers ?? []) : [];
  if (split?.type !== 'Split' || split.behavior !== 'Isolated' || split.invert === true || rest.length > 0)
    return undefined;
  if (bytes?.type !== 'ByteLevel' || bytes.use_regex !== false || bytes.add_prefix_space === true) return undefined;
  return CALLED[split.pattern?.Regex ?? ''];
}

/** @param {string} file @returns {unknown} */
const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

/**
 * @param {string} directory @param {number} vocab how many ids the model has; ids without a token become unused ones
 * @param {readonly number[]} eosIds of the model
 * @returns {Record<string, MetaValue>}
 */
export function tokenizerMetadata(directory, vocab, eosIds) {
  const file = join(directory, 'tokenizer.json');
  if (!existsSync(file)) throw new Error(`${directory} has no tokenizer.json`);
  const { model, added_tokens: added = [], pre_tokenizer: pre } = /** @type {TokenizerJson} */ (readJson(file));
  if (model?.type !== 'BPE' || model.byte_fallback === true || model.vocab === undefined) {
    throw new Error(`${file} is not a byte-level BPE, which is all that this writes`);
  }
  /** @type {(string | undefined)[]} */
  const tokens = new Array(vocab);
  const kinds = new Array(vocab).fill(KIND.unused);
  const put = (/** @type {number} */ id, /** @type {string} */ token, /** @type {number} */ kind) => {
    if (!Number.isInteger(id) || id < 0 || id >= vocab)
      throw new Error(`${file} has an id ${id}, but the model has ${vocab} ids`);
    tokens[id] = token;
    kinds[id] = kind;
  };
  for (const [token, id] of Object.entries(model.vocab)) put(id, token, KIND.normal);
  for (const { id, content, special } of added) put(id, content, special ? KIND.control : KIND.userDefined);
  const merges = (model.merges ?? []).map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
  const eos = eosIds[0];
  /** @type {Record<string, MetaValue>} */
  const metadata = {
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: preTokenizerName(pre) ?? 'default' },
    'tokenizer.ggml.tokens': { strings: Array.from(tokens, (token, id) => token ?? `[unused ${id}]`) },
    'tokenizer.ggml.token_type': { i32s: /** @type {number[]} */ (kinds) },
    'tokenizer.ggml.merges': { strings: merges },
    'tokenizer.ggml.add_bos_token': { bool: false },
  };
  const bos = bosId(directory, tokens);
  if (bos !== undefined) metadata['tokenizer.ggml.bos_token_id'] = { u32: bos };
  if (eos !== undefined) metadata['tokenizer.ggml.eos_token_id'] = { u32: eos };
  return metadata;
}

/** @param {string} directory @param {readonly (string | undefined)[]} tokens */
function bosId(directory, tokens) {
  const { bos_token_id: bos } = /** @type {{ bos_token_id?: unknown }} */ (readJson(join(directory, 'config.json')));
  return typeof bos === 'number' && tokens[bos] !== undefined ? bos : undefined;
}
