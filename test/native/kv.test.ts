/** The paged cache against a model that keeps the values of every sequence in a plain array. */
import { describe, expect, it } from 'vitest';

import { at, ints, range } from '../kit/arrays.js';
import { expectSameNumbers } from '../kit/compare.js';
import type { KvDriver } from '../kit/ops.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';

const BLOCK = 16;
const BLOCKS = 14;
const SHAPE = { layers: 2, kvHeads: 2, headDim: 8, blocks: BLOCKS };

const full: unknown = expect.objectContaining({ code: 'ERR_KV_FULL' });
const open = (shape = SHAPE): KvDriver => testing.ops.kvCache('base', shape);

class Model {
  readonly kv = open();
  /** Per sequence the number each committed slot was written with. */
  readonly sequences = new Map<number, number[]>();
  private written = 0;
  refusals = 0;

  constructor(private readonly random: Random) {}

  private slot(value: number): Float32Array {
    return Float32Array.from(range(this.kv.slotFloats), (i) => value * 64 + i);
  }
  private tokens(id: number): number[] {
    return this.sequences.get(id) ?? [];
  }
  private sharers(block: number): number {
    return [...this.sequences.keys()].filter((id) => this.kv.blocks(id).includes(block)).length;
  }

  open(): void {
    this.sequences.set(this.kv.open(), []);
  }
  close(id: number): void {
    this.kv.close(id);
    this.sequences.delete(id);
  }

  /** Writes a round of rows after the committed ones and keeps an ascending choice of them. */
  extend(id: number): void {
    const tokens = this.tokens(id);
    const rows = this.random.integer(0, 45);
    const slots = tokens.length + rows;
    const blocks = this.kv.blocks(id);
    const last = blocks[Math.floor(tokens.length / BLOCK)];
    const copies = rows > 0 && last !== undefined && this.sharers(last) > 1 ? 1 : 0;
    const needed = Math.max(0, Math.ceil(slots / BLOCK) - blocks.length) + copies;
    expect(this.kv.blocksNeeded(id, slots)).toBe(needed);
    const free = this.kv.freeBlocks();
    if (needed > free) {
      expect(() => {
        this.kv.reserve(id, slots);
      }).toThrow(full);
      this.refusals++;
      return;
    }
    this.kv.reserve(id, slots);
    expect(this.kv.freeBlocks()).toBe(free - needed);
    const values = range(rows).map(() => ++this.written);
    values.forEach((value, i) => {
      this.kv.write(id, tokens.length + i, this.slot(value));
    });
    const kept = range(rows).filter(() => this.random.uniform() < 0.6);
    this.kv.compact(
      id,
      Int32Array.from(kept, (i) => tokens.length + i),
      tokens.length,
    );
    this.kv.commit(id, tokens.length + kept.length);
    tokens.push(...kept.map((i) => at(values, i)));
  }
  truncate(id: number, ...fault: ['forgets a release'?]): void {
    const tokens = this.tokens(id);
    const length = this.random.integer(0, tokens.length + 5);
    this.kv.truncate(id, length, ...fault);
    tokens.splice(length);
    expect(this.kv.blocks(id)).toHaveLength(Math.ceil(tokens.length / BLOCK));
  }
  fork(id: number, from: number): void {
    this.kv.fork(id, from);
    this.sequences.set(id, this.tokens(from).slice());
    const blocks = this.kv.blocks(from).subarray(0, Math.ceil(this.tokens(from).length / BLOCK));
    expectSameNumbers(this.kv.blocks(id), blocks);
  }

  checkContents(id: number): void {
    const tokens = this.tokens(id);
    expect(this.kv.length(id)).toBe(tokens.length);
    tokens.forEach((value, slot) => {
      const read = this.kv.read(id, slot);
      if (!read.every((x, i) => x === value * 64 + i)) expect.fail(`slot ${slot} of ${id} is not what was written`);
    });
  }
  /** Every block is free, or in the table of some sequence. */
  checkBlocks(): void {
    const used = new Set([...this.sequences.keys()].flatMap((id) => Array.from(this.kv.blocks(id))));
    expect(this.kv.freeBlocks() + used.size).toBe(BLOCKS);
  }
}

describe('KV cache', () => {
  it('keeps what each sequence wrote through 5,000 random operations, and gives every block back', () => {
    const random = new Random(12);
    const model = new Model(random);
    for (let n = 0; n < 5000; n++) {
      const ids = [...model.sequences.keys()];
      const id = ids.length === 0 ? -1 : random.pick(ids);
      const kind = random.uniform();
      if (id < 0 || (kind < 0.08 && ids.length < 8)) model.open();
      else if (kind < 0.55) model.extend(id);
      else if (kind < 0.8) model.truncate(id);
      else if (kind < 0.93) {
        const from = random.pick(ids);
        if (from !== id) model.fork(id, from);
      } else model.close(id);
      model.checkBlocks();
      if (model.sequences.has(id)) model.checkContents(id);
      if (n % 25 === 0) for (const other of model.sequences.keys()) model.checkContents(other);
    }
    expect(model.refusals).toBeGreaterThan(20);
    for (const id of [...model.sequences.keys()]) model.close(id);
    expect(model.kv.freeBlocks()).toBe(BLOCKS);
  });

  it.each([false, true])('a release that was forgotten is noticed: %s', (forgotten) => {
    const model = new Model(new Random(3));
    model.open();
    for (let n = 0; n < 20; n++) model.extend(0);
    model.truncate(0, ...(forgotten ? (['forgets a release'] as const) : []));
    model.close(0);
    if (forgotten)
      expect(() => { model.checkBlocks(); }).toThrow(/expected 13 to be 14/); // prettier-ignore
    else model.checkBlocks();
  });

  it('copies a shared last block on the first write, and only that', () => {
    const kv = open();
    const [a, b] = [kv.open(), kv.open()];
    kv.reserve(a, 20);
    range(20).forEach((slot) => {
      kv.write(a, slot, new Float32Array(kv.slotFloats).fill(slot));
    });
    kv.commit(a, 20);
    kv.fork(b, a);
    expect(kv.freeBlocks()).toBe(BLOCKS - 2);
    expect(kv.blocksNeeded(b, 21)).toBe(1);
    expect(kv.blocksNeeded(b, 20)).toBe(0);
    kv.reserve(b, 21);
    expect(kv.freeBlocks()).toBe(BLOCKS - 3);
    expect(at(kv.blocks(b), 0)).toBe(at(kv.blocks(a), 0));
    expect(at(kv.blocks(b), 1)).not.toBe(at(kv.blocks(a), 1));
    kv.write(b, 20, new Float32Array(kv.slotFloats).fill(-1));
    range(20).forEach((slot) => {
      expect(at(kv.read(b, slot), 0)).toBe(slot);
    });
    // The other owner is alone with its block again and writes in place.
    expect(kv.blocksNeeded(a, 21)).toBe(0);
    kv.close(a);
    kv.close(b);
    expect(kv.freeBlocks()).toBe(BLOCKS);
  });

  it('a fork survives the end of what it was forked from', () => {
    const kv = open();
    const [a, b] = [kv.open(), kv.open()];
    kv.reserve(a, 40);
    range(40).forEach((slot) => {
      kv.write(a, slot, new Float32Array(kv.slotFloats).fill(slot));
    });
    kv.commit(a, 33);
    kv.fork(b, a);
    kv.truncate(a, 5);
    kv.reserve(a, 8);
    kv.write(a, 5, new Float32Array(kv.slotFloats).fill(-1));
    kv.close(a);
    range(33).forEach((slot) => {
      expect(at(kv.read(b, slot), 1)).toBe(slot);
    });
    expect(kv.length(b)).toBe(33);
  });

  it('refuses with ERR_KV_FULL, keeps what is committed, and works again after a truncate', () => {
    const kv = open({ ...SHAPE, blocks: 3 });
    const [a, b] = [kv.open(), kv.open()];
    kv.reserve(a, 20);
    kv.write(a, 0, new Float32Array(kv.slotFloats).fill(5));
    kv.commit(a, 20);
    expect(() => {
      kv.reserve(b, 17);
    }).toThrow(full);
    expect(kv.length(b)).toBe(0);
    kv.truncate(b, 0);
    expect(kv.freeBlocks()).toBe(1);
    kv.reserve(b, 16);
    expect(at(kv.read(a, 0), 0)).toBe(5);
    kv.truncate(a, 16);
    expect(kv.freeBlocks()).toBe(1);
  });

  it('keeps every bit, NaN and -0 included', () => {
    const kv = open();
    const a = kv.open();
    kv.reserve(a, 3);
    const values = Float32Array.from(range(kv.slotFloats), (i) => [NaN, -0, Infinity, 1e-45][i % 4] ?? 0);
    kv.write(a, 2, values);
    kv.compact(a, ints(2), 0);
    expectSameNumbers(kv.read(a, 0), values);
  });
});
