import { invalid } from '../errors.js';
import type { ContextPolicy } from '../option-types.js';

/** Parsers of option values. They are strict: "12abc", "1e3" for an integer, " 5" and "" are refused. */

export function integer(flag: string): (text: string) => number {
  return (text) => {
    if (!/^-?\d{1,15}$/.test(text)) throw invalid(`${flag} must be an integer, got ${JSON.stringify(text)}`);
    return Number(text);
  };
}

export function decimal(flag: string): (text: string) => number {
  return (text) => {
    if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$/.test(text)) {
      throw invalid(`${flag} must be a number, got ${JSON.stringify(text)}`);
    }
    return Number(text);
  };
}

const UNIT_BYTES: Record<string, number> = {
  ...{ '': 1, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 },
  ...{ KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 },
};

/** "4GiB", "1.5GB" or "500000000", in bytes, rounded down. */
export function byteCount(flag: string): (text: string) => number {
  return (text) => {
    const [, digits = '', unit = ''] = /^(\d{1,15}(?:\.\d{1,6})?)([A-Za-z]*)$/.exec(text) ?? [];
    const factor = UNIT_BYTES[unit];
    if (digits === '' || factor === undefined || (factor === 1 && digits.includes('.'))) {
      throw invalid(`${flag} must be a number of bytes, as in 500000000, 4GiB or 1.5GB, got ${JSON.stringify(text)}`);
    }
    return Math.floor(Number(digits) * factor);
  };
}

/** "error", "slide" or "slide:64". */
export function contextPolicy(flag: string): (text: string) => ContextPolicy {
  return (text) => {
    const [, policy, keep] = /^(error|slide)(?::(\d{1,9}))?$/.exec(text) ?? [];
    if (policy === undefined || (policy === 'error' && keep !== undefined)) {
      throw invalid(`${flag} must be error, slide or slide:TOKENS, got ${JSON.stringify(text)}`);
    }
    return policy === 'error' ? 'error' : { slide: true, keepTokens: Number(keep ?? 0) };
  };
}

export function bigInteger(flag: string): (text: string) => bigint {
  return (text) => {
    if (!/^\d{1,20}$/.test(text)) {
      throw invalid(`${flag} must be an integer from 0 to 2^64-1, got ${JSON.stringify(text)}`);
    }
    return BigInt(text);
  };
}

/** `17=-2.5,3=100`: values by token id. */
export function biasList(flag: string): (text: string) => Map<number, number> {
  const number = decimal(flag);
  return (text) => {
    const biases = text.split(',').map((entry): [number, number] => {
      const [, id, bias] = /^(\d{1,10})=(.+)$/.exec(entry) ?? [];
      if (id === undefined || bias === undefined) {
        throw invalid(
          `${flag} must be token ids with numbers (17=-2.5,3=100), got ${JSON.stringify(entry.slice(0, 40))}`,
        );
      }
      return [Number(id), number(bias)];
    });
    if (new Set(biases.map(([id]) => id)).size < biases.length) throw invalid(`${flag} names a token id twice`);
    return new Map(biases);
  };
}

export function idList(flag: string): (text: string) => number[] {
  return (text) => {
    if (!/^\d{1,10}(,\d{1,10})*$/.test(text)) {
      const shown = text.length > 40 ? `${text.slice(0, 40)}...` : text;
      throw invalid(`${flag} must be token ids separated by commas (1,2,3), got ${JSON.stringify(shown)}`);
    }
    return text.split(',').map(Number);
  };
}
