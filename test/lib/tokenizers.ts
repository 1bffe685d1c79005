/** Small tokenizers for tests, written as model directories. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Tokenizer } from '../../lib/tokenizer.js';
import { temporaryDirectory } from '../kit/checkpoint.js';

interface Added {
  id: number;
  content: string;
  special: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
  normalized?: boolean;
}

export interface TokenizerFiles {
  tokenizer: unknown;
  config?: unknown;
  template?: string;
}

export function writeTokenizer(files: TokenizerFiles, directory = temporaryDirectory('tokenizer')): string {
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(files.tokenizer));
  if (files.config !== undefined) writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify(files.config));
  if (files.template !== undefined) writeFileSync(join(directory, 'chat_template.jinja'), files.template);
  return directory;
}

export async function loadTokenizer(files: TokenizerFiles, vocab?: number): Promise<Tokenizer> {
  const tokenizer = await Tokenizer.load(writeTokenizer(files), vocab);
  if (tokenizer === null) throw new Error('no tokenizer');
  return tokenizer;
}

/** GPT-2's printable character of each byte. */
export function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(printable ? byte : next++);
  });
}

/** Byte-level: ids 0..255 are the bytes, then two merges, then added tokens. */
export function byteLevel(added: Added[] = []): object {
  const vocab: Record<string, number> = Object.fromEntries(byteCharacters().map((c, i) => [c, i]));
  vocab.he = 256;
  vocab.ll = 257;
  return {
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: ['h e', 'l l'], byte_fallback: false },
  };
}

/** SentencePiece-like, as Llama 2: word starts are marked, bytes are a fallback, decoding drops the first space. */
export function sentencePiece(added: Added[]): object {
  const vocab: Record<string, number> = { '<unk>': 0, '<s>': 1, '</s>': 2 };
  for (let byte = 0; byte < 256; byte++) {
    vocab[`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`] = 3 + byte;
  }
  for (const token of ['▁', 'h', 'e', 'l', 'o', 'w', 'r', 'd', '▁h', '▁w', 'll', '�']) {
    vocab[token] = Object.keys(vocab).length;
  }
  return {
    added_tokens: added,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: { type: 'BPE', vocab, merges: ['▁ h', '▁ w', 'l l'], unk_token: '<unk>', byte_fallback: true },
  };
}

export const LLAMA_SPECIAL: Added[] = ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true }));
