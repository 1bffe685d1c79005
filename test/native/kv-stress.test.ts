/**
 * 10,000 random operations on the sessions of an engine whose cache is too small for them. After each one its counts are
 * those of a model that counts by looking at every block; at samples keys and values are those of a fresh computation; in
 * the end nothing is held.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type Asked, KvModel, type Session } from '../kit/kv-model.js';
import { type GenerateOptions, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { differingElements } from '../lossless/compare.js';

const SHAPE: TinyShape = {
  ...{ vocab: 31, hidden: 16, layers: 1, heads: 2, kvHeads: 1, headDim: 8, ffn: 24, maxPositions: 128 },
};
const CONTEXT = 112;
const directory = temporaryDirectory('kv-stress');
const target = join(directory, 'model');
const drafter = join(directory, 'drafter');
writeTinyLlama(target, SHAPE, 5);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 6);

const KEYS = ['', '', 'one', 'two'];

/** An engine and the model of its cache, which take the same operations. */
class Pair {
  readonly numbers = new Map<Session, number>();
  readonly model: KvModel;
  /** How often what happened, to know that all of it did. */
  readonly seen: Record<string, number> = {};
  /** The last generation, for messages. */
  last = '';
  private readonly beginnings: number[][];

  private constructor(
    private readonly engine: TestEngine,
    /** Computes afresh, without an index. */
    private readonly plain: TestEngine,
    private readonly random: Random,
    mostIdle: number,
  ) {
    this.model = new KvModel(engine.kvUsage().totalBlocks, CONTEXT, mostIdle);
    this.beginnings = Array.from({ length: 5 }, (_, i) => [...random.integers(12 + 17 * i, 0, SHAPE.vocab)]);
  }

  static async open(seed: number, mostIdle?: number): Promise<Pair> {
    const options: LoadOptions = { drafter, threads: 1, contextTokens: CONTEXT, kvTokens: CONTEXT };
    const plain = await TestEngine.load(target, { ...options, prefixCacheBytes: 0 });
    const { bytesPerBlock } = plain.kvUsage();
    const engine = await TestEngine.load(target, {
      ...options,
      ...(mostIdle === undefined ? {} : { prefixCacheBytes: mostIdle * bytesPerBlock + bytesPerBlock - 1 }),
    });
    return new Pair(engine, plain, new Random(seed), mostIdle ?? Infinity);
  }

  async close(): Promise<void> {
    await Promise.all([this.engine.close(), this.plain.close()]);
  }

  private count(what: string, times = 1): void {
    this.seen[what] = (this.seen[what] ?? 0) + times;
  }

  private number(session: Session): number {
    return this.numbers.get(session) ?? NaN;
  }

  /** Tokens of which others have had the beginning, some of them, or none. */
  private input(room: number): number[] {
    const { random } = this;
    const ids =
      random.uniform() < 0.7 ? random.pick(this.beginnings) : [...random.integers(1 + random.integer(0, 40), 0, 31)];
    return ids.slice(0, Math.min(room, 1 + random.integer(ids.length / 2, ids.length + 1)));
  }

  async open(): Promise<void> {
    const key = this.random.pick(KEYS);
    this.numbers.set(this.model.open(key), await this.engine.open(key));
  }

  async fork(from: Session): Promise<void> {
    this.numbers.set(this.model.fork(from), await this.engine.fork(this.number(from)));
  }

  async closeSession(session: Session): Promise<void> {
    await this.engine.closeSession(this.number(session));
    this.model.close(session);
    this.numbers.delete(session);
  }

  async rewind(session: Session): Promise<void> {
    const tokens = this.random.integer(0, session.tokens.length + 1);
    expect(await this.engine.rewind(this.number(session), tokens)).toMatchObject({ tokens });
    this.model.rewind(session, tokens);
  }

  async append(session: Session): Promise<void> {
    const ids = this.input(CONTEXT - session.tokens.length);
    if (!this.model.fits(session, ids)) return this.refused(session, ids);
    const { tokens, kvTokens } = await this.engine.append(this.number(session), ids);
    this.model.append(session, ids);
    expect([tokens, kvTokens]).toEqual([session.tokens.length, session.kvTokens]);
  }

  /** Rarely, as the engine hopes for half a second that somebody makes room. */
  private async refused(session: Session, ids: number[]): Promise<void> {
    this.count('too much');
    if ((this.seen['refused'] ?? 0) >= 3) return this.closeSession(session);
    this.count('refused');
    const before = session.tokens.length;
    await expect(this.engine.append(this.number(session), ids)).rejects.toMatchObject({ code: 'ERR_KV_FULL' });
    await this.engine.rewind(this.number(session), before);
  }

  async generate(session: Session): Promise<void> {
    const { random } = this;
    const ids =
      random.uniform() < 0.3 && session.tokens.length > 0 ? [] : this.input(CONTEXT - 1 - session.tokens.length);
    if (session.tokens.length + ids.length === 0 || session.tokens.length + ids.length >= CONTEXT)
      return this.rewind(session);
    const keep = random.integer(0, 40);
    const aborts = random.uniform() < 0.15;
    const asked: Asked = {
      maxTokens: 1 + random.integer(0, random.uniform() < 0.1 ? 200 : 30) + (aborts ? 60 : 0),
      ...(random.uniform() < 0.5
        ? { beamWidth: 0, beamLength: 0 }
        : { beamWidth: random.integer(1, 4), beamLength: 3 }),
      slide: !aborts && random.uniform() < 0.3 ? { keep, tail: Math.floor((CONTEXT - keep) / 2) } : undefined,
    };
    if (!this.model.fits(session, ids, asked)) {
      this.count('too much');
      return this.closeSession(session);
    }
    const stopAt = aborts ? random.integer(1, 20) : Infinity;
    const { slide, ...rest } = asked;
    this.last = JSON.stringify({
      ...asked,
      ids: ids.length,
      tokens: session.tokens.length,
      kv: session.kvTokens,
      stopAt,
    });
    const options: GenerateOptions = {
      ...rest,
      ...(random.uniform() < 0.5 ? {} : { temperature: 1, seed: BigInt(random.integer(0, 100)) }),
      ...(slide === undefined ? {} : { slideKeep: slide.keep, slideTail: slide.tail }),
    };
    const result = await this.engine.generate(this.number(session), ids, options, (soFar, abort) => {
      if (soFar.length >= stopAt) abort(stopAt);
    });
    if (result.reason === 'stop') this.count('aborted');
    this.count('dropped', result.stats.droppedTokens);
    const kept = result.ids.slice(0, result.stats.tokens);
    const reused = this.model.generate(session, ids, { ...asked, ids: kept, kvTokens: result.kvTokens });
    this.count('reused', reused);
    expect([result.tokens, result.stats.reusedTokens]).toEqual([session.tokens.length, reused]);
  }

  async saveAndRestore(session: Session): Promise<void> {
    const path = join(directory, 'a.session');
    await this.engine.save(this.number(session), path);
    const restored = this.model.restore(session.tokens, session.kvTokens);
    if (restored === undefined) {
      this.count('too much');
      await expect(this.engine.restore(path)).rejects.toMatchObject({ code: 'ERR_KV_FULL' });
    } else {
      const { session: number, ids, kvTokens } = await this.engine.restore(path);
      expect([ids, kvTokens]).toEqual([session.tokens, session.kvTokens]);
      this.numbers.set(restored, number);
      this.count('restored');
    }
    await rm(path);
  }

  async clear(): Promise<void> {
    const key = this.random.pick(['', 'one', 'two', 'none']);
    await this.engine.clearPrefixes(key);
    this.model.clear(key);
  }

  async step(): Promise<void> {
    this.last = '';
    const sessions = [...this.numbers.keys()];
    const kind = this.random.uniform();
    if (sessions.length === 0 || (kind < 0.07 && sessions.length < 12)) return this.open();
    const session = this.random.pick(sessions);
    if (kind < 0.13 && sessions.length < 12) return this.fork(session);
    if (kind < 0.35) return this.append(session);
    if (kind < 0.65) return this.generate(session);
    if (kind < 0.86) return this.rewind(session);
    if (kind < 0.88) return this.saveAndRestore(session);
    if (kind < 0.885) return this.clear();
    return this.closeSession(session);
  }

  checkCounts(): void {
    const { model, engine } = this;
    model.trim();
    const { freeBlocks, prefixBlocks, evictedBlocks, sessions } = engine.kvUsage();
    expect({ freeBlocks, prefixBlocks, evictedBlocks, sessions }).toEqual({
      freeBlocks: model.free,
      prefixBlocks: model.idle,
      evictedBlocks: model.evicted,
      sessions: model.sessions.size,
    });
    for (const [session, number] of this.numbers)
      expect(engine.kvUsage(number).sharedBlocks).toBe(model.shared(session));
  }

  async checkBytes(session: Session): Promise<void> {
    const fresh = await this.plain.open();
    await this.plain.append(fresh, session.tokens.slice(0, session.kvTokens));
    const [expected, got] = [await this.plain.readKv(fresh), await this.engine.readKv(this.number(session))];
    expect(differingElements(expected, got)).toBe(0);
    this.count('floats', got.length);
    await this.plain.closeSession(fresh);
  }

  async end(): Promise<void> {
    for (const session of [...this.numbers.keys()]) {
      await this.closeSession(session);
      this.checkCounts();
    }
    await this.engine.clearPrefixes();
    const { freeBlocks, prefixBlocks, totalBlocks } = this.engine.kvUsage();
    expect([freeBlocks, prefixBlocks]).toEqual([totalBlocks, 0]);
    expect(this.plain.kvUsage().freeBlocks).toBe(totalBlocks);
  }
}

/** Any seed will do: REDRAFTER_TEST_SEED takes another one, and a failure says which it was. */
const SEED = Number(process.env['REDRAFTER_TEST_SEED'] ?? 20);

it.each([
  { operations: 7000, mostIdle: undefined },
  { operations: 2000, mostIdle: 5 },
  { operations: 1000, mostIdle: 0 },
])(
  `random operations leave the counts of the model: $operations, at most $mostIdle idle blocks, seed ${SEED}`,
  { timeout: 120_000 },
  async ({ operations, mostIdle }) => {
    const pair = await Pair.open(SEED, mostIdle);
    for (let n = 0; n < operations; n++) {
      try {
        await pair.step();
        pair.checkCounts();
        const sessions = [...pair.numbers.keys()];
        if (n % 20 === 0 && sessions.length > 0) await pair.checkBytes(sessions[n % sessions.length] as Session);
      } catch (error) {
        throw new Error(`operation ${n} ${pair.last}, seed ${SEED}: ${String(error)}`, { cause: error });
      }
    }
    await pair.end();
    await pair.close();
    const { seen, model } = pair;
    for (const what of ['restored', 'dropped', 'reused', 'floats']) expect(seen[what], what).toBeGreaterThan(5);
    if (mostIdle !== 0) expect(model.evicted).toBeGreaterThan(100);
    if (mostIdle !== undefined) return;
    expect(seen['refused']).toBe(3);
    expect(seen['aborted']).toBeGreaterThan(0); // how often the engine hears it before it is done anyway is a matter of luck
  },
);

it('a session that the model does not know of is noticed', async () => {
  const pair = await Pair.open(SEED);
  const plantLeak = async (): Promise<void> => {
    for (let n = 0; n < 100; n++) {
      await pair.step();
      pair.checkCounts();
      const held = [...pair.numbers].find(([session]) => session.blocks.length > 0);
      if (n > 50 && held !== undefined) await pair['engine'].fork(held[1]);
    }
  };
  await expect(plantLeak()).rejects.toThrow(/sessions|freeBlocks/);
  await pair.close();
});
