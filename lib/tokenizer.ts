import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { ChatTemplate, type ChatMessage } from './chat.js';
import { createDetokenizer, type Detokenizer, type TokenTable } from './detokenizer.js';
import { invalid, RedrafterError } from './errors.js';
import { collect, Pauses, parseInSlices } from './json-slices.js';
import { describe, OptionReader } from './options.js';
import { tokenBytes } from './token-bytes.js';
import { createLibrary, fillBpe, type TokenizerLibrary } from './tokenizer-library.js';
import { AddedTokens, type AddedToken } from './added-tokens.js';

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** Whether to add what the tokenizer puts around a text, such as a begin-of-sequence token. Default: true. */
  addSpecialTokens?: boolean;
  /** Whether special tokens written out in the text become those tokens. Default: false (plain text). */
  parseSpecialTokens?: boolean;
}

/** Options of {@link Tokenizer.decode}. */
export interface DecodeOptions {
  /** Whether to leave special tokens out. Default: true. */
  skipSpecialTokens?: boolean;
}

/** Options of {@link Tokenizer.encodeChat}. */
export interface ChatOptions {
  /** Whether to end with the header of an assistant message. Default: true. */
  addGenerationPrompt?: boolean;
  /** Whether special tokens written out in messages become those tokens. Default: false (plain text). */
  parseSpecialTokens?: boolean;
}

/** What is large in a tokenizer.json. */
const BPE_PARTS = [
  ['model', 'vocab'],
  ['model', 'merges'],
] as const;

/** Stands for the text when the post-processor is asked what it puts around one. */
const TEXT = '\0text';

/** Begins the words of vocabularies that are not bytes. */
const SPACE_MARK = '\u2581';

interface Json {
  [key: string]: unknown;
}

function failed(what: string, cause: unknown): RedrafterError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new RedrafterError('ERR_TOKENIZER', `${what}: ${why}`, { cause });
}

/** Reads a JSON object; undefined when there is no such file. */
async function readJson(path: string): Promise<Json | undefined> {
  const text = await readText(path);
  if (text === undefined) return undefined;
  try {
    return objectOf(path, JSON.parse(text));
  } catch (error) {
    throw error instanceof RedrafterError ? error : failed(`${path} is not JSON`, error);
  }
}

function objectOf(path: string, value: unknown): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
  throw new RedrafterError('ERR_TOKENIZER', `${path} must hold a JSON object`);
}

async function readText(path: string): Promise<string | undefined> {
  return (await readFileIfAny(path))?.toString('utf8');
}

async function readFileIfAny(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new RedrafterError('ERR_FILE', `cannot read ${path}`, { cause: error });
  }
}

/**
 * Builds the library's tokenizer from tokenizer.json. Those of large models hold the vocabulary and merges of a BPE in
 * many megabytes; they are taken in slices, and so the event loop is never held for long.
 */
async function buildLibrary(
  path: string,
  file: Buffer,
  config: Json,
  pauses: Pauses,
): Promise<{ filled: Json; library: TokenizerLibrary }> {
  let parsed: Awaited<ReturnType<typeof parseInSlices>>;
  try {
    parsed = await parseInSlices(file, BPE_PARTS, pauses);
  } catch (error) {
    throw failed(`${path} is not JSON`, error);
  }
  const { rest, slices } = parsed;
  const filled: Json = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    added_tokens: [],
    ...objectOf(path, rest),
  };
  try {
    const model = (filled.model ?? {}) as Json;
    const [vocab, merges] = slices;
    if (vocab !== undefined && merges !== undefined && model.type === 'BPE' && Array.isArray(model.merges)) {
      const library = createLibrary(filled, config);
      await fillBpe(library, vocab, merges);
      return { filled, library };
    }
    for (const [index, part] of slices.entries()) {
      if (part !== undefined) model[BPE_PARTS[index]?.[1] ?? ''] = await collect(part);
    }
    return { filled, library: createLibrary(filled, config) };
  } catch (error) {
    throw failed(`cannot use ${path}`, error);
  }
}

/** A token name of tokenizer_config.json: a string, or an object with `content`. */
function tokenName(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null || !('content' in value)) return undefined;
  return typeof value.content === 'string' ? value.content : undefined;
}

/**
 * Text to ids and back, as the model's tokenizer.json says. Decoding never "cleans up" spaces: the text is what
 * the tokens spell.
 */
export class Tokenizer {
  private readonly added: AddedTokens;
  private readonly before: number[] = [];
  private readonly after: number[] = [];
  private readonly table: TokenTable;
  private readonly tableWithSpecials: TokenTable;

  private constructor(
    private readonly library: TokenizerLibrary,
    private readonly vocab: number,
    private readonly chat: ChatTemplate | undefined,
    /** Id of the end-of-sequence token that tokenizer_config.json names, if any. */
    readonly eosTokenId: number | undefined,
    byteLevel: boolean,
  ) {
    this.added = new AddedTokens([...library.get_added_tokens_decoder().values()], library.normalizer);
    if (library.post_processor !== null) this.readFrame(library.post_processor.post_process([TEXT], null, true).tokens);
    const bytes = (id: number): Uint8Array | null => {
      if (this.added.byId.has(id)) return null;
      return tokenBytes(library.id_to_token(id) ?? '');
    };
    const decode = (ids: readonly number[]): string => this.decodeRun(ids);
    const special = (id: number): boolean => this.added.byId.get(id)?.special ?? library.id_to_token(id) === undefined;
    this.table = { byteLevel, bytes, decode, skipped: special };
    this.tableWithSpecials = { ...this.table, skipped: (id) => library.id_to_token(id) === undefined };
  }

  /**
   * Loads tokenizer.json, tokenizer_config.json and chat_template.jinja of a model directory. Resolves to null when
   * there is no tokenizer.json. Throws ERR_FILE, ERR_TOKENIZER, ERR_TEMPLATE.
   *
   * @param vocab Ids the model knows; text that needs others is refused. Default: any.
   */
  static async load(directory: string, vocab = Infinity): Promise<Tokenizer | null> {
    const path = join(directory, 'tokenizer.json');
    const [file, config = {}, template] = await Promise.all([
      readFileIfAny(path),
      readJson(join(directory, 'tokenizer_config.json')),
      readText(join(directory, 'chat_template.jinja')),
    ]);
    if (file === undefined) return null;
    const pauses = new Pauses();
    const { filled, library } = await buildLibrary(path, file, config, pauses);
    await pauses.pause();
    const eos = tokenName(config.eos_token);
    const chat = ChatTemplate.read(template ?? config.chat_template, {
      bos_token: tokenName(config.bos_token) ?? '',
      eos_token: eos ?? '',
    });
    const decoder: unknown = filled.decoder;
    const byteLevel =
      typeof decoder === 'object' && decoder !== null && 'type' in decoder && decoder.type === 'ByteLevel';
    const eosTokenId = eos === undefined ? undefined : library.token_to_id(eos);
    return new Tokenizer(library, vocab, chat, eosTokenId, byteLevel);
  }

  /** Whether the model directory has a chat template. */
  get hasChatTemplate(): boolean {
    return this.chat !== undefined;
  }

  /** Text to ids. Throws ERR_INVALID_ARGUMENT; ERR_TOKENIZER when the model has no id for a part of the text. */
  encode(text: string, options?: EncodeOptions): Int32Array {
    if (typeof text !== 'string') throw invalid(`text must be a string, got ${describe(text)}`);
    const read = new OptionReader(options, ['addSpecialTokens', 'parseSpecialTokens']);
    const frame = read.boolean('addSpecialTokens', true);
    const ids = this.encodeRun(text, read.boolean('parseSpecialTokens', false));
    return this.checked(frame ? [...this.before, ...ids, ...this.after] : ids);
  }

  /** Messages to ids through the chat template. Throws ERR_INVALID_ARGUMENT, ERR_TEMPLATE, ERR_TOKENIZER. */
  encodeChat(messages: readonly ChatMessage[], options?: ChatOptions): Int32Array {
    const read = new OptionReader(options, ['addGenerationPrompt', 'parseSpecialTokens']);
    const prompt = read.boolean('addGenerationPrompt', true);
    if (this.chat === undefined) throw new RedrafterError('ERR_TEMPLATE', 'the model has no chat template');
    const special = read.boolean('parseSpecialTokens', false) ? undefined : this.added.special;
    const { text, restore } = this.chat.render(messages, prompt, special);
    return this.checked(this.encodeRun(text, true, restore));
  }

  /**
   * Ids to text; bytes that are not UTF-8 become U+FFFD. Ids without a token decode to nothing. Throws
   * ERR_INVALID_ARGUMENT.
   */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string {
    const read = new OptionReader(options, ['skipSpecialTokens']);
    const table = read.boolean('skipSpecialTokens', true) ? this.table : this.tableWithSpecials;
    const kept = Array.from(ids).filter((id) => !table.skipped(id));
    if (!table.byteLevel) return table.decode(kept);
    const stream = createDetokenizer(table);
    return kept.map((id) => stream.push(id)).join('') + stream.flush();
  }

  /**
   * Decodes ids one by one, never giving out half a character. `context` is the id before the first one: where
   * words carry their leading space, it keeps the space between prompt and continuation.
   */
  detokenizer(context?: number): Detokenizer {
    return createDetokenizer(this.table, context);
  }

  /** A token by itself: how the vocabulary spells it, and its bytes where tokens are bytes. @internal */
  piece(id: number): { name: string; bytes: Uint8Array | null } {
    const name = this.library.id_to_token(id) ?? '';
    if (this.added.byId.has(id)) return { name, bytes: new TextEncoder().encode(name) };
    return { name, bytes: this.table.byteLevel ? this.table.bytes(id) : null };
  }

  /**
   * The bytes that a token adds to a text; none where it is left out of texts. Throws ERR_TOKENIZER where tokens are neither
   * bytes nor words that mark the space before them. @internal
   */
  tokenBytes(id: number): Uint8Array {
    const added = this.added.byId.get(id);
    const name = added?.content ?? this.library.id_to_token(id);
    if (name === undefined || added?.special === true) return new Uint8Array(0);
    const utf8 = new TextEncoder();
    if (added !== undefined) return utf8.encode(name);
    if (this.table.byteLevel) return tokenBytes(name);
    const byte = /^<0x([0-9A-F]{2})>$/.exec(name);
    return byte === null ? utf8.encode(name.replaceAll(SPACE_MARK, ' ')) : Uint8Array.of(parseInt(byte[1] ?? '', 16));
  }

  /** Whether `tokenBytes` tells what decoding makes of tokens. @internal */
  get hasTokenBytes(): boolean {
    return this.table.byteLevel || this.library.token_to_id(SPACE_MARK) !== undefined;
  }

  private decodeRun(ids: readonly number[]): string {
    if (ids.length === 0) return '';
    return this.library.decode([...ids], { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  private readFrame(tokens: readonly string[]): void {
    const at = tokens.indexOf(TEXT);
    if (at < 0) throw new RedrafterError('ERR_TOKENIZER', 'the post-processor of tokenizer.json drops the text');
    const id = (token: string): number => this.added.byContent.get(token)?.id ?? this.library.token_to_id(token) ?? -1;
    this.before.push(...tokens.slice(0, at).map(id));
    this.after.push(...tokens.slice(at + 1).map(id));
  }

  /** Follows the library's own encoding, but takes special tokens from text only when asked to. */
  private encodeRun(text: string, special: boolean, restore: (text: string) => string = (same) => same): number[] {
    const { normalizer, pre_tokenizer: split, model } = this.library;
    return this.added.split(text, special).flatMap((part, index) => {
      if (typeof part !== 'string') return [part.id];
      const plain = restore(part);
      return this.added.splitNormalized(normalizer === null ? plain : normalizer(plain), special).flatMap((piece) => {
        if (typeof piece !== 'string') return [piece.id];
        const words = split === null ? [piece] : split(piece, { section_index: index });
        return model(words).map((token) => model.tokens_to_ids.get(token) ?? model.unk_token_id ?? -1);
      });
    });
  }

  private checked(ids: readonly number[]): Int32Array {
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= this.vocab);
    if (wrong !== undefined) {
      throw new RedrafterError(
        'ERR_TOKENIZER',
        wrong === -1
          ? 'the vocabulary has no token for a part of the text'
          : `the tokenizer gives id ${wrong}, outside the model's vocabulary of ${this.vocab}`,
      );
    }
    return Int32Array.from(ids);
  }
}

export type { AddedToken, ChatMessage, Detokenizer };
