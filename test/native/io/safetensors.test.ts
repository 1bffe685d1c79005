import { describe, expect, it } from 'vitest';

import type { ParsedTensor } from '../../kit/testing.js';
import { entry, expectError, header, io, utf8 } from './build.js';

const CODE = 'ERR_MODEL_FORMAT';

/** Parses a header in front of `dataBytes` bytes of data. */
function parse(text: string | Uint8Array, dataBytes: number | bigint): ParsedTensor[] {
  const bytes = typeof text === 'string' ? utf8(text) : text;
  return io.parseHeader(bytes, 8n + BigInt(bytes.length) + BigInt(dataBytes));
}

const one = (dtype: string, shape: unknown, offsets: unknown): string => header(entry('x', dtype, shape, offsets));

describe('F01 the length in the first 8 bytes', () => {
  const length = (n: bigint, fileBytes: bigint): number => {
    const first = new Uint8Array(8);
    new DataView(first.buffer).setBigUint64(0, n, true);
    return io.parseLength(first, fileBytes);
  };

  it.each([
    [0n, 8n],
    [2n, 10n],
    [2n, 1000n],
    [16n << 20n, 1n << 40n],
  ])('accepts %i in a file of %i bytes', (n, fileBytes) => {
    expect(length(n, fileBytes)).toBe(Number(n));
  });

  it.each([
    ['one more than there is', 3n, 10n, /header length is 3 bytes, but the file has only 10 bytes/],
    ['the size of the file less 7', 93n, 100n, /the file has only 100 bytes/],
    ['above the limit', (16n << 20n) + 1n, 1n << 40n, /16777217 bytes, more than the 16777216 allowed/],
    ['100,000,001', 100_000_001n, 1n << 40n, /more than the/],
    ['2^32 + 8', (1n << 32n) + 8n, 1n << 40n, /4294967304 bytes, more than the/],
    ['2^63', 1n << 63n, 1n << 40n, /9223372036854775808 bytes, more than the/],
    ['2^64 - 1', (1n << 64n) - 1n, 1n << 40n, /18446744073709551615 bytes, more than the/],
    ['2^64 - 8', (1n << 64n) - 8n, 1n << 40n, /more than the/],
  ])('refuses %s', (_, n, fileBytes, message) => {
    expectError(() => length(n, fileBytes), CODE, /^"test": /, message);
  });

  it('refuses a header that does not fit the file', () => {
    expectError(() => io.parseHeader(utf8('{}'), 9), CODE, /does not fit/);
    expectError(() => io.parseHeader(utf8('{}'), 0), CODE, /does not fit/);
  });
});

describe('what must load', () => {
  const good: [string, string, number][] = [
    ['no tensors', '{}', 0],
    ['only metadata', '{"__metadata__":{"format":"pt","":"x"}}', 0],
    ['white space around the header', ' \r\n\t{ } \t\r\n', 0],
    ['a scalar', one('F32', [], [0, 4]), 4],
    ['an empty tensor', one('BF16', [0], [0, 0]), 0],
    ['an empty tensor of two dimensions', one('BF16', [3, 0], [0, 0]), 0],
    [
      'empty tensors between others',
      header(entry('a', 'F32', [1], [0, 4]), entry('b', 'F32', [0], [4, 4]), entry('c', 'F16', [1], [4, 6])),
      6,
    ],
    ['tensors in any order', header(entry('b', 'F32', [1], [4, 8]), entry('a', 'F32', [1], [0, 4])), 8],
    ['F11 data at odd offsets', header(entry('a', 'U8', [1], [0, 1]), entry('b', 'F32', [1], [1, 5])), 5],
    ['the name __proto__', header(entry('__proto__', 'F32', [1], [0, 4])), 4],
    ['the name constructor', header(entry('constructor', 'F32', [1], [0, 4])), 4],
    ['the empty name', header(entry('', 'F32', [1], [0, 4])), 4],
    ['a name with a path', header(entry('../x', 'F32', [1], [0, 4])), 4],
    ['a name with control characters', header(entry('a\n\u001b[31m', 'F32', [1], [0, 4])), 4],
    ['a name of a megabyte', header(entry('n'.repeat(1 << 20), 'F32', [1], [0, 4])), 4],
    ['unknown keys in an entry', '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":[{}]}}', 4],
    ['64 dimensions', one('F32', Array(64).fill(1), [0, 4]), 4],
    ['F4 with an even count', one('F4', [2], [0, 1]), 1],
    ['F6 in whole bytes', one('F6_E2M3', [4], [0, 3]), 3],
  ];
  it.each(good)('%s', (_, text, dataBytes) => {
    expect(Array.isArray(parse(text, dataBytes))).toBe(true);
  });

  it('with the tensors by offset', () => {
    const tensors = parse(header(entry('b', 'BF16', [2, 3], [4, 16]), entry('a', 'F32', [], [0, 4])), 16);
    expect(tensors).toEqual([
      { name: 'a', dtype: 'F32', usable: true, shape: [], begin: 0, end: 4 },
      { name: 'b', dtype: 'BF16', usable: true, shape: [2, 3], begin: 4, end: 16 },
    ]);
  });

  it.each([
    ['F32', 4, true],
    ['F16', 2, true],
    ['BF16', 2, true],
    ['I32', 4, true],
    ['I64', 8, true],
    ['BOOL', 1, false],
    ['U8', 1, true],
    ['I8', 1, false],
    ['U16', 2, false],
    ['I16', 2, false],
    ['U32', 4, false],
    ['U64', 8, false],
    ['F64', 8, false],
    ['C64', 8, false],
    ['F8_E4M3', 1, false],
    ['F8_E5M2', 1, false],
    ['F8_E8M0', 1, false],
    ['F8_E4M3FNUZ', 1, false],
    ['F8_E5M2FNUZ', 1, false],
  ])('F10 dtype %s of %i bytes, usable: %s', (dtype, size, usable) => {
    expect(parse(one(dtype, [3], [0, 3 * size]), 3 * size)).toMatchObject([{ dtype, usable }]);
    expectError(() => parse(one(dtype, [3], [0, 3 * size + 1]), 3 * size + 1), CODE, /but shape and dtype need/);
  });
});

describe('F02 bytes', () => {
  const raw = (...values: number[]): Uint8Array => {
    const text = one('F32', [1], [0, 4]);
    const at = text.indexOf('x');
    return new Uint8Array([...utf8(text.slice(0, at)), ...values, ...utf8(text.slice(at + 1))]);
  };
  it.each([
    ['0xff', raw(0xff), /byte 2: not valid UTF-8/],
    ['overlong UTF-8', raw(0xc0, 0xaf), /not valid UTF-8/],
    ['an encoded surrogate', raw(0xed, 0xa0, 0x80), /not valid UTF-8/],
    ['an escaped lone surrogate', raw(...utf8('\\ud800')), /surrogate pair/],
    ['a raw U+0000 in a name', raw(0), /control character/],
    ['an escaped U+0000 in a name', raw(...utf8('a\\u0000b')), /"a\\u0000b": the name contains U\+0000/],
    ['a byte order mark', new Uint8Array([0xef, 0xbb, 0xbf, ...raw(0x78)]), /byte order mark/],
    ['UTF-16', new Uint8Array([0xff, 0xfe, 0x7b, 0, 0x7d, 0]), /not valid UTF-8/],
  ])('%s', (_, bytes, message) => {
    expectError(() => parse(bytes, 4), CODE, /^"test": /, message);
  });
});

describe('F03 not an object', () => {
  it.each([
    ['', /expected a value, found the end/],
    ['   ', /expected a value, found the end/],
    ['{', /found the end/],
    ['[]', /must be a JSON object, got an array/],
    ['null', /must be a JSON object, got null/],
    ['"x"', /must be a JSON object, got the string "x"/],
    ['1', /must be a JSON object, got 1/],
    ['{}x', /unexpected text after/],
    ['{}\0', /unexpected text after/],
    ['{} {}', /unexpected text after/],
    ['{"x":NaN}', /expected a value/],
    ['{/**/}', /expected a key/],
    ["{'x':1}", /expected a key in double quotes/],
  ])('%s', (text, message) => {
    expectError(() => parse(text, 0), CODE, message);
  });
});

describe('F04 duplicates and metadata', () => {
  const tensor = entry('x', 'F32', [1], [0, 4]);
  it.each([
    ['a tensor twice', header(tensor, tensor), /the key "x" twice/],
    ['a tensor twice, once escaped', header(tensor, tensor.replace('"x"', '"\\u0078"')), /the key "x" twice/],
    ['metadata twice', `{"__metadata__":{},"__metadata__":{},${tensor}}`, /"__metadata__" twice/],
    [
      'offsets twice',
      '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]}}',
      /"data_offsets" twice/,
    ],
    ['a metadata key twice', `{"__metadata__":{"a":"1","a":"2"},${tensor}}`, /"a" twice/],
    ['a number in metadata', `{"__metadata__":{"a":1},${tensor}}`, /"__metadata__" entry "a" must be a string, got 1/],
    ['an object in metadata', `{"__metadata__":{"a":{}},${tensor}}`, /entry "a" must be a string, got an object/],
    ['a string as metadata', `{"__metadata__":"a",${tensor}}`, /"__metadata__" must be an object of strings/],
    ['null as metadata', `{"__metadata__":null,${tensor}}`, /"__metadata__" must be an object of strings, got null/],
  ])('%s', (_, text, message) => {
    expectError(() => parse(text, 4), CODE, message);
  });

  it('a 99 MB string in metadata, by size alone', () => {
    const text = new Uint8Array(99_000_000).fill(0x78);
    expectError(() => parse(text, 0), CODE, /above the limit of 16777216 bytes/);
  });
});

it('F05 escapes and cuts names in messages', () => {
  const bad =
    (name: string): (() => unknown) =>
    () =>
      parse(header(entry(name, 'F99', [1], [0, 4])), 4);
  expectError(bad('a\nERROR fake\u001b[2J'), CODE, /tensor "a\\u000aERROR fake\\u001b\[2J": unknown dtype "F99"/);
  expectError(bad('n'.repeat(1 << 20)), CODE, /\.\.\. \(1048576 bytes\): unknown dtype/);
  expectError(bad('__proto__'), CODE, /tensor "__proto__"/);
  expectError(bad(''), CODE, /tensor ""/);
});

describe('F06, F07 floods', () => {
  it('five million open brackets', () => {
    const text = new Uint8Array(5_000_000).fill(0x5b);
    expectError(() => parse(text, 0), CODE, /deeper than 64/);
  });

  it('five million open objects in one entry', () => {
    expectError(() => parse('{"a":'.repeat(1_000_000), 0), CODE, /deeper than 64/);
  });

  it('200,000 empty tensors load, one more does not', () => {
    const tensors = Array.from(
      { length: 200_001 },
      (_, i) => `"${i}":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`,
    );
    expect(parse(`{"__metadata__":{},${tensors.slice(1).join(',')}}`, 0)).toHaveLength(200_000);
    expectError(() => parse(`{${tensors.join(',')}}`, 0), CODE, /more than the 200000 tensors allowed/);
  });
});

describe('F08 offsets', () => {
  const offsets = (value: string): string => one('F32', [1], value);
  it.each([
    ['reversed', '[4,0]', /end before they begin: \[4, 0\]/],
    ['negative', '[-4,0]', /must hold integers from 0 to 2\^64 - 1, got -4/],
    ['minus zero', '[-0,4]', /got -0/],
    ['a fraction', '[0,1.5]', /got 1.5/],
    ['an exponent', '[0,1e2]', /got 1e2/],
    ['a whole fraction', '[0,4.0]', /got 4.0/],
    ['a string', '["0",4]', /got the string "0"/],
    ['null', '[0,null]', /got null/],
    ['2^53 + 1', '[0,9007199254740993]', /ends at byte 9007199254740993 .* only 4 bytes/],
    ['2^64 - 1', '[0,18446744073709551615]', /ends at byte 18446744073709551615/],
    ['2^64', '[0,18446744073709551616]', /got 18446744073709551616/],
    ['both at 2^64 - 1', '[18446744073709551615,18446744073709551615]', /only 4 bytes/],
    ['2^64 + 4 in digits', '[0,00000000004]', /must not start with 0/],
    ['one element', '[4]', /array of two integers/],
    ['three elements', '[0,4,4]', /array of two integers/],
    ['no elements', '[]', /array of two integers/],
    ['an object', '{"0":0,"1":4}', /array of two integers/],
    ['past the end', '[0,8]', /ends at byte 8 of the data section, but the file has only 4/],
    ['too short', '[0,2]', /span 2 bytes, but shape and dtype need 4/],
  ])('%s', (_, value, message) => {
    expectError(() => parse(offsets(value), 4), CODE, /tensor "x"|leading|start with/, message);
  });

  it.each([
    ['data_offsets', '{"x":{"dtype":"F32","shape":[1]}}', /"data_offsets" is missing/],
    ['shape', '{"x":{"dtype":"F32","data_offsets":[0,4]}}', /"shape" is missing/],
    ['dtype', '{"x":{"shape":[1],"data_offsets":[0,4]}}', /"dtype" is missing/],
    ['everything', '{"x":{}}', /"dtype" is missing/],
    ['the object', '{"x":[]}', /must be described by an object, got an array/],
    ['anything but null', '{"x":null}', /must be described by an object, got null/],
  ])('without %s', (_, text, message) => {
    expectError(() => parse(text, 4), CODE, /tensor "x": /, message);
  });

  type Span = [begin: number, end: number];
  const pair = (a: Span, b: Span): string =>
    header(entry('a', 'U8', [a[1] - a[0]], a), entry('b', 'U8', [b[1] - b[0]], b));
  it.each([
    ['a hole at the start', pair([1, 4], [4, 8]), 8, /"a": data begins at 1, expected 0 \(a hole/],
    ['a hole in the middle', pair([0, 3], [4, 8]), 8, /"b": data begins at 4, expected 3 \(a hole/],
    ['a hole at the end', pair([0, 4], [4, 7]), 8, /tensors end at byte 7 .* has 8 bytes/],
    ['an overlap', pair([0, 5], [4, 8]), 8, /"b": data begins at 4, expected 5 \(overlaps/],
    ['the same bytes twice', pair([0, 8], [0, 8]), 8, /"b": data begins at 0, expected 8 \(overlaps/],
    ['an empty tensor inside another', pair([0, 8], [4, 4]), 8, /overlaps/],
    ['an empty tensor past the others', pair([0, 4], [8, 8]), 8, /"b": data begins at 8, expected 4/],
    ['bytes appended', pair([0, 4], [4, 8]), 30, /tensors end at byte 8 .* it has 30 bytes/],
    ['no tensors, but data', '{}', 1, /tensors end at byte 0 .* it has 1 bytes/],
    ['a truncated file', pair([0, 4], [4, 8]), 7, /"b": data ends at byte 8 .* only 7 bytes there \(truncated/],
  ])('%s', (_, text, dataBytes, message) => {
    expectError(() => parse(text, dataBytes), CODE, message);
  });
});

describe('F09 shapes', () => {
  it.each([
    ['a product above 2^64', '[2,18446744073709551614]', /got 18446744073709551614/],
    ['a product above 2^64 of legal sizes', '[4,4611686018427387904]', /more elements than 64 bits/],
    ['a byte count above 2^64', '[2,9223372036854775807]', /more elements than 64 bits/],
    ['exactly 2^64 bits', '[576460752303423488]', /more elements than 64 bits/],
    ['0 x 2^63', '[0,9223372036854775808]', /got 9223372036854775808/],
    ['an overflow behind a zero', '[0,4611686018427387904,4611686018427387904]', /more elements than 64 bits/],
    ['an overflow before a zero', '[4611686018427387904,4611686018427387904,0]', /more elements than 64 bits/],
    ['10,000 dimensions', `[${'1,'.repeat(9999)}1]`, /10000 dimensions, at most 64/],
    ['a negative size', '[-1]', /got -1/],
    ['minus zero', '[-0]', /got -0/],
    ['a fraction', '[1.0]', /got 1.0/],
    ['an exponent', '[1e0]', /got 1e0/],
    ['a string', '["1"]', /got the string "1"/],
    ['nested', '[[1]]', /got an array/],
    ['not an array', '1', /"shape" must be an array, got 1/],
    ['null', 'null', /"shape" must be an array, got null/],
    ['too many elements', '[2]', /span 4 bytes, but shape and dtype need 8/],
    ['too few elements', '[0]', /span 4 bytes, but shape and dtype need 0/],
  ])('%s', (_, shape, message) => {
    expectError(() => parse(one('F32', shape, [0, 4]), 4), CODE, /tensor "x": /, message);
  });

  it('an exabyte tensor in a file that claims to have it', () => {
    const text = one('F32', [1 << 28, 1 << 28], `[0,${2n ** 58n}]`);
    expect(parse(text, 2n ** 58n)).toMatchObject([{ end: 2 ** 58 }]);
    expectError(() => parse(text, 4), CODE, /only 4 bytes there/);
  });
});

describe('F10 dtypes', () => {
  it.each([
    ['lower case', '"f32"', /unknown dtype "f32" \(dtypes are upper case/],
    ['unknown', '"F128"', /unknown dtype "F128"/],
    ['empty', '""', /unknown dtype ""/],
    ['with a NUL', '"F32\\u0000"', /unknown dtype "F32\\u0000"/],
    ['a number', '32', /"dtype" must be a string, got 32/],
    ['null', 'null', /"dtype" must be a string, got null/],
  ])('%s', (_, dtype, message) => {
    expectError(() => parse(`{"x":{"dtype":${dtype},"shape":[1],"data_offsets":[0,4]}}`, 4), CODE, message);
  });

  it('an odd count of 4-bit elements', () => {
    expectError(() => parse(one('F4', [3], [0, 1]), 1), CODE, /dtype F4 do not fill whole bytes/);
    expectError(() => parse(one('F6_E3M2', [2], [0, 1]), 1), CODE, /dtype F6_E3M2 do not fill whole bytes/);
  });
});
