/** Prompts to measure with, in sets whose figures are told apart. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

import { RedrafterError } from '../errors.js';

export interface Prompt {
  set: string;
  /** Text, for the model's tokenizer, or token ids. */
  input: string | number[];
}

interface Entry {
  set?: unknown;
  text?: unknown;
  tokenIds?: unknown;
}

function promptOf(entry: Entry, path: string, fallback: string): Prompt {
  const { set = fallback, text, tokenIds } = entry;
  const isIds =
    Array.isArray(tokenIds) && tokenIds.length > 0 && tokenIds.every((id) => Number.isInteger(id) && id >= 0);
  const input = typeof text === 'string' && text !== '' ? text : isIds ? (tokenIds as number[]) : undefined;
  if (typeof set !== 'string' || input === undefined) {
    throw new RedrafterError('ERR_FILE', `${path} holds ${JSON.stringify(entry).slice(0, 60)}, which is no prompt`, {
      remedy: 'write a JSON array of { "text": "..." } or { "tokenIds": [...] }, each with a "set" if you like',
    });
  }
  return { set, input };
}

/** Reads files of prompts: JSON arrays of `{ text }` or `{ tokenIds }`, with `set`, else the file is the set. Throws ERR_FILE. */
export function readPrompts(files: readonly string[]): Prompt[] {
  return files.flatMap((path) => {
    let entries: unknown;
    try {
      entries = JSON.parse(readFileSync(path, 'utf8'));
    } catch (cause) {
      throw new RedrafterError('ERR_FILE', `cannot read prompts from ${path}`, { cause });
    }
    if (!Array.isArray(entries) || entries.length === 0) {
      throw new RedrafterError('ERR_FILE', `${path} holds no prompts: it must be a JSON array that is not empty`);
    }
    return entries.map((entry) => promptOf(Object(entry) as Entry, path, basename(path, '.json')));
  });
}

/** Those of the bundled model: declarations of Node's modules, and of the language's library. */
export function bundledPrompts(path: string): Prompt[] {
  const entries = JSON.parse(readFileSync(path, 'utf8')) as { name: string; text: string }[];
  return entries.map(({ name, text }) => ({
    set: name.startsWith('node-') ? 'node modules' : 'language',
    input: text,
  }));
}

/** The names of the sets, in the order of the prompts. */
export function setsOf(prompts: readonly Prompt[]): string[] {
  return [...new Set(prompts.map(({ set }) => set))];
}

/** At most `count` prompts of each set, spread evenly over it, as files are often ordered by source. */
export function choosePrompts(prompts: readonly Prompt[], count: number): Prompt[] {
  return setsOf(prompts).flatMap((name) => {
    const set = prompts.filter((prompt) => prompt.set === name);
    const chosen = new Set(
      Array.from({ length: Math.min(count, set.length) }, (_, i) =>
        Math.floor((i * set.length) / Math.min(count, set.length)),
      ),
    );
    return set.filter((_, i) => chosen.has(i));
  });
}
