/** Saving and restoring: a restored session is the saved one, and a file that is not exactly right is refused. */
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Model, type Session } from '../../lib/index.js';
import { temporaryDirectory } from '../kit/checkpoint.js';
import { expectSameBytes } from '../kit/compare.js';
import { Random } from '../kit/random.js';
import { xxh64 } from '../kit/xxh64.js';
import { turn, writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
const folder = temporaryDirectory('saved');
const OPTIONS = { ignoreEos: true, maxTokens: 40 };
/** Bytes of the header, where its parts begin, and those of the checksum at the end. */
const HEADER = 120;
const AT = { version: 8, fingerprint: 16, kvOrigin: 24, tokens: 88, kvTokens: 96, kvBytes: 104, checksum: 112 };

let model: Model;
let files = 0;
const newFile = (): string => join(folder, `${++files}.session`);

beforeAll(async () => {
  model = await Model.load(paths.model, { drafter: paths.drafter, threads: 1 });
});

afterAll(() => model.dispose());

async function continuation(session: Session, options: object = {}): Promise<number[]> {
  return (await session.generate([], { ...OPTIONS, ...options }).result()).tokenIds;
}

/** The code that `work` rejects with. */
async function code(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => 'it resolved',
    (error: unknown) => (error as { code?: unknown }).code,
  );
}

/** A session of some length, and a file that holds it. */
async function saved(tokens = 53, from = model): Promise<{ session: Session; file: string }> {
  const session = await from.createSession();
  const random = new Random(tokens);
  await session.append(Array.from({ length: tokens - 30 }, () => random.integer(0, 256)));
  await session.generate([], { ...OPTIONS, maxTokens: 30 }).result();
  const file = newFile();
  await session.save(file);
  return { session, file };
}

describe('a restored session', () => {
  it('has the tokens and KV bytes of the saved one, and continues as it would have', async () => {
    for (const tokens of [31, 32, 33, 48, 49, 200]) {
      const { session, file } = await saved(tokens);
      const restored = await model.restoreSession(file);
      expect([...restored.tokenIds]).toEqual([...session.tokenIds]);
      expect(restored.kv).toEqual(session.kv);
      expectSameBytes(await restored.readKv(), await session.readKv());
      for (const options of [{}, { drafting: false }, { temperature: 1, seed: 3 }]) {
        const [fork, other] = [await session.fork(), await restored.fork()];
        expect(await continuation(other, options)).toEqual(await continuation(fork, options));
        expectSameBytes(await other.readKv(), await fork.readKv());
        await Promise.all([fork.dispose(), other.dispose()]);
      }
      const { stats } = await restored.generate([], OPTIONS).result();
      expect(stats.reusedTokens).toBe(tokens - 1);
      await Promise.all([session.dispose(), restored.dispose()]);
    }
    expect(model.kvUsage()).toMatchObject({ sessions: 0, usedBytes: 0 });
  });

  it('can be empty, without KV, or rewound to between two blocks', async () => {
    const session = await model.createSession();
    const file = newFile();
    await session.save(file);
    const empty = await model.restoreSession(file);
    expect([empty.tokens, empty.kv.tokens]).toEqual([0, 0]);
    expect(() => empty.generate([], OPTIONS)).toThrow('nothing to continue');
    await session.append(Array.from({ length: 100 }, (_, i) => i));
    await session.rewind(37);
    await session.save(file);
    const rewound = await model.restoreSession(file);
    expect(rewound.kv).toEqual(session.kv);
    expect(await continuation(rewound)).toEqual(await continuation(session));
    await Promise.all([session, empty, rewound].map((each) => each.dispose()));
  });

  it('can be restored by another instance, with another drafter or none, often', async () => {
    const { session, file } = await saved();
    const other = await Model.load(paths.model, { threads: 2 });
    expect(other.info.fingerprint).toBe(model.info.fingerprint);
    const expected = await continuation(session);
    for (let i = 0; i < 3; i++) {
      const restored = await other.restoreSession(file);
      expect(restored.kv.tokens).toBe(52);
      expect(await continuation(restored)).toEqual(expected);
    }
    await other.dispose();
    await session.dispose();
  });

  it('computes its KV anew on another level, where bit-identity is not promised', async () => {
    const { session, file } = await saved();
    const base = await Model.load(paths.model, { device: 'cpu:base', threads: 1 });
    const restored = await base.restoreSession(file);
    expect([restored.tokens, restored.kv.tokens]).toEqual([53, 0]);
    const fresh = await base.createSession();
    const { tokenIds } = await fresh.generate(session.tokenIds, OPTIONS).result();
    expect(await continuation(restored)).toEqual(tokenIds);
    expectSameBytes(await restored.readKv(), await fresh.readKv());
    await base.dispose();
    await session.dispose();
  });
});

describe('a file', () => {
  it('depends on nothing but the session: not on what its blocks held before', async () => {
    const first = await saved(45);
    const noise = await model.createSession();
    await noise.append(Array.from({ length: 900 }, (_, i) => i % 200));
    await Promise.all([first.session.dispose(), noise.dispose()]);
    const second = await saved(45);
    expectSameBytes(readFileSync(second.file), readFileSync(first.file));
    await second.session.dispose();
  });

  it('can be read by its owner alone, and leaves nothing else behind', async () => {
    const { session, file } = await saved();
    if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
    await session.save(file); // again, over the first one
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    await session.dispose();
  });

  it('is a snapshot: the session may go on, or end, while it is written', async () => {
    const { session, file } = await saved();
    const before = readFileSync(file);
    const again = newFile();
    const saving = session.save(again);
    const run = session.generate([], { ...OPTIONS, maxTokens: 200 }).result();
    await Promise.all([saving, run]);
    expectSameBytes(readFileSync(again), before);
    const [idle, last] = [newFile(), newFile()];
    await session.save(idle);
    const ending = session.save(last);
    await session.dispose();
    await ending;
    expectSameBytes(readFileSync(last), readFileSync(idle));
    expect(model.kvUsage()).toMatchObject({ sessions: 0, usedBytes: 0 });
  });
});

describe('is refused', () => {
  it('with any bit flipped, cut off anywhere, or with something appended', async () => {
    const { session, file } = await saved(35);
    await session.dispose();
    const good = readFileSync(file);
    const bad = newFile();
    const random = new Random(1);
    const restore = async (bytes: Uint8Array): Promise<unknown> => {
      writeFileSync(bad, bytes);
      return code(model.restoreSession(bad));
    };
    const flips = [
      ...Array.from({ length: HEADER + 35 * 4 }, (_, i) => i),
      ...Array.from({ length: 300 }, () => random.integer(0, good.length)),
      ...Array.from({ length: 8 }, (_, i) => good.length - 1 - i),
    ];
    for (const at of flips) {
      const bytes = Buffer.from(good);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.integer(0, 8));
      expect(await restore(bytes), `byte ${at}`).toBe('ERR_SESSION_FILE');
    }
    const lengths = [0, 1, 7, 8, HEADER - 1, HEADER, HEADER + 1, HEADER + 35 * 4, good.length - 9, good.length - 1];
    for (const length of lengths) {
      expect(await restore(good.subarray(0, length)), `length ${length}`).toBe('ERR_SESSION_FILE');
    }
    expect(await restore(Buffer.concat([good, Buffer.of(0)]))).toBe('ERR_SESSION_FILE');
    expect(await restore(readFileSync(join(paths.model, 'model.safetensors')))).toBe('ERR_SESSION_FILE');
    expect(model.kvUsage()).toMatchObject({ sessions: 0, usedBytes: 0 });
    // The same file unchanged is fine, so it was the damage.
    const restored = await model.restoreSession(file);
    await restored.dispose();
  });

  it('with a forged header whose checksum is right: sizes are not trusted', async () => {
    const { session, file } = await saved(35);
    await session.dispose();
    const good = readFileSync(file);
    const forge = async (change: (header: Buffer) => void): Promise<unknown> => {
      const bytes = Buffer.from(good);
      change(bytes);
      bytes.writeBigUInt64LE(xxh64(bytes.subarray(0, AT.checksum)), AT.checksum);
      const path = newFile();
      writeFileSync(path, bytes);
      return code(model.restoreSession(path));
    };
    const numbers = [-1n, -(2n ** 63n), 2n ** 63n - 1n, 2n ** 32n, 2n ** 61n, 1n];
    for (const field of ['tokens', 'kvTokens', 'kvBytes'] as const) {
      for (const value of numbers) {
        expect(await forge((b) => b.writeBigInt64LE(value, AT[field])), `${field} ${value}`).toBe('ERR_SESSION_FILE');
      }
    }
    expect(await forge((b) => b.writeUInt32LE(2, AT.version))).toBe('ERR_SESSION_FILE');
    expect(await forge((b) => b.writeUInt8(b.readUInt8(AT.fingerprint) ^ 1, AT.fingerprint))).toBe('ERR_SESSION_MODEL');
    // Another version's KV is not used, but it is checked all the same.
    expect(await forge((b) => b.write('x', AT.kvOrigin))).toBe('it resolved');
    expect(await forge((b) => b.fill(0x41, AT.kvOrigin, AT.tokens))).toBe('it resolved');
  });

  it('when longer than the context before its tokens are read: they could be any number', async () => {
    const { session, file } = await saved(35);
    await session.dispose();
    const header = readFileSync(file).subarray(0, HEADER);
    const restore = async (tokens: number): Promise<unknown> => {
      header.writeBigInt64LE(BigInt(tokens), AT.tokens);
      header.writeBigInt64LE(0n, AT.kvTokens);
      header.writeBigInt64LE(0n, AT.kvBytes);
      header.writeBigUInt64LE(xxh64(header.subarray(0, AT.checksum)), AT.checksum);
      const path = newFile();
      writeFileSync(path, Buffer.concat([header, Buffer.alloc(tokens * 4 + 8, 0xff)])); // no token has such an id
      return code(model.restoreSession(path));
    };
    expect(await restore(model.info.contextTokens)).toBe('ERR_SESSION_FILE');
    expect(await restore(model.info.contextTokens + 1)).toBe('ERR_CONTEXT');
  });

  it('for another model: other weights, configuration or dtype', async () => {
    const { session, file } = await saved();
    await session.dispose();
    const copy = (name: string): string => {
      const target = join(folder, name);
      cpSync(paths.model, target, { recursive: true });
      return target;
    };
    const weights = copy('weights');
    const tensors = readFileSync(join(weights, 'model.safetensors'));
    tensors[tensors.length - 2] = (tensors[tensors.length - 2] ?? 0) ^ 1;
    writeFileSync(join(weights, 'model.safetensors'), tensors);
    const theta = copy('theta');
    const config = JSON.parse(readFileSync(join(theta, 'config.json'), 'utf8')) as object;
    writeFileSync(join(theta, 'config.json'), JSON.stringify({ ...config, rope_theta: 10001 }));
    for (const directory of [weights, theta]) {
      const other = await Model.load(directory, { threads: 1 });
      expect(await code(other.restoreSession(file))).toBe('ERR_SESSION_MODEL');
      expect(other.info.fingerprint).not.toBe(model.info.fingerprint);
      await other.dispose();
    }
    const same = await Model.load(copy('same'), { threads: 1 });
    await (await same.restoreSession(file)).dispose();
    await same.dispose();
  });

  it('where it does not fit: the context, or the free part of the KV cache', async () => {
    const { session, file } = await saved(200);
    await session.dispose();
    const small = await Model.load(paths.model, { contextTokens: 100, threads: 1 });
    expect(await code(small.restoreSession(file))).toBe('ERR_CONTEXT');
    await small.dispose();
    const tight = await Model.load(paths.model, { contextTokens: 1000, kvTokens: 64, threads: 1 });
    const held = await tight.createSession();
    await held.append(Array.from({ length: 500 }, () => 1));
    expect(await code(tight.restoreSession(file))).toBe('ERR_KV_FULL');
    await held.dispose();
    await (await tight.restoreSession(file)).dispose();
    expect(tight.kvUsage()).toMatchObject({ sessions: 0, usedBytes: 0 });
    await tight.dispose();
  });
});

describe('bad paths and ends', () => {
  it('give typed errors and leave nothing behind', async () => {
    const { session, file } = await saved();
    const missing = join(folder, 'missing/x.session');
    expect(await code(session.save(missing))).toBe('ERR_FILE');
    expect(await code(session.save(folder))).toBe('ERR_FILE');
    expect(await code(model.restoreSession(missing))).toBe('ERR_FILE');
    expect(await code(model.restoreSession(folder))).toBe('ERR_FILE');
    for (const path of ['', 'a\0b', 5, null, undefined] as string[]) {
      expect(await code(session.save(path))).toBe('ERR_INVALID_ARGUMENT');
      expect(await code(model.restoreSession(path))).toBe('ERR_INVALID_ARGUMENT');
    }
    expect(await code(session.save(file, { signal: 1 as never }))).toBe('ERR_INVALID_ARGUMENT');
    const odd = join(folder, 'ünï 漢字 \n.session');
    await session.save(odd);
    await (await model.restoreSession(odd)).dispose();
    if (process.platform === 'linux') {
      expect(await code(session.save('/dev/null'))).toBe('ERR_FILE');
      expect(await code(model.restoreSession('/dev/zero'))).toBe('ERR_FILE');
      // A link is replaced like any other name; what it led to stays.
      const link = newFile();
      symlinkSync(file, link);
      await session.save(link);
      expect(statSync(link).isFile()).toBe(true);
    }
    await session.dispose();
  });

  it('follow the life of session and model', async () => {
    const { session, file } = await saved();
    const run = session.generate([], { ...OPTIONS, maxTokens: 2000 });
    expect(await code(session.save(newFile()))).toBe('ERR_BUSY');
    run.abort();
    await run.result();
    await session.dispose();
    expect(await code(session.save(newFile()))).toBe('ERR_DISPOSED');
    const other = await Model.load(paths.model, { threads: 1 });
    await other.dispose();
    expect(await code(other.restoreSession(file))).toBe('ERR_DISPOSED');
    expect((await model.restoreSession(file).catch((e: unknown) => e)) as Session).toMatchObject({ tokens: 53 });
  });

  it('keep the stack of the caller', async () => {
    async function caller(): Promise<void> {
      await model.restoreSession(join(folder, 'nothing'));
    }
    await expect(caller()).rejects.toMatchObject({ stack: expect.stringContaining('caller') as string });
  });

  it('obey a signal and disposal in the midst of it, and never leave half a file', async () => {
    const own = await Model.load(paths.model, { threads: 1, contextTokens: 4096 });
    const session = await own.createSession();
    await session.append(Array.from({ length: 4000 }, (_, i) => i % 256));
    const whole = newFile();
    await session.save(whole);
    const good = readFileSync(whole);
    const outcomes = new Set<unknown>();
    for (let i = 0; i < 20; i++) {
      const [saving, restoring] = [new AbortController(), new AbortController()];
      const target = i % 2 === 0 ? whole : newFile();
      const work = [
        code(session.save(target, { signal: saving.signal })),
        code(own.restoreSession(whole, { signal: restoring.signal }).then((each) => each.dispose())),
      ];
      if (i % 3 === 0) await turn();
      saving.abort();
      restoring.abort();
      for (const outcome of await Promise.all(work)) outcomes.add(outcome);
      expectSameBytes(readFileSync(whole), good);
    }
    expect([...outcomes].filter((each) => each !== 'ERR_ABORTED' && each !== 'it resolved')).toEqual([]);
    expect(outcomes).toContain('ERR_ABORTED');
    const fired = { signal: AbortSignal.abort() };
    expect(await code(session.save(whole, fired))).toBe('ERR_ABORTED');
    expect(await code(own.restoreSession(whole, fired))).toBe('ERR_ABORTED');
    const late = [code(session.save(newFile())), code(own.restoreSession(whole))];
    await own.dispose();
    for (const outcome of await Promise.all(late)) expect(['ERR_DISPOSED', 'it resolved']).toContain(outcome);
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it.skipIf(process.platform !== 'linux' || process.getuid?.() !== 0)('report a full disk', async ({ skip }) => {
    const mount = join(folder, 'full');
    mkdirSync(mount);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', mount], { stdio: 'ignore' });
    } catch {
      skip(); // not allowed here
    }
    try {
      const { session, file } = await saved(400);
      expect(await code(session.save(join(mount, 'x')))).toBe('ERR_FILE');
      expect(readdirSync(mount)).toEqual([]);
      copyFileSync(join(paths.model, 'config.json'), join(mount, 'small')); // there is room for other things
      await (await model.restoreSession(file)).dispose();
      await session.dispose();
    } finally {
      execFileSync('umount', [mount]);
    }
  });
});
