import { describe, OptionReader } from '../options.js';
import { RedrafterError } from '../errors.js';
import { badField, HttpError } from './http-error.js';

/** Fields that change nothing here. */
const IGNORED = ['user', 'metadata', 'safety_identifier', 'prompt_cache_retention', 'parallel_tool_calls'];

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

const empty = (value: unknown): boolean => value === '' || (isObject(value) && Object.keys(value).length === 0);

/** Fields that would change the answer and are not supported, with the values that ask for nothing. */
const REFUSED: Record<string, (value: unknown) => boolean> = {
  best_of: (value) => value === 1,
  echo: (value) => value === false,
  store: (value) => value === false,
  suffix: empty,
  tools: empty,
  functions: empty,
  tool_choice: (value) => value === 'none' || value === 'auto',
  function_call: (value) => value === 'none' || value === 'auto',
  modalities: (value) => Array.isArray(value) && value.length === 1 && value[0] === 'text',
};

/** The body as JSON. Throws 400. */
export function parseJson(bytes: ArrayBuffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new HttpError(400, 'ERR_INVALID_ARGUMENT', 'the body is not JSON in UTF-8');
  }
}

/**
 * The fields of a body, each checked as it is read. Null counts as absent, as in OpenAI's API. Every error is a 400
 * that names the field.
 */
export class BodyFields {
  private readonly read: OptionReader;

  /** Throws for unknown fields, and for known ones that ask for what is not supported. */
  constructor(body: unknown, known: readonly string[]) {
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      throw new HttpError(400, 'ERR_INVALID_ARGUMENT', `the body must be a JSON object, got ${describe(body)}`);
    }
    const fields: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    for (const [key, value] of Object.entries(body)) {
      if (value === null || IGNORED.includes(key)) continue;
      const neutral = Object.hasOwn(REFUSED, key) ? REFUSED[key] : undefined;
      if (neutral === undefined) fields[key] = value;
      else if (!neutral(value)) throw badField(key, refusal(key, value));
    }
    const stranger = Object.keys(fields).find((key) => !known.includes(key));
    this.read = at(stranger ?? '', () => new OptionReader(fields, known));
  }

  raw(key: string): unknown {
    return this.read.raw(key);
  }

  has(key: string): boolean {
    return this.read.raw(key) !== undefined;
  }

  string(key: string): string | undefined {
    const value = this.read.raw(key);
    if (value !== undefined && typeof value !== 'string') {
      throw badField(key, `${key} must be a string, got ${describe(value)}`);
    }
    return value;
  }

  /** Undefined when absent. */
  integer(key: string, low: number, high: number): number | undefined {
    return at(key, () => (this.has(key) ? this.read.integer(key, low, low, high) : undefined));
  }

  number(key: string, fallback: number, range: string, fits: (value: number) => boolean): number {
    return at(key, () => this.read.number(key, fallback, range, fits));
  }

  boolean(key: string): boolean {
    return at(key, () => this.read.boolean(key, false));
  }
}

function refusal(key: string, value: unknown): string {
  return key === 'best_of'
    ? `best_of must be 1: choices are not ranked, n gives them all; got ${describe(value)}`
    : `${key} is not supported`;
}

/** Runs a check of the library; what it throws becomes a 400 that names the field. */
export function at<T>(param: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof RedrafterError)) throw error;
    throw badField(param.slice(0, 64), error.message.replace('unknown option', 'unknown field'));
  }
}
