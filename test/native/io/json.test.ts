import { describe, expect, it } from 'vitest';

import type { ParsedJson } from '../../kit/testing.js';
import { cpuMs, expectError, io, pick, type Random, utf8, xorshift } from './build.js';

const parse = (text: string): ParsedJson => io.parseJson(utf8(text));
const bytes = (...values: number[]): Uint8Array => new Uint8Array(values);
const inString = (...values: number[]): Uint8Array => bytes(0x22, ...values, 0x22);

/** What JSON.parse would give. */
function plain(value: ParsedJson): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(plain);
  if ('members' in value) return Object.fromEntries(value.members.map(([key, child]) => [key, plain(child)]));
  return value.double ?? Number(value.number); // null is for what double precision cannot hold
}

describe('values', () => {
  const good = [
    'null',
    ' true ',
    '\t\r\nfalse\n',
    '0',
    '-0',
    '-1.5e-3',
    '1E+2',
    '""',
    '"a\\u0041\\n\\/\\\\\\""',
    '[]',
    '[ ]',
    '[1,[2,[3]]]',
    '{}',
    '{"a":{"b":[null,{}]}," ":1}',
    '"\\ud83d\\ude00"',
    '"\u{1f600}\u00e9\u07ff\uffff"',
    '{"__proto__":1,"constructor":2,"":3}',
  ];
  it.each(good)('reads %s', (text) => {
    const value = JSON.parse(text) as unknown;
    if (text.includes('__proto__')) {
      expect(parse(text)).toMatchObject({
        members: [
          ['__proto__', {}],
          ['constructor', {}],
          ['', {}],
        ],
      });
    } else {
      expect(plain(parse(text))).toEqual(value);
    }
  });

  it('keeps the order of members', () => {
    expect(parse('{"b":1,"a":2,"c":3}')).toMatchObject({
      members: [
        ['b', {}],
        ['a', {}],
        ['c', {}],
      ],
    });
  });

  it.each([
    ['18446744073709551615', 18446744073709551615n],
    ['9007199254740993', 9007199254740993n],
    ['0', 0n],
    ['18446744073709551616', null],
    ['-0', null],
    ['-1', null],
    ['1.0', null],
    ['1e2', null],
  ])('reads %s as an integer: %s', (text, u64) => {
    expect(parse(text)).toMatchObject({ number: text, u64 });
  });

  it.each([
    ['1e400', null],
    ['-1e400', null],
    ['1e308', 1e308],
    ['0.1', 0.1],
    ['12345678901234567890', 12345678901234567e3],
  ])('reads %s as a double: %s', (text, double) => {
    expect(parse(text)).toMatchObject({ double });
  });
});

describe('refuses', () => {
  const bad: [string, string | Uint8Array, RegExp][] = [
    ['nothing', '', /expected a value, found the end/],
    ['white space only', ' \n', /expected a value, found the end/],
    ['other white space', '\u00a01', /expected a value/],
    ['a form feed', '\f1', /expected a value/],
    ['a byte order mark', '\ufeff{}', /byte order mark/],
    ['NaN', '[NaN]', /byte 1: expected a value, found "N"/],
    ['Infinity', '-Infinity', /malformed number/],
    ['a comment', '{/* */}', /expected a key/],
    ['a line comment', '// x\n1', /expected a value/],
    ['single quotes', "{'a':1}", /expected a key in double quotes, found "'"/],
    ['a bare key', '{a:1}', /expected a key/],
    ['a trailing comma in an array', '[1,]', /expected a value/],
    ['a trailing comma in an object', '{"a":1,}', /expected a key/],
    ['a missing comma', '[1 2]', /expected ',' or '\]'/],
    ['a missing colon', '{"a" 1}', /expected ':'/],
    ['trailing text', '{}x', /byte 2: unexpected text after/],
    ['two values', '1 2', /unexpected text after/],
    ['an open array', '[1', /expected ','.*found the end/],
    ['an open object', '{"a":1', /expected ','.*found the end/],
    ['an open string', '"abc', /the string has no end/],
    ['an escaped end', '"abc\\', /unknown escape/],
    ['a wrong bracket', '[1}', /expected ','/],
    ['True', 'True', /expected a value/],
    ['a cut literal', 'tru', /expected a value/],
    ['a leading zero', '012', /must not start with 0/],
    ['a leading plus', '+1', /expected a value/],
    ['a lone minus', '-', /malformed number/],
    ['a lone point', '.5', /expected a value/],
    ['no digits after the point', '1.', /malformed number/],
    ['no digits in the exponent', '1e', /malformed number/],
    ['hexadecimal', '0x10', /unexpected text/],
    ['an unknown escape', '"\\x41"', /unknown escape/],
    ['a short unicode escape', '"\\u12"', /four hexadecimal/],
    ['a bad unicode escape', '"\\u12g4"', /four hexadecimal/],
    ['a lone high surrogate', '"\\ud800"', /half of a surrogate pair/],
    ['a lone low surrogate', '"\\udc00"', /half of a surrogate pair/],
    ['two high surrogates', '"\\ud800\\ud800"', /half of a surrogate pair/],
    ['a high surrogate and a letter', '"\\ud800\\u0041"', /half of a surrogate pair/],
    ['a raw newline in a string', '"a\nb"', /control character/],
    ['a raw NUL in a string', '"a\0b"', /control character/],
    ['a NUL', '\0', /expected a value, found "\\u0000"/],
    ['the byte ff', inString(0xff), /byte 1: not valid UTF-8/],
    ['an overlong slash', inString(0xc0, 0xaf), /not valid UTF-8/],
    ['an overlong three byte form', inString(0xe0, 0x80, 0xaf), /not valid UTF-8/],
    ['an overlong four byte form', inString(0xf0, 0x80, 0x80, 0xaf), /not valid UTF-8/],
    ['an encoded surrogate', inString(0xed, 0xa0, 0x80), /not valid UTF-8/],
    ['a code point above 10ffff', inString(0xf4, 0x90, 0x80, 0x80), /not valid UTF-8/],
    ['a lone continuation', inString(0x80), /not valid UTF-8/],
    ['a cut sequence', inString(0xe2, 0x82), /not valid UTF-8/],
    ['a cut sequence at the end', bytes(0x22, 0xe2), /not valid UTF-8/],
    ['UTF-16', bytes(0x7b, 0, 0x7d, 0), /expected a key/],
    ['a duplicate key', '{"a":1,"b":2,"a":3}', /the key "a" twice/],
    ['a duplicate key by escape', '{"a":1,"\\u0061":3}', /the key "a" twice/],
    ['a duplicate key inside', '[{"x":{"k":1,"k":1}}]', /the key "k" twice/],
    ['65 arrays', '['.repeat(65) + ']'.repeat(65), /deeper than 64/],
    ['65 objects', '{"a":'.repeat(65) + '1' + '}'.repeat(65), /deeper than 64/],
  ];
  it.each(bad)('%s', (_, text, message) => {
    expectError(
      () => io.parseJson(typeof text === 'string' ? utf8(text) : text),
      'ERR_CONFIG',
      /^text: invalid JSON/,
      message,
    );
  });

  it('five million open brackets, at once', () => {
    const text = new Uint8Array(5_000_000).fill(0x5b);
    const ms = cpuMs(() => {
      expectError(() => io.parseJson(text), 'ERR_CONFIG', /byte 64: nested deeper than 64/);
    });
    expect(ms).toBeLessThan(1000);
  });

  it('more than 2.5 million values', () => {
    const text = new Uint8Array(5_100_001).fill(0x31);
    for (let i = 0; i < text.length; i += 2) text[i] = 0x2c;
    text[0] = 0x5b;
    text[text.length - 1] = 0x5d;
    expectError(() => io.parseJson(text), 'ERR_CONFIG', /more than 2500000 values/);
  });
});

it('accepts 64 levels', () => {
  expect(parse('['.repeat(64) + ']'.repeat(64))).toBeTruthy();
});

it('finds a duplicate among many keys quickly, whatever the keys', () => {
  const keys = Array.from({ length: 100_000 }, (_, i) => `"${i}":0`);
  const text = `{${keys.join(',')},"0":1}`;
  const ms = cpuMs(() => {
    expectError(() => parse(text), 'ERR_CONFIG', /the key "0" twice/);
  });
  expect(ms).toBeLessThan(2000);
});

it('quotes text so that it cannot forge a log', () => {
  const quote = (text: string): string => io.quote(utf8(text));
  expect(quote('model.weight')).toBe('"model.weight"');
  expect(quote('a\nb\u001b[31m"c"')).toBe('"a\\u000ab\\u001b[31m\\u0022c\\u0022"');
  expect(quote('\u202egpj.exe\u2028\u009b')).toBe('"\\u202egpj.exe\\u2028\\u009b"');
  expect(quote('été 世界')).toBe('"été 世界"');
  expect(io.quote(bytes(0x61, 0xff, 0xc0))).toBe('"a\\xff\\xc0"');
  expect(quote('x'.repeat(1_000_000))).toBe(`"${'x'.repeat(120)}"... (1000000 bytes)`);
});

/** A random document as text, with random white space. */
function randomText(random: Random, depth: number): string {
  const space = pick(random, ['', '', ' ', '\n\t']);
  const kind = random(depth > 4 ? 4 : 6);
  const count = random(5);
  const wrap = (text: string): string => space + text + space;
  if (kind === 0) return wrap(pick(random, ['null', 'true', 'false']));
  if (kind === 1) return wrap(String((random(2000) - 1000) / pick(random, [1, 8, 1e9, 1e-9])));
  if (kind === 2) return wrap(JSON.stringify(String.fromCodePoint(random(0xd800), 0x10000 + random(0x100000))));
  if (kind === 3) return wrap(String(random(2 ** 31)));
  const children = Array.from({ length: count }, () => randomText(random, depth + 1));
  if (kind === 4) return wrap(`[${children.join(',')}]`);
  return wrap(`{${children.map((child, i) => `"${i}k"${space}:${child}`).join(',')}}`);
}

it('agrees with JSON.parse on 3,000 random documents', () => {
  const random = xorshift(7);
  for (let i = 0; i < 3000; ++i) {
    const text = randomText(random, 0);
    expect(plain(parse(text))).toEqual(JSON.parse(text));
  }
});

it('accepts no mutated document that JSON.parse refuses', () => {
  const random = xorshift(11);
  let accepted = 0;
  for (let i = 0; i < 10_000; ++i) {
    const text = utf8(randomText(random, 0));
    text[random(text.length)] = '{}[]",:0-.eE\\u\n\0 x\x7f\xff'.charCodeAt(random(20));
    let value: ParsedJson;
    try {
      value = io.parseJson(text);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_CONFIG' });
      continue;
    }
    ++accepted;
    expect(plain(value)).toEqual(JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text)));
  }
  expect(accepted).toBeGreaterThan(300);
});
