/** Grammars as EBNF: what their texts are, by the matcher itself on texts drawn at random, and what is refused. */
import { beforeAll, describe, expect, it, vi } from 'vitest';

import { Compiler, type GrammarMatcher } from '../../lib/grammar/compiler.js';
import { answerTo, hasBit } from '../../lib/grammar/masks.js';
import { integersBetween } from '../../lib/grammar/numbers.js';
import { type Grammar, resolveGrammar } from '../../lib/grammar/options.js';
import { RedrafterError } from '../../lib/errors.js';
import { Tokenizer } from '../../lib/tokenizer.js';
import { bundled } from '../kit/bundled.js';
import { Random } from '../kit/random.js';
import { isValid, SCHEMAS } from '../kit/schema.js';

const VOCAB = 2048;
const END = 1;

let tokenizer: Tokenizer;
let compiler: Compiler;
beforeAll(async () => {
  tokenizer = (await Tokenizer.load(bundled, VOCAB)) as Tokenizer;
  compiler = await Compiler.create(tokenizer, VOCAB);
});

const matcherOf = (grammar: Grammar): Promise<GrammarMatcher> => compiler.matcher(resolveGrammar(grammar) ?? '', [END]);

/** Whether a matcher takes a text as a whole. */
async function takes(grammar: Grammar, text: string): Promise<boolean> {
  const matcher = await matcherOf(grammar);
  for (const id of tokenizer.encode(text, { addSpecialTokens: false })) {
    if (!hasBit((await matcher.position()).mask, id)) return false;
    matcher.accept(id);
  }
  const { mask, ends } = await matcher.position();
  matcher.dispose();
  return ends || hasBit(mask, END);
}

/** A text of tokens drawn from what is allowed; short ones now and then, so that texts end. Undefined: it did not end. */
async function drawn(grammar: Grammar, random: Random, most = 100): Promise<string | undefined> {
  const matcher = await matcherOf(grammar);
  const ids: number[] = [];
  try {
    while (ids.length < most) {
      const { mask, ends } = await matcher.position();
      const allowed = Array.from({ length: VOCAB }, (_, id) => id).filter((id) => hasBit(mask, id));
      if (ends || (allowed.includes(END) && random.integer(0, 3) > 0)) return tokenizer.decode(ids);
      const closing = allowed.filter((id) => /^["\]}\d:,\s]{1,2}$/.test(tokenizer.decode([id])));
      const id = random.pick(
        closing.length > 0 && random.integer(0, 4) > 0 ? closing : allowed.filter((one) => one !== END),
      );
      ids.push(id);
      matcher.accept(id);
    }
    return undefined;
  } finally {
    matcher.dispose();
  }
}

describe('a JSON schema', () => {
  it.each(Object.entries(SCHEMAS))(
    '%s: takes what it allows, and its texts are valid',
    async (name, { schema, example }) => {
      const grammar: Grammar = { type: 'json_schema', schema };
      expect(isValid(schema, example)).toBe(true);
      expect(await takes(grammar, JSON.stringify(example))).toBe(true);
      const random = new Random(7);
      let ended = 0;
      for (let i = 0; i < 15; i++) {
        const text = await drawn(grammar, random);
        if (text === undefined) continue;
        ended++;
        expect(isValid(schema, JSON.parse(text)), text).toBe(true);
      }
      if (name !== 'open pattern') expect(ended).toBeGreaterThan(2);
    },
  );
  it.each([
    [{ type: 'object', properties: { a: {} } }, ['{"b": 1}', '[]', '{"a": 1,}', '{"a": 1, "a": 2}', '']],
    [{ type: 'object', properties: { a: {}, b: {} }, required: ['b'] }, ['{}', '{"a": 1}']],
    [{ type: 'integer', minimum: 5, maximum: 20 }, ['4', '21', '05', '5.0', '-7', '200', '']],
    [{ type: 'number' }, ['01', '1.', '.5', '+1', 'NaN', '1e', '1234567890123456']],
    [{ type: 'string' }, ['"a', 'a"', '"\n"', '"\\x"', '"\\ud800"', '"""']],
    [{ type: 'string', pattern: '^a.b$' }, ['"a"b"', '"a\\b"', '"axxb"']],
    [{ type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 3 }, ['[1]', '[1,2,3,4]', '["a",1]', '[1 2]']],
    [{ enum: ['a', 1] }, ['"b"', '2', 'a']],
  ] as const)('%j refuses what it does not allow', async (schema, texts) => {
    for (const text of texts) expect(await takes({ type: 'json_schema', schema }, text), text).toBe(false);
  });
  it('takes white space between tokens, so much and no more', async () => {
    const grammar: Grammar = { type: 'json_schema', schema: { type: 'array', items: { type: 'integer' } } };
    expect(await takes(grammar, '[ 1 ,\n\t2\r\n]')).toBe(true);
    expect(await takes(grammar, `[${' '.repeat(32)}1]`)).toBe(true);
    for (const text of [`[${' '.repeat(33)}1]`, ' [1]', '[1] ']) expect(await takes(grammar, text)).toBe(false);
  });
  it.each([
    [false, '#: false allows nothing'],
    [{ not: {} }, '#: not is not supported'],
    [{ properties: { a: { type: 'objct' } } }, '#/properties/a: unknown type "objct"'],
    [{ type: 5 }, '#: unknown type 5'],
    [{ type: [] }, '#: type must not be empty'],
    [{ items: { oneOf: [{ type: 'integer' }, { type: 'number' }] } }, '#/items: oneOf is supported where'],
    [{ allOf: [{ type: 'integer' }, { minimum: 3 }] }, 'allOf of more than one schema'],
    [{ anyOf: [{ type: 'integer' }], minimum: 3 }, 'minimum beside anyOf'],
    [{ $ref: '#/$defs/a', type: 'integer', $defs: { a: {} } }, 'type beside $ref'],
    [{ $ref: '#/$defs/b', $defs: { a: {} } }, '$ref #/$defs/b leads nowhere'],
    [{ $ref: 'other.json' }, "$ref must be '#'"],
    [{ $ref: '#' }, 'consists of itself'],
    [{ anyOf: [{ $ref: '#' }, { type: 'integer' }] }, 'consists of itself'],
    [{ type: 'integer', multipleOf: 3 }, 'multipleOf is not supported'],
    [{ minimum: 3 }, 'minimum needs a type'],
    [{ type: 'string', minimum: 3 }, 'minimum is not supported for type string'],
    [{ type: 'integer', minimum: 9, maximum: 3 }, 'no integer'],
    [{ type: 'number', minimum: 1.5 }, 'minimum of a number'],
    [{ type: 'number', maximum: 1 }, 'maximum is not supported for type number'],
    [{ type: 'object', required: ['a'] }, 'required names "a"'],
    [{ type: 'object', properties: { a: {} }, additionalProperties: {} }, 'additionalProperties beside properties'],
    [{ type: 'array', uniqueItems: true }, 'uniqueItems is not supported'],
    [{ type: 'array', minItems: 5, maxItems: 3 }, 'minItems is above'],
    [{ type: 'array', maxItems: 5000 }, 'maxItems must be an integer'],
    [{ type: 'array', prefixItems: [{}] }, 'prefixItems is supported'],
    [{ type: 'string', minLength: 4, maxLength: 3 }, 'minLength is above'],
    [{ type: 'string', format: 'email' }, 'format "email" is not supported'],
    [{ type: 'string', pattern: 'a', maxLength: 3 }, 'only one'],
    [{ type: 'string', pattern: '(?=a)' }, 'look-around'],
    [{ type: 'string', pattern: '^[^é]$' }, 'beyond ASCII'],
    [{ type: 'integer', enum: [1, 'a'] }, 'not of type'],
    [{ enum: [] }, 'enum must be an array'],
  ])('%j is refused with its place: %s', (schema, why) => {
    try {
      resolveGrammar({ type: 'json_schema', schema });
    } catch (error) {
      expect(error).toBeInstanceOf(RedrafterError);
      expect(error).toMatchObject({ code: 'ERR_GRAMMAR', name: 'InvalidArgumentError' });
      expect((error as Error).message).toContain(why);
      return;
    }
    expect.unreachable();
  });
  it('is refused where it is too deep', () => {
    let schema: object = { type: 'integer' };
    for (let i = 0; i < 70; i++) schema = { type: 'array', items: schema };
    expect(() => resolveGrammar({ type: 'json_schema', schema })).toThrow('more than 64 deep');
  });
});

describe('integers between bounds', () => {
  it.each([[0, 0], [0, 9], [3, 7], [0, 10], [8, 112], [-5, 5], [-120, -99], [99, 1234], [-1000, 17]])(
    'from %d to %d: those and no others',
    (low, high) => {
      const pattern = new RegExp(`^(?:${integersBetween(low, high).replaceAll(/"([^"]*)"/g, '$1').replaceAll(' ', '')})$`);
      for (let i = -1500; i <= 1500; i++) expect(pattern.test(String(i)), String(i)).toBe(i >= low && i <= high);
      for (const text of ['-0', '00', '', '1.0', '01']) expect(pattern.test(text)).toBe(false);
    },
  ); // prettier-ignore
});

describe('a regular expression', () => {
  it.each([
    ['(foo|bar)+-\\d{3}', ['foo-123', 'barfoo-000'], ['foo-12', '-123', 'foo-1234']],
    ['^a?b*c+$', ['c', 'abbc', 'bcc'], ['ab', '', 'aac']],
    ['[A-Za-z_]\\w*', ['x', 'foo_1'], ['1x', 'a-b', '']],
    ['.{2,4}', ['ab', 'é😀"'], ['a', 'abcde', 'a\nb']],
    ['[^\\d\\s]+', ['ab-', 'é😀'], ['a1', 'a b', '']],
    ['\\$\\{(?:\\}|x)\\u0041\\x42\\t', ['${}AB\t', '${xAB\t'], ['${}AB']],
    ['(?<name>[é-ë中]|\\]|-){2}', ['éë', '中]', '-ê'], ['e-', 'ì中']],
    ['a|', ['a', ''], ['b']],
    ['x{3}', ['xxx'], ['xx', 'xxxx']],
    ['a{2,}?b', ['aab', 'aaaab'], ['ab']],
  ])('%s', async (pattern, good, bad) => {
    const grammar: Grammar = { type: 'regex', pattern };
    for (const text of good) expect([text, await takes(grammar, text)]).toEqual([text, true]);
    for (const text of bad) expect([text, await takes(grammar, text)]).toEqual([text, false]);
    const own = new RegExp(`^(?:${pattern})$`, 'u');
    const random = new Random(3);
    for (let i = 0; i < 20; i++) {
      const text = await drawn(grammar, random, 30);
      if (text !== undefined) expect(text).toMatch(own);
    }
  });
  it.each(['(', 'a)', '[a', '[z-a]', 'a**', '*', 'a{3,1}', 'a{2000}', '{', '\\b', '\\1', '(?=a)', '(?<!a)b', '\\p{L}', 'a$b', 'a^', '^a|b$', '[]', '\\', '\\ud800'])(
    '%s is refused',
    (pattern) => {
      expect(() => resolveGrammar({ type: 'regex', pattern })).toThrow(expect.objectContaining({ code: 'ERR_GRAMMAR' }) as Error);
    },
  ); // prettier-ignore
});

describe('the option', () => {
  it.each([
    [null, 'grammar must be an object, got null'],
    [{}, "type of grammar must be 'json'"],
    [{ type: 'xml' }, "type of grammar must be 'json'"],
    [{ type: 'json', schema: {} }, 'a grammar of type json has no schema'],
    [{ type: 'json_schema' }, 'schema of grammar must be a JSON schema, got undefined'],
    [{ type: 'json_schema', schema: 'x' }, 'schema of grammar must be a JSON schema'],
    [{ type: 'regex', pattern: 5 }, 'pattern of grammar must be'],
    [{ type: 'ebnf', grammar: '\ud800' }, 'grammar of grammar must be'],
    [{ type: 'json', more: 1 }, 'unknown option "more"'],
  ])('%j is refused', (value, why) => {
    expect(() => resolveGrammar(value)).toThrow(why);
  });
  it('refuses a schema that contains itself as an object', () => {
    const schema: Record<string, unknown> = {};
    schema.items = schema;
    expect(() => resolveGrammar({ type: 'json_schema', schema })).toThrow('cannot be written as JSON');
  });
});

describe('EBNF', () => {
  it('is followed as it is', async () => {
    const grammar: Grammar = {
      type: 'ebnf',
      grammar: 'root ::= greeting " " name "!"?\ngreeting ::= "Hi" | "Hello"\nname ::= [A-Z] [a-z]*',
    };
    expect(await takes(grammar, 'Hello Ann!')).toBe(true);
    expect(await takes(grammar, 'Hi B')).toBe(true);
    expect(await takes(grammar, 'Hi b')).toBe(false);
  });
  it.each([
    ['root ::= "a" b', 'Rule "b" is not defined'],
    ['start ::= "a"', 'root'],
    ['root ::= (', 'line 1'],
    ['', ''],
  ])('%s is refused, and the next one works', async (grammar, why) => {
    const error = await matcherOf({ type: 'ebnf', grammar }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ERR_GRAMMAR' });
    expect((error as Error).message).toContain(why);
    expect(await takes({ type: 'ebnf', grammar: 'root ::= "x"' }, 'x')).toBe(true);
  });
});

describe('masks', () => {
  it('of a tree are those of fresh matchers over the text of each node', async () => {
    const grammar: Grammar = { type: 'json_schema', schema: SCHEMAS.person?.schema ?? {} };
    const random = new Random(11);
    const ids = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false })];
    const matcher = await matcherOf(grammar);
    let text: number[] = [];
    let wrong = 0;
    for (const accepted of [[], ids('{"name"'), ids(': "some words"'), ids(', "age": 42')]) {
      text = [...text, ...accepted];
      const size = 12;
      const tokens = Int32Array.from({ length: size }, () =>
        random.pick([...ids('" words,:}{12"name"'), random.integer(0, VOCAB)]),
      );
      const parents = Int32Array.from({ length: size }, (_, i) => (i === 0 ? -1 : random.integer(0, i)));
      const question = Int32Array.from([9, 1, 5, accepted.length, size, 0, ...accepted, ...tokens, ...parents]);
      const answer = await answerTo(question, new Map([[5, matcher]]));
      const [number, masks = 0, known] = answer;
      expect([number, known]).toEqual([9, 1]);
      const words = (answer.length - 3 - size) / masks;
      for (let node = 0; node < size; node++) {
        const path: number[] = [];
        for (let at = node; at > 0; at = parents[at] ?? 0) path.unshift(tokens[at] ?? 0);
        const fresh = await matcherOf(grammar);
        let reached = true;
        for (const id of [...text, ...path]) {
          reached &&= hasBit((await fresh.position()).mask, id);
          if (reached) fresh.accept(id);
        }
        const index = answer[3 + node] ?? -1;
        if (reached)
          expect(answer.subarray(3 + size + index * words, 3 + size + (index + 1) * words)).toEqual(
            (await fresh.position()).mask,
          );
        else expect(index).toBe(-1);
        wrong += reached ? 0 : 1;
        fresh.dispose();
      }
    }
    expect(wrong).toBeGreaterThan(3);
  });
  it('share what is equal', async () => {
    const matcher = await matcherOf({ type: 'json' });
    const open = tokenizer.encode('"a', { addSpecialTokens: false });
    const words = tokenizer.encode(' of the', { addSpecialTokens: false });
    const question = Int32Array.from([1, 1, 7, open.length, 3, 0, ...open, 0, ...words, -1, 0, 1]);
    const answer = await answerTo(question, new Map([[7, matcher]]));
    expect([...answer.subarray(0, 6)]).toEqual([1, 1, 1, 0, 0, 0]);
  });
  it('are made once while a text may come to them, and only those that are wanted are given', async () => {
    const matcher = await matcherOf({ type: 'json' });
    const position = vi.spyOn(matcher, 'position');
    const [quote, of = 0, the = 0] = [tokenizer.encode('"a', { addSpecialTokens: false }), ...tokenizer.encode(' of the', { addSpecialTokens: false })]; // prettier-ignore
    const ask = async (accepted: number[], tokens: number[], parents: number[], wanted: number): Promise<number[]> => {
      const question = [1, 1, 7, accepted.length, tokens.length, wanted, ...accepted, ...tokens, ...parents];
      const answer = await answerTo(Int32Array.from(question), new Map([[7, matcher]]));
      return [...answer.subarray(1, 3 + tokens.length), position.mock.calls.length];
    };
    // Masks, known, of each node; and how often the grammar was asked.
    expect(await ask([...quote], [0, of, the], [-1, 0, 0], 1)).toEqual([1, 1, -1, 0, 0, 3]);
    expect(await ask([], [0, of, the, the], [-1, 0, 0, 1], 3)).toEqual([1, 1, -1, -1, -1, 0, 4]);
    expect(await ask([], [0, of, the, the], [-1, 0, 0, 1], 0)).toEqual([1, 1, 0, 0, 0, 0, 4]);
    // What was accepted had been asked for.
    expect(await ask([of], [0, the], [-1, 0], 0)).toEqual([1, 1, 0, 0, 4]);
    expect(await ask([the], [0, the], [-1, 0], 0)).toEqual([1, 1, 0, 0, 5]);
  });
});
