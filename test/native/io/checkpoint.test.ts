import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  utimesSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';

import { cpuMs, directory, entry, expectError, header, io, safetensors, simple, utf8 } from './build.js';

const posix = process.platform !== 'win32';
const FORMAT = 'ERR_MODEL_FORMAT';

/** A copy, because typed arrays of larger elements need aligned memory of their own. */
const memory = (bytes: Uint8Array | null): ArrayBuffer => new Uint8Array(bytes ?? []).buffer;
const floats = (bytes: Uint8Array | null): number[] => [...new Float32Array(memory(bytes))];

describe('one file', () => {
  it('loads', () => {
    const dir = directory({ 'model.safetensors': simple('b', 'a') });
    const checkpoint = io.openCheckpoint(dir);
    expect(checkpoint.tensors).toMatchObject([
      { name: 'a', dtype: 'f32', shape: [2], bytes: 8, file: 0 },
      { name: 'b', dtype: 'f32', shape: [2], bytes: 8, file: 0 },
    ]);
    expect(checkpoint.totalBytes).toBe(16);
    expect(checkpoint.files).toEqual([join(dir, 'model.safetensors')]);
    expect(floats(checkpoint.read('a', 0, 8))).toEqual([1, 1.5]);
    expect(floats(checkpoint.read('b', 4, 4))).toEqual([0.5]);
    expect(checkpoint.read('a', 8, 0)).toHaveLength(0);
    expect(checkpoint.find('c')).toBeNull();
    expect(checkpoint.find('')).toBeNull();
  });

  it('loads from a path with a slash at the end', () => {
    expect(io.openCheckpoint(`${directory({ 'model.safetensors': simple('a') })}/`).tensors).toHaveLength(1);
  });

  it('loads without tensors', () => {
    const checkpoint = io.openCheckpoint(directory({ 'model.safetensors': safetensors('{}', 0) }));
    expect(checkpoint).toMatchObject({ tensors: [], totalBytes: 0 });
  });

  it('F11 reads data at odd offsets', () => {
    const data = new Uint8Array(5);
    new DataView(data.buffer).setFloat32(1, 2.5, true);
    const text = `${header(entry('u', 'U8', [1], [0, 1]), entry('x', 'F32', [1], [1, 5]))} `;
    for (const padded of [text, `${text} `]) {
      const checkpoint = io.openCheckpoint(directory({ 'model.safetensors': safetensors(padded, data) }));
      expect(floats(checkpoint.read('x', 0, 4))).toEqual([2.5]);
    }
  });

  it('F10 keeps unusable dtypes apart', () => {
    const text = header(
      entry('w', 'F32', [1], [0, 4]),
      entry('scale', 'F8_E4M3', [4], [4, 8]),
      entry('d', 'F64', [1], [8, 16]),
    );
    const checkpoint = io.openCheckpoint(directory({ 'model.safetensors': safetensors(text, 16) }));
    expect(checkpoint.tensors.map((tensor) => tensor.name)).toEqual(['w']);
    expect(checkpoint.totalBytes).toBe(4);
    expectError(() => checkpoint.find('scale'), FORMAT, /tensor "scale" has dtype F8_E4M3, which redrafter cannot use/);
    expectError(() => checkpoint.read('d', 0, 8), FORMAT, /tensor "d" has dtype F64/);
  });

  it('F13 reads NaN, infinity and denormals as they are', () => {
    const values = new Uint32Array([0x7fc00000, 0x7f800000, 0xff800000, 1, 0x80000000, 0x7f800001]);
    const text = header(entry('x', 'F32', [6], [0, 24]));
    const checkpoint = io.openCheckpoint(
      directory({ 'model.safetensors': safetensors(text, new Uint8Array(values.buffer)) }),
    );
    expect([...new Uint32Array(memory(checkpoint.read('x', 0, 24)))]).toEqual([...values]);
  });

  it('wins over an index beside it', () => {
    const dir = directory({ 'model.safetensors': simple('a'), 'model.safetensors.index.json': 'not json' });
    expect(io.openCheckpoint(dir).tensors).toHaveLength(1);
  });
});

describe('F01 small files', () => {
  for (let size = 0; size < 16; ++size) {
    it(`${size} bytes of zeros`, () => {
      const dir = directory({ 'model.safetensors': new Uint8Array(size) });
      const message = size < 8 ? new RegExp(`only ${size} bytes`) : /expected a value, found the end/;
      expectError(() => io.openCheckpoint(dir), FORMAT, message, /model\.safetensors/);
    });
  }

  const file = (text: string, data: number, length?: bigint): string =>
    directory({ 'model.safetensors': safetensors(text, data, length) });
  it.each([
    ['N = 1 and "{"', file('{', 0), /found the end/],
    ['N = the size less 7', file('{}', 10, 13n), /the header length is 13 bytes, but the file has only 20/],
    ['N = 2^32 + 8', file('{}      ', 0, (1n << 32n) + 8n), /4294967304 bytes, more than/],
    ['N = 2^63', file('{}', 10, 1n << 63n), /more than the/],
    ['N = 2^64 - 1', file('{}', 10, (1n << 64n) - 1n), /more than the/],
  ])('%s', (_, dir, message) => {
    expectError(() => io.openCheckpoint(dir), FORMAT, message);
  });
});

describe('F13 other formats under this name', () => {
  it.each([
    ['GGUF', [0x47, 0x47, 0x55, 0x46, 3, 0, 0, 0, 1, 0], /looks like a GGUF file/],
    ['ZIP', [0x50, 0x4b, 3, 4, 0, 0, 8, 8, 0, 0], /looks like a ZIP archive/],
    ['an old ZIP', [0x50, 0x4b, 3, 4, 0, 0, 0, 0, 0, 0], /looks like a ZIP archive/],
    ['pickle', [0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46], /looks like a Python pickle, which is never loaded/],
    ['HDF5', [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a], /looks like an HDF5 file/],
    ['gzip', [0x1f, 0x8b, 8, 8, 1, 2, 3, 4], /looks like a gzip archive/],
    ['a Git LFS pointer', utf8('version https://git-lfs.github.com/spec/v1\n'), /Git LFS pointer/],
    ['an error page', utf8('<!DOCTYPE html>\n<html>'), /looks like a text file/],
    ['JSON', utf8('{"a": {"dtype":"F32"}}'), /looks like a text file/],
  ])('%s', (_, bytes, message) => {
    const dir = directory({ 'model.safetensors': new Uint8Array(bytes) });
    expectError(() => io.openCheckpoint(dir), FORMAT, message);
  });

  it('a ZIP appended', () => {
    const bytes = new Uint8Array([...simple('a'), 0x50, 0x4b, 3, 4, 0, 0]);
    expectError(() => io.openCheckpoint(directory({ 'model.safetensors': bytes })), FORMAT, /appended/);
  });
});

describe('F12 files that are not files', () => {
  it.each([
    ['a missing directory', () => join(directory(), 'none'), /no such directory/],
    ['an empty path', () => '', /no such directory/],
    ['a file as directory', () => join(directory({ x: '' }), 'x'), /expected a directory/],
    ['a path with NUL', () => `${directory({ 'model.safetensors': simple('a') })}\0x`, /NUL character/],
    ['an empty directory', () => directory(), /neither model.safetensors nor model.safetensors.index.json/],
    ['only pickles', () => directory({ 'pytorch_model.bin': 'x' }), /PyTorch pickle files, which are never loaded/],
    ['a path longer than the system allows', () => join(directory(), 'x'.repeat(5000)), /cannot open/],
  ])('%s', (_, path, message) => {
    expectError(() => io.openCheckpoint(path()), 'ERR_FILE', message);
  });

  it('a directory', () => {
    const dir = directory();
    mkdirSync(join(dir, 'model.safetensors'));
    expectError(() => io.openCheckpoint(dir), 'ERR_FILE', /it is a directory/);
  });

  it.skipIf(!posix)('a pipe, without waiting for a writer', () => {
    const dir = directory();
    execFileSync('mkfifo', [join(dir, 'model.safetensors')]);
    expectError(() => io.openCheckpoint(dir), 'ERR_FILE', /not a regular file/);
  });

  it.skipIf(!posix)('a device', () => {
    const dir = directory();
    symlinkSync('/dev/zero', join(dir, 'model.safetensors'));
    expectError(() => io.openCheckpoint(dir), 'ERR_FILE', /not a regular file/);
  });

  it.skipIf(!posix)('a link to itself', () => {
    const dir = directory();
    symlinkSync('model.safetensors', join(dir, 'model.safetensors'));
    expectError(() => io.openCheckpoint(dir), 'ERR_FILE', /symbolic links/);
  });

  it.skipIf(!posix)('a link to nothing', () => {
    const dir = directory();
    symlinkSync('nothing', join(dir, 'model.safetensors'));
    expectError(() => io.openCheckpoint(dir), 'ERR_FILE', /neither model.safetensors/);
  });

  it.skipIf(!posix || process.getuid?.() === 0)('EACCES', () => {
    const dir = directory({ 'model.safetensors': simple('a') });
    chmodSync(join(dir, 'model.safetensors'), 0);
    expectError(() => io.openCheckpoint(dir), 'ERR_FILE', /Permission denied/);
  });

  it('a sparse terabyte', () => {
    const dir = directory({ 'model.safetensors': simple('a') });
    const path = join(dir, 'model.safetensors');
    truncateSync(path, 2 ** 40);
    expectError(() => io.openCheckpoint(dir), FORMAT, /it has 10995\d+ bytes/);
    writeFileSync(path, new Uint8Array(8));
    truncateSync(path, 2 ** 40);
    expectError(() => io.openCheckpoint(dir), FORMAT, /expected a value/);
  });
});

describe('F12 files that change after open', () => {
  const open = (): { path: string; checkpoint: ReturnType<typeof io.openCheckpoint> } => {
    const dir = directory({ 'model.safetensors': simple('a', 'b') });
    return { path: join(dir, 'model.safetensors'), checkpoint: io.openCheckpoint(dir) };
  };
  it.each<[string, (path: string) => void, RegExp]>([
    [
      'cut to nothing',
      (path) => {
        truncateSync(path, 0);
      },
      /changed while in use \(.* 0 bytes now/,
    ],
    [
      'cut after the tensor read',
      (path) => {
        truncateSync(path, statSync(path).size - 1);
      },
      /changed while in use/,
    ],
    [
      'grown',
      (path) => {
        appendFileSync(path, 'x');
      },
      /changed while in use/,
    ],
    [
      'written in place',
      (path) => {
        utimesSync(path, 1, 1);
      },
      /changed while in use/,
    ],
    [
      'replaced by renaming',
      (path) => {
        writeFileSync(`${path}.new`, simple('a', 'b'));
        renameSync(`${path}.new`, path);
      },
      /replaced by another file/,
    ],
    [
      'removed',
      (path) => {
        unlinkSync(path);
      },
      /removed while in use/,
    ],
  ])('%s', (_, change, message) => {
    const { path, checkpoint } = open();
    expect(floats(checkpoint.read('a', 0, 8))).toEqual([0, 0.5]);
    change(path);
    expectError(() => checkpoint.read('a', 0, 8), 'ERR_FILE', message, /model\.safetensors/);
    checkpoint.close();
  });
});

describe('F12 read errors', () => {
  afterEach(() => {
    io.failRead(0);
  });

  it('at every read of open, and of a tensor', () => {
    const dir = directory({ 'model.safetensors': simple('a') });
    for (let n = 1; n <= 2; ++n) {
      io.failRead(n);
      expectError(
        () => io.openCheckpoint(dir),
        'ERR_FILE',
        /cannot read ".*model\.safetensors": .*[Ii]nput\/output|error/,
      );
    }
    const checkpoint = io.openCheckpoint(dir);
    io.failRead(1);
    expectError(() => checkpoint.read('a', 0, 8), 'ERR_FILE', /cannot read/);
    expect(floats(checkpoint.read('a', 0, 8))).toEqual([0, 0.5]);
  });

  // A file that says it has 4096 bytes and gives fewer.
  const short = '/sys/kernel/mm/transparent_hugepage/enabled';
  it.skipIf(!existsSync(short))('a file shorter than it says', () => {
    const dir = directory();
    symlinkSync(short, join(dir, 'config.json'));
    expectError(() => io.readModelConfig(dir), 'ERR_FILE', /the file ends after \d+ bytes, expected 4096/);
  });
});

describe('shards', () => {
  const index = (map: unknown): string => JSON.stringify({ metadata: { total_size: 1 }, weight_map: map });
  const A = 'model-00001-of-00002.safetensors';
  const B = 'model-00002-of-00002.safetensors';
  const sharded = (
    map: unknown,
    files: Record<string, Uint8Array> = { [A]: simple('a', 'c'), [B]: simple('b') },
  ): string => directory({ ...files, 'model.safetensors.index.json': typeof map === 'string' ? map : index(map) });

  it('load', () => {
    const checkpoint = io.openCheckpoint(sharded({ c: A, b: B, a: A }));
    expect(checkpoint.tensors.map((tensor) => [tensor.name, tensor.file])).toEqual([
      ['a', 0],
      ['b', 1],
      ['c', 0],
    ]);
    expect(checkpoint.totalBytes).toBe(24);
    expect(floats(checkpoint.read('b', 0, 8))).toEqual([0, 0.5]);
    expect(floats(checkpoint.read('c', 0, 8))).toEqual([1, 1.5]);
  });

  it.skipIf(!posix)('load through links, as download caches have them', () => {
    const blobs = directory({ blob1: simple('a', 'c'), blob2: simple('b') });
    const dir = sharded({ a: A, b: B, c: A }, {});
    symlinkSync(join(blobs, 'blob1'), join(dir, A));
    symlinkSync(join(blobs, 'blob2'), join(dir, B));
    expect(io.openCheckpoint(dir).tensors).toHaveLength(3);
  });

  it('load with unusable dtypes among them', () => {
    const file = safetensors(header(entry('q', 'I8', [1], [0, 1])), 1);
    const checkpoint = io.openCheckpoint(sharded({ q: A, b: B }, { [A]: file, [B]: simple('b') }));
    expect(checkpoint.tensors).toHaveLength(1);
    expectError(() => checkpoint.find('q'), FORMAT, /dtype I8/);
  });

  it.each([
    ['../../etc/passwd', /contains '\/'/],
    ['../x.safetensors', /contains '\/'/],
    ['/etc/x.safetensors', /contains '\/'/],
    ['sub/x.safetensors', /contains '\/'/],
    ['C:\\x.safetensors', /contains/],
    ['C:x.safetensors', /contains/],
    ['\\\\server\\share\\x.safetensors', /contains/],
    ['..\\x.safetensors', /contains/],
    ['https://example.com/x.safetensors', /contains/],
    ['file:x.safetensors', /contains/],
    ['x.safetensors\0', /control character/],
    ['x\n.safetensors', /control character/],
    ['', /it is empty/],
    ['.', /does not end in .safetensors/],
    ['..', /does not end in .safetensors/],
    ['.safetensors', /does not end in .safetensors/],
    ['config.json', /does not end in .safetensors/],
    [`${'x'.repeat(300)}.safetensors`, /longer than 255/],
  ])('C01 refuse the name %j', (name, message) => {
    expectError(
      () => io.openCheckpoint(sharded({ a: A, b: name })),
      FORMAT,
      /maps "b" to ".*, which is not a plain file name/,
      message,
    );
  });

  const files = { [A]: simple('a', 'c'), [B]: simple('b') };
  it.each<[string, string, unknown, Record<string, Uint8Array>, RegExp]>([
    ['a missing shard', 'ERR_FILE', { a: A, c: A, b: 'x.safetensors' }, files, /x\.safetensors": no such file/],
    [
      'a tensor that no shard has',
      FORMAT,
      { a: A, b: B, c: A, d: A },
      files,
      /tensor "d" should be in .*00001.* no listed shard has it/,
    ],
    [
      'a tensor in another shard',
      FORMAT,
      { a: A, b: B, c: B },
      files,
      /tensor "c" should be in .*00002.*, but it is in .*00001/,
    ],
    ['a tensor that is not listed', FORMAT, { a: A, b: B }, files, /00001.*: tensor "c" is not in the "weight_map"/],
    ['a tensor that is not listed, before the others', FORMAT, { b: B, c: A }, files, /tensor "a" is not in/],
    [
      'a tensor in two shards',
      FORMAT,
      { a: A, b: B },
      { [A]: simple('a', 'b'), [B]: simple('b') },
      /tensor "b" is in two shards: .*00001.* and .*00002/,
    ],
    [
      'a broken shard',
      FORMAT,
      { a: A, b: B },
      { [A]: simple('a'), [B]: simple('b').subarray(0, 60) },
      /00002.*truncated/,
    ],
  ])('C01 %s', (_, code, map, shards, message) => {
    expectError(() => io.openCheckpoint(sharded(map, shards)), code, message);
  });

  it.each<[string, string, RegExp]>([
    ['not JSON', 'x', /invalid JSON at byte 0/],
    ['an array', '[]', /an object with the key "weight_map"/],
    ['no map', '{"metadata":{}}', /an object with the key "weight_map"/],
    ['a map that is a list', '{"weight_map":[]}', /itself an object/],
    ['an empty map', '{"weight_map":{}}', /lists 0 tensors/],
    ['a number as a shard', '{"weight_map":{"a":1}}', /entry "a" must be a file name, got 1/],
    ['null as a shard', '{"weight_map":{"a":null}}', /must be a file name, got null/],
    ['a tensor twice', `{"weight_map":{"a":"${A}","a":"${B}"}}`, /the key "a" twice/],
    ['the map twice', '{"weight_map":{},"weight_map":{}}', /"weight_map" twice/],
  ])('C01 the index is %s', (_, text, message) => {
    expectError(() => io.openCheckpoint(sharded(text)), FORMAT, /index\.json/, message);
  });

  it('C01 an index of a million tensors', () => {
    const map = Array.from({ length: 1_000_000 }, (_, i) => `"layer.${i}":"${A}"`);
    const all = sharded(`{"weight_map":{${map.join(',')}}}`);
    const some = sharded(`{"weight_map":{${map.slice(0, 250_000).join(',')}}}`);
    const ms = cpuMs(() => {
      expectError(() => io.openCheckpoint(all), FORMAT, /more than the 16777216 allowed/);
      expectError(() => io.openCheckpoint(some), FORMAT, /lists 250000 tensors/);
    });
    expect(ms).toBeLessThan(2000);
  });

  it('C01 an index of too many shards', () => {
    const map = Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`t${i}`, `${i}.safetensors`]));
    expectError(() => io.openCheckpoint(sharded(map)), FORMAT, /names 1001 shards, at most 1000/);
  });
});

// The files are those of this process.
const observable = existsSync('/proc/self/fd') && process.env['REDRAFTER_FOREIGN_NODE'] === undefined;

it.skipIf(!observable)('closes every file, whatever went wrong', () => {
  const shards = (b: Uint8Array): string =>
    directory({
      'a.safetensors': simple('a'),
      'b.safetensors': b,
      'model.safetensors.index.json': '{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}',
    });
  const bad = [
    shards(new Uint8Array(3)),
    shards(simple('a')),
    shards(simple('c')),
    directory({ 'model.safetensors': 'x' }),
  ];
  const before = readdirSync('/proc/self/fd').length;
  for (const dir of bad) {
    expect(() => io.openCheckpoint(dir)).toThrow();
  }
  const good = io.openCheckpoint(shards(simple('b')));
  expect(readdirSync('/proc/self/fd')).toHaveLength(before + 2);
  good.close();
  expect(readdirSync('/proc/self/fd')).toHaveLength(before);
});

it('escapes paths in messages', () => {
  expectError(() => io.openCheckpoint('/no\nsuch\u001b[31m'), 'ERR_FILE', /"\/no\\u000asuch\\u001b\[31m"/);
});
