import { describe, expect, it } from 'vitest';

import { createDetokenizer } from '../../lib/detokenizer.js';
import { RedrafterError } from '../../lib/errors.js';
import { Generation, type Chunk, type GenerationHost, type GenerationInput } from '../../lib/generation.js';
import type { NativeFinish, NativeStats } from '../../lib/native.js';

const STATS: NativeStats = {
  promptTokens: 1,
  reusedTokens: 0,
  tokens: 0,
  droppedTokens: 0,
  rounds: 2,
  decodedTokens: 3,
  draftedRounds: 0,
  draftedNodes: 8,
  draftedByDepth: [2, 2],
  acceptedByDepth: [2, 1],
  queuedMs: 1,
  firstTokenMs: 11,
  prefillMs: 10,
  draftMs: 1,
  verifyMs: 2,
  hostMs: 1,
  totalMs: 20,
};

/** Tokens are UTF-16 code points as bytes, so text is easy to read. */
const BYTES = { byteLevel: true, bytes: (id: number) => Uint8Array.of(id), skipped: () => false, decode: () => '' };

/** A generation whose engine is this test. */
class Bench {
  readonly aborts: number[] = [];
  readonly reads: number[] = [];
  resting = false;
  readonly ended: [ids: number[], held: number][] = [];
  readonly shortened: number[] = [];
  readonly run: Generation;

  constructor(input: Partial<GenerationInput> = {}) {
    const host: GenerationHost = {
      abort: (keep) => this.aborts.push(keep),
      read: (tokens) => this.reads.push(tokens),
      rest: (resting) => {
        this.resting = resting;
      },
      ended: ({ ids }, held) => {
        this.ended.push([[...ids], held]);
        return Promise.resolve();
      },
      failed: (error) => Promise.resolve(error),
      shorten: (_, kept) => {
        this.shortened.push(kept);
        return Promise.resolve();
      },
    };
    const detokenizer = createDetokenizer(BYTES);
    const rest = { stop: [], logprobs: -1, seed: 5n, dropped: 0, signal: undefined, bufferTokens: 64 };
    this.run = new Generation(host, { detokenizer, ...rest, ...input });
  }

  tokens(text: string, accepted = 0, extra: object = {}): void {
    const ids = Int32Array.from(new TextEncoder().encode(text));
    this.run.message({ type: 'tokens', ticket: 1, ids, accepted, dropped: 0, ...extra });
  }

  finish(reason: NativeFinish = 'length', tokens = 0): void {
    this.run.message({ type: 'finish', ticket: 1, reason, stats: STATS, tokens, kvTokens: 0 });
  }
}

async function all(run: Generation): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of run) chunks.push(chunk);
  return chunks;
}

describe('Generation', () => {
  it('gives one chunk per round and the whole as result', async () => {
    const bench = new Bench();
    const reading = all(bench.run);
    bench.tokens('a');
    bench.tokens('bcd', 2);
    bench.finish('eos');
    expect(await reading).toEqual([
      { text: 'a', tokenIds: [97], accepted: 0 },
      { text: 'bcd', tokenIds: [98, 99, 100], accepted: 2 },
    ]);
    const result = await bench.run.result();
    expect(result).toMatchObject({ text: 'abcd', tokenIds: [97, 98, 99, 100], finishReason: 'eos', seed: 5n });
    expect(result.logprobs).toBe(undefined);
    expect(result.stats).toMatchObject({ tokens: 4, tokensPerStep: 1.5, tokensPerSecond: 300 });
  });

  it('can be read after the end, and without being iterated', async () => {
    const bench = new Bench();
    bench.tokens('ab');
    bench.finish();
    expect((await bench.run.result()).text).toBe('ab');
    expect(await all(bench.run)).toHaveLength(1);
  });

  it('holds back an unfinished character and gives it out at the end', async () => {
    const bench = new Bench();
    const [first, ...rest] = new TextEncoder().encode('€');
    bench.run.message({ type: 'tokens', ticket: 1, ids: Int32Array.of(first ?? 0), accepted: 0, dropped: 0 });
    bench.finish();
    expect(rest).toHaveLength(2);
    expect(await all(bench.run)).toEqual([
      { text: '', tokenIds: [0xe2], accepted: 0 },
      { text: '\ufffd', tokenIds: [], accepted: 0 },
    ]);
  });

  it('cuts at a stop string inside an accepted run and drops what follows', async () => {
    const bench = new Bench({ stop: ['cd'] });
    bench.tokens('abc', 1);
    bench.tokens('defg', 4);
    expect(bench.aborts).toEqual([4]);
    bench.tokens('hij', 3);
    bench.finish('stop', 4);
    const result = await bench.run.result();
    expect(result).toMatchObject({ text: 'ab', tokenIds: [97, 98, 99, 100], finishReason: 'stop' });
    expect(result.stats.tokens).toBe(4);
    expect(await all(bench.run)).toEqual([
      { text: 'ab', tokenIds: [97, 98, 99], accepted: 1 },
      { text: '', tokenIds: [100], accepted: 1 },
    ]);
    expect(bench.ended).toEqual([[[97, 98, 99, 100], 4]]);
  });

  it('gives out a possible stop string that did not come', async () => {
    const bench = new Bench({ stop: ['xyz'] });
    bench.tokens('axy');
    bench.finish();
    expect((await bench.run.result()).text).toBe('axy');
    expect((await all(bench.run)).map(({ text }) => text)).toEqual(['a', 'xy']);
  });

  it('passes log-probabilities per token', async () => {
    const bench = new Bench({ logprobs: 2 });
    const extra = {
      logprobs: Float32Array.of(-1, -2),
      topIds: Int32Array.of(97, 98, 99, 100),
      topLogprobs: Float32Array.of(-1, -3, -2, -4),
    };
    bench.tokens('ab', 0, extra);
    bench.finish();
    const expected = [
      { id: 97, logprob: -1, top: [[97, -1], [98, -3]] }, // prettier-ignore
      { id: 98, logprob: -2, top: [[99, -2], [100, -4]] }, // prettier-ignore
    ];
    expect((await bench.run.result()).logprobs).toEqual(expected);
    expect((await all(bench.run))[0]?.logprobs).toEqual(expected);
  });

  it('ends by abort() with what there is', async () => {
    const bench = new Bench();
    bench.tokens('ab');
    bench.run.abort();
    expect(bench.aborts).toEqual([-1]);
    bench.tokens('c'); // was under way
    bench.finish('abort', 3);
    bench.run.abort();
    expect(bench.aborts).toEqual([-1]);
    expect(await bench.run.result()).toMatchObject({ text: 'abc', finishReason: 'abort' });
  });

  it('rejects by the signal, and reports once', async () => {
    const controller = new AbortController();
    const bench = new Bench({ signal: controller.signal });
    bench.tokens('ab');
    controller.abort('why');
    expect(bench.aborts).toEqual([-1]);
    bench.tokens('c');
    bench.finish('abort');
    await expect(bench.run.result()).rejects.toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError', cause: 'why' });
    await expect(all(bench.run)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('keeps what a loop saw when it is left', async () => {
    const bench = new Bench();
    bench.tokens('ab');
    bench.tokens('cd');
    const leaving = (async () => {
      for await (const chunk of bench.run) {
        expect(chunk.text).toBe('ab');
        break;
      }
    })();
    await new Promise((resolve) => setImmediate(resolve));
    expect(bench.aborts).toEqual([2]);
    bench.tokens('ef');
    bench.finish('stop', 2);
    await leaving;
    expect(await bench.run.result()).toMatchObject({ text: 'ab', tokenIds: [97, 98], finishReason: 'abort' });
  });

  it('shortens the session when a loop is left after the end', async () => {
    const bench = new Bench();
    bench.tokens('ab');
    bench.tokens('cd');
    bench.finish('length', 4);
    for await (const chunk of bench.run) {
      expect(chunk.text).toBe('ab');
      break;
    }
    expect([bench.aborts, bench.shortened]).toEqual([[], [2]]);
    expect((await bench.run.result()).text).toBe('abcd');
  });

  it('can be returned before the first chunk', async () => {
    const bench = new Bench();
    const iterator = bench.run[Symbol.asyncIterator]();
    const returned = iterator.return?.();
    expect(bench.aborts).toEqual([0]);
    bench.tokens('a');
    bench.finish('stop', 0);
    await returned;
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    expect(await bench.run.result()).toMatchObject({ tokenIds: [], text: '' });
  });

  it('reports an error to iteration and result, after the chunks before it', async () => {
    const bench = new Bench();
    bench.tokens('a');
    bench.run.fail(new RedrafterError('ERR_NUMERIC', 'x'));
    const iterator = bench.run[Symbol.asyncIterator]();
    expect((await iterator.next()).value?.text).toBe('a');
    await expect(iterator.next()).rejects.toMatchObject({ code: 'ERR_NUMERIC' });
    await expect(bench.run.result()).rejects.toMatchObject({ code: 'ERR_NUMERIC' });
  });

  it('works without a tokenizer', async () => {
    const bench = new Bench({ detokenizer: undefined });
    bench.tokens('ab');
    bench.finish();
    expect(await bench.run.result()).toMatchObject({ text: '', tokenIds: [97, 98] });
  });
});

describe('what is read of a generation', () => {
  it('is told to the engine by half buffers, and nothing is expected beyond the buffer', async () => {
    const bench = new Bench({ bufferTokens: 4 });
    const reader = bench.run[Symbol.asyncIterator]();
    for (const text of ['a', 'bc', 'd']) bench.tokens(text);
    expect([bench.reads, bench.resting]).toEqual([[], false]);
    bench.tokens('ef');
    expect(bench.resting).toBe(true);
    await reader.next();
    expect([bench.reads, bench.resting]).toEqual([[], true]);
    await reader.next();
    expect([bench.reads, bench.resting]).toEqual([[3], false]);
    await reader.next();
    await reader.next();
    expect(bench.reads).toEqual([3, 6]);
    bench.finish();
    expect((await reader.next()).done).toBe(true);
    expect(bench.reads).toEqual([3, 6]);
  });

  it('does not matter to one that is not iterated', async () => {
    const bench = new Bench({ bufferTokens: 1 });
    bench.tokens('ab');
    expect([bench.reads, bench.resting]).toEqual([[-1], false]);
    bench.tokens('cd');
    bench.finish();
    expect((await bench.run.result()).text).toBe('abcd');
    expect(bench.reads).toEqual([-1]);
  });

  it('matters from the first loop on, until somebody asks for the whole', async () => {
    const bench = new Bench({ bufferTokens: 1 });
    bench.tokens('ab');
    const reader = bench.run[Symbol.asyncIterator]();
    expect([bench.reads, bench.resting]).toEqual([[-1, 0], true]);
    await reader.next();
    expect([bench.reads, bench.resting]).toEqual([[-1, 0, 2], false]);
    void bench.run.result();
    bench.tokens('cde');
    expect([bench.reads, bench.resting]).toEqual([[-1, 0, 2, -1], false]);
    void bench.run[Symbol.asyncIterator]();
    await reader.next();
    expect(bench.reads).toEqual([-1, 0, 2, -1]);
    bench.finish();
  });

  it('is of no interest once it is to end', async () => {
    const bench = new Bench({ bufferTokens: 1 });
    const reader = bench.run[Symbol.asyncIterator]();
    bench.tokens('abc');
    expect(bench.resting).toBe(true);
    bench.run.abort();
    expect([bench.resting, bench.aborts]).toEqual([false, [-1]]);
    bench.tokens('def');
    expect(bench.resting).toBe(false);
    await reader.next();
    expect(bench.reads).toEqual([]);
    bench.finish('abort');
    await bench.run.result();
  });
});
