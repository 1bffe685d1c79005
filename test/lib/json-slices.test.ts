/** Parsing in slices gives what JSON.parse gives, refuses what it refuses, and lets the event loop turn meanwhile. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { collect, parseInSlices, Pauses } from '../../lib/json-slices.js';
import { Tokenizer } from '../../lib/tokenizer.js';
import { createLibrary, fillBpe } from '../../lib/tokenizer-library.js';
import { bundled } from '../kit/bundled.js';
import { Random } from '../kit/random.js';
import { temporaryDirectory } from '../kit/checkpoint.js';
import { writeTokenizer } from './tokenizers.js';

const PATHS = [
  ['model', 'vocab'],
  ['model', 'merges'],
] as const;

type Json = Record<string, unknown>;

/** The whole value again, its slices put back. */
async function sliced(text: string): Promise<unknown> {
  const { rest, slices } = await parseInSlices(Buffer.from(text), PATHS, new Pauses());
  for (const [index, part] of slices.entries()) {
    if (part !== undefined) ((rest as Json).model as Json)[PATHS[index]?.[1] ?? ''] = await collect(part);
  }
  return rest;
}

/** A tokenizer.json with `size` tokens in its vocabulary. */
function tokenizerJson(size: number, newMerges: boolean): Json {
  const random = new Random(size);
  const letters = Array.from({ length: 60 }, (_, i) => String.fromCodePoint(0x61 + (i < 26 ? i : i + 300)));
  const tokens = new Set(['<unk>', '"\\', '{', '],', '__proto__', '0', ...letters]);
  const merges: unknown[] = [];
  const list = [...letters];
  while (tokens.size < size) {
    const [a = '', b = ''] = [list[random.integer(0, list.length)], list[random.integer(0, list.length)]];
    if (tokens.has(a + b)) continue;
    tokens.add(a + b);
    list.push(a + b);
    merges.push(newMerges ? [a, b] : `${a} ${b}`);
  }
  const vocab = Object.fromEntries([...tokens].map((token, id) => [token, id]));
  return {
    added_tokens: [
      { id: 5, content: '0', special: true },
      { id: size, content: '<|end|>', special: true },
    ],
    pre_tokenizer: null,
    normalizer: null,
    post_processor: null,
    decoder: null,
    model: { type: 'BPE', unk_token: '<unk>', vocab, merges },
  };
}

describe('parseInSlices', () => {
  const samples = [
    '{"model":{"vocab":{},"merges":[]}}',
    ' { "a" : [1, {"model": 2}], "model" : { "x" : "]}" , "vocab" : {"\\"}{": 1, "\\\\": -0.5e3} , "merges":[["a","b"], "c d"] } , "z":null }\n',
    '{"model":{"vocab":{"a":1},"vocab":{"b":2}},"model":{"merges":[3]}}',
    '{"model":{"vocab":{"a":1}},"model":5}',
    '{"model":{"vocab":{"a":1},"vocab":7}}',
    '{"model":[1,2],"model2":{"vocab":{}}}',
    '{"model":{"vocab":{"__proto__":1,"é漢😀":2}}}',
    '{}',
  ];

  it('gives what JSON.parse gives', async () => {
    for (const text of samples) expect(await sliced(text), text).toEqual(JSON.parse(text));
    const file = readFileSync(join(bundled, 'tokenizer.json'), 'utf8');
    expect(await sliced(file)).toEqual(JSON.parse(file));
    for (const newMerges of [true, false]) {
      const large = JSON.stringify(tokenizerJson(20_000, newMerges), undefined, newMerges ? 0 : 1);
      expect(large.length).toBeGreaterThan(5 * (1 << 14)); // there really are several slices
      expect(await sliced(large)).toEqual(JSON.parse(large));
    }
  });

  it('refuses what JSON.parse refuses, and accepts nothing else', async () => {
    const random = new Random(4);
    const characters = '{}[],:"\\ 0a\n\u0000';
    let refused = 0;
    for (let i = 0; i < 3000; i++) {
      const text = samples[random.integer(0, samples.length)] ?? '';
      const at = random.integer(0, text.length + 1);
      const extra = characters.charAt(random.integer(0, characters.length));
      const mutant = text.slice(0, at) + (i % 3 > 0 ? extra : '') + text.slice(at + (i % 3 < 2 ? 1 : 0));
      let expected: unknown;
      try {
        expected = JSON.parse(Buffer.from(mutant).toString()); // half a surrogate pair does not survive as bytes
      } catch {
        refused++;
        await expect(sliced(mutant), mutant).rejects.toThrow(SyntaxError);
        continue;
      }
      // Outermost arrays and scalars are no tokenizer.json; they are refused here already.
      if (typeof expected === 'object' && expected !== null && !Array.isArray(expected)) {
        expect(await sliced(mutant), mutant).toEqual(expected);
      }
    }
    expect(refused).toBeGreaterThan(1000);
    const large = JSON.stringify(tokenizerJson(4000, false));
    expect(large.length).toBeGreaterThan(5 * (1 << 14)); // there really are several slices
    for (let i = 0; i < 100; i++) {
      const at = large.indexOf(',', random.integer(0, large.length - 100));
      await expect(sliced(`${large.slice(0, at)},${large.slice(at)}`)).rejects.toThrow(SyntaxError);
    }
    await expect(sliced(large.replace('],"vocab"', ',],"vocab"').replace(']}}', ',]}}'))).rejects.toThrow(SyntaxError);
    await expect(sliced('[1]')).rejects.toThrow(SyntaxError);
    await expect(parseInSlices(Buffer.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), PATHS, new Pauses())).rejects.toThrow(TypeError); // prettier-ignore
  });
});

describe('a BPE filled in slices', () => {
  it('equals the one that its library builds at once', async () => {
    for (const newMerges of [true, false]) {
      const json = tokenizerJson(20_000, newMerges);
      const whole = createLibrary(json, {});
      const { rest, slices } = await parseInSlices(Buffer.from(JSON.stringify(json)), PATHS, new Pauses());
      const filled = createLibrary(rest as object, {});
      const [vocab, merges] = slices;
      if (vocab === undefined || merges === undefined) throw new Error('nothing was cut out');
      await fillBpe(filled, vocab, merges);
      const parts = (library: object): unknown[] => {
        const { model } = library as { model: Json };
        return ['tokens_to_ids', 'vocab', 'unk_token_id', 'merges', 'bpe_ranks'].map((part) => model[part]);
      };
      expect(parts(filled)).toEqual(parts(whole));
      // Nothing else may depend on the vocabulary: all other fields are the same already.
      const others = (library: object): Json => {
        const { model, ...rest } = library as { model: Json; tokenizer: unknown };
        const { tokens_to_ids, vocab, unk_token_id, merges, bpe_ranks, config, ...more } = model; // eslint-disable-line @typescript-eslint/no-unused-vars
        return { ...rest, tokenizer: null, model: { ...more } };
      };
      expect(others(filled)).toEqual(others(whole));
    }
  });

  it('lets the event loop turn', async () => {
    const folder = temporaryDirectory('tokenizer');
    writeTokenizer({ tokenizer: tokenizerJson(60_000, true) }, folder);
    let [turns, done] = [0, false];
    const turning = (): void => {
      turns++;
      if (!done) setImmediate(turning);
    };
    setImmediate(turning);
    const tokenizer = await Tokenizer.load(folder);
    done = true;
    expect(tokenizer?.encode('abc').length).toBeGreaterThan(0);
    expect(turns).toBeGreaterThan(20);
  });
});
