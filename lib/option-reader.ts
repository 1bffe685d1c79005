import { invalid, RedrafterError } from './errors.js';
import { unpacked } from './package-root.js';

/** A value for an error message: short, and with its type where that is the problem. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return value.length > 40 ? `a string of ${value.length} units` : JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (value === null || typeof value === 'undefined' || typeof value === 'boolean') return String(value);
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** Edit distance, for suggestions. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/**
 * Reads an options object once: unknown keys are refused, every known key is read a single time, so a getter
 * cannot give one value to the check and another to the work.
 */
export class OptionReader {
  private readonly values = new Map<string, unknown>();

  constructor(options: unknown, keys: readonly string[]) {
    if (options === undefined) return;
    if (typeof options !== 'object' || options === null || Array.isArray(options)) {
      throw invalid(`options must be an object, got ${describe(options)}`);
    }
    for (const key of Object.keys(options)) {
      if (keys.includes(key)) continue;
      const near = keys.filter((known) => distance(known.toLowerCase(), key.toLowerCase()) <= 2)[0];
      throw invalid(`unknown option ${describe(key)}${near === undefined ? '' : `; did you mean ${near}?`}`);
    }
    for (const key of keys) {
      const value = (options as Record<string, unknown>)[key];
      if (value !== undefined) this.values.set(key, value);
    }
  }

  /** The unchecked value, or `fallback` when absent. Only undefined counts as absent: null is a wrong value. */
  raw(key: string, fallback?: unknown): unknown {
    return this.values.has(key) ? this.values.get(key) : fallback;
  }

  has(key: string): boolean {
    return this.values.has(key);
  }

  integer(key: string, fallback: number, low: number, high: number): number {
    const value = this.values.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high) {
      throw invalid(`${key} must be an integer from ${low} to ${high}, got ${describe(value)}`);
    }
    return value + 0; // -0 becomes 0
  }

  /** A finite number for which `fits` holds; `range` says so in words. */
  number(key: string, fallback: number, range: string, fits: (value: number) => boolean): number {
    const value = this.values.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'number' || !Number.isFinite(value) || !fits(value)) {
      throw invalid(`${key} must be a number ${range}, got ${describe(value)}`);
    }
    return value + 0;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.values.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'boolean') throw invalid(`${key} must be true or false, got ${describe(value)}`);
    return value;
  }

  signal(): AbortSignal | undefined {
    const value = this.values.get('signal');
    if (value === undefined) return undefined;
    if (!(value instanceof AbortSignal)) throw invalid(`signal must be an AbortSignal, got ${describe(value)}`);
    return value;
  }
}

/** A path, before it is opened; inside an Electron archive the unpacked one. */
export function checkPath(what: string, value: unknown, kind = 'a directory'): string {
  if (typeof value !== 'string' || value.length === 0 || value.includes('\0')) {
    throw invalid(`${what} must be the path of ${kind}, got ${describe(value)}`);
  }
  return unpacked(value);
}

export function hasLength(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || value instanceof Int32Array || value instanceof Uint32Array;
}

/**
 * Copies token ids, reading each element once. Refuses what is not an array, and elements that are not integers
 * in [0, vocab): holes, NaN, strings, BigInt, fractions.
 */
export function copyIds(what: string, value: unknown, vocab: number, most: number): Int32Array {
  if (!hasLength(value)) {
    throw invalid(`${what} must be an array of token ids, an Int32Array or a Uint32Array, got ${describe(value)}`);
  }
  const length = value.length;
  if (length > most) throw new RedrafterError('ERR_CONTEXT', `${what} has ${length} token ids, more than ${most}`);
  const ids = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const id = value[i];
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocab) {
      throw invalid(`${what}[${i}] must be a token id from 0 to ${vocab - 1}, got ${describe(id)}`);
    }
    ids[i] = id;
  }
  return ids;
}
