import { Tokenizer as Library } from '@huggingface/tokenizers';
import { beforeAll, describe, expect, it } from 'vitest';

import type { Tokenizer } from '../../lib/tokenizer.js';
import { Random } from '../kit/random.js';
import { byteLevel, LLAMA_SPECIAL, loadTokenizer, sentencePiece } from './tokenizers.js';

type Decode = (ids: number[]) => string;

/** The library's own decoding, as an oracle that shares no code with the streaming one. */
function oracle(json: object): Decode {
  const library = new (
    Library as unknown as new (a: object, b: object) => { decode: (ids: number[], o: object) => string }
  )(json, {});
  return (ids) => (ids.length === 0 ? '' : library.decode(ids, { clean_up_tokenization_spaces: false }));
}

function stream(tokenizer: Tokenizer, ids: readonly number[], context?: number): string[] {
  const detokenizer = tokenizer.detokenizer(context);
  return [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()];
}

const SAMPLES = ['a', 'é', '€', '😀', 'e\u0301', '\ufeff', '\0', '\ufffd', '\u{10ffff}', ' ', 'he', 'll', '한'];

/** Bytes of random text, with random bytes in between. */
function randomBytes(random: Random): number[] {
  const utf8 = new TextEncoder();
  return Array.from({ length: random.integer(0, 12) }, () =>
    random.integer(0, 4) === 0
      ? [random.integer(0, 256)]
      : [...utf8.encode(SAMPLES[random.integer(0, SAMPLES.length)])],
  ).flat();
}

describe('byte-level detokenizer', () => {
  const json = byteLevel([
    { id: 258, content: '<|end|>', special: true },
    { id: 259, content: '<tool>', special: false },
  ]);
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await loadTokenizer({ tokenizer: json });
  });

  it('gives out characters only when they are complete', () => {
    const bytes = [...new TextEncoder().encode('a€😀')];
    expect(stream(tokenizer, bytes)).toEqual(['a', '', '', '€', '', '', '', '😀', '']);
  });

  it('gives U+FFFD for an unfinished character at the end and for stray bytes', () => {
    expect(stream(tokenizer, [0xe2, 0x82])).toEqual(['', '', '\ufffd']);
    expect(stream(tokenizer, [0x80, 97]).join('')).toBe('\ufffda');
    expect(stream(tokenizer, [0xe2, 97]).join('')).toBe('\ufffda');
  });

  it('keeps a byte order mark, skips special tokens, writes other added tokens', () => {
    expect(stream(tokenizer, [0xef, 0xbb, 0xbf, 97]).join('')).toBe('\ufeffa');
    expect(stream(tokenizer, [97, 258, 98, 259]).join('')).toBe('ab<tool>');
    expect(stream(tokenizer, [0xe2, 258, 0x82, 0xac]).join('')).toBe('€');
    expect(stream(tokenizer, [0xe2, 259, 0x82, 0xac]).join('')).toBe('\ufffd<tool>\ufffd\ufffd');
  });

  it('gives nothing for ids without a token', () => {
    expect(stream(tokenizer, [97, 5000, 98]).join('')).toBe('ab');
    expect(tokenizer.decode([97, 5000, 98])).toBe('ab');
  });

  it('equals decoding at once, on random bytes', () => {
    const decode = oracle(json);
    const random = new Random(2);
    for (let trial = 0; trial < 3000; trial++) {
      const ids = randomBytes(random).flatMap((byte) =>
        random.integer(0, 20) === 0 ? [byte, 256 + random.integer(0, 4)] : [byte],
      );
      const pieces = stream(tokenizer, ids);
      expect(pieces.join('')).toBe(tokenizer.decode(ids));
      expect(tokenizer.decode(ids)).toBe(decode(ids.filter((id) => id !== 258)));
      for (const piece of pieces) expect(piece.isWellFormed()).toBe(true);
    }
  });
});

describe('detokenizer with byte fallback', () => {
  const json = sentencePiece(LLAMA_SPECIAL);
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await loadTokenizer({ tokenizer: json });
  });
  const ids = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false })];

  it('gives out characters only when they are complete', () => {
    expect(stream(tokenizer, ids('h€'))).toEqual(['h', '', '', '€', '']);
    expect(stream(tokenizer, ids('h€').slice(0, 3))).toEqual(['h', '', '', '\ufffd']);
  });

  it('keeps the space between prompt and continuation', () => {
    const [first, second] = [ids('hello'), ids('world')];
    expect(stream(tokenizer, second).join('')).toBe('world');
    expect(stream(tokenizer, second, first.at(-1)).join('')).toBe(' world');
    expect(stream(tokenizer, second, 1).join('')).toBe('world'); // a special token is no text before it
  });

  it('equals decoding at once, on random bytes and words', () => {
    const decode = oracle(json);
    const random = new Random(3);
    for (let trial = 0; trial < 3000; trial++) {
      const list = randomBytes(random).flatMap((byte) =>
        random.integer(0, 3) === 0 ? [259 + random.integer(0, 12)] : [3 + byte],
      );
      const pieces = stream(tokenizer, list);
      expect(pieces.join('')).toBe(decode(list));
      expect(tokenizer.decode(list)).toBe(decode(list));
    }
  });

  it('continues a context as if decoded together', () => {
    const decode = oracle(json);
    const random = new Random(4);
    for (let trial = 0; trial < 1000; trial++) {
      const context = 259 + random.integer(0, 12);
      const list = randomBytes(random).flatMap((byte) =>
        random.integer(0, 3) === 0 ? [259 + random.integer(0, 12)] : [3 + byte],
      );
      expect(decode([context]) + stream(tokenizer, list, context).join('')).toBe(decode([context, ...list]));
    }
  });
});
