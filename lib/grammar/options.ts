import { invalid, RedrafterError } from '../errors.js';
import { describe, OptionReader } from '../option-reader.js';
import { ebnfCharacter } from './characters.js';
import { jsonSchemaToEbnf } from './json-schema.js';
import { parseRegex, regexToEbnf } from './regex.js';

/** Any JSON value. */
export interface JsonGrammar {
  /** Says so. */
  type: 'json';
}

/** A JSON value that a schema allows. */
export interface JsonSchemaGrammar {
  /** Says so. */
  type: 'json_schema';
  /** The schema, as `JSON.stringify` writes it; the guide on constrained decoding lists the keywords. */
  schema: object | boolean;
}

/** A text that a regular expression matches as a whole. */
export interface RegexGrammar {
  /** Says so. */
  type: 'regex';
  /** The expression in the syntax of JavaScript with the flag `u`, at most 2^18 UTF-16 units. */
  pattern: string;
}

/** A text that follows rules. */
export interface EbnfGrammar {
  /** Says so. */
  type: 'ebnf';
  /** The rules in the EBNF of XGrammar, at most 2^18 UTF-16 units; the text follows `root`. */
  grammar: string;
}

/** What a generated text must follow; see `GenerateOptions.grammar`. */
export type Grammar = JsonGrammar | JsonSchemaGrammar | RegexGrammar | EbnfGrammar;

const MOST_UNITS = 2 ** 18;

function text(key: string, value: unknown): string {
  if (typeof value !== 'string' || value.length > MOST_UNITS || !value.isWellFormed()) {
    throw invalid(
      `${key} of grammar must be a well-formed string of at most ${MOST_UNITS} UTF-16 units, got ${describe(value)}`,
    );
  }
  return value;
}

/** A schema as the data that it is, read once. */
function plain(schema: unknown): unknown {
  let written: string | undefined;
  try {
    written = JSON.stringify(schema);
  } catch (cause) {
    throw new RedrafterError('ERR_INVALID_ARGUMENT', 'schema of grammar cannot be written as JSON', { cause });
  }
  if ((typeof schema !== 'object' && typeof schema !== 'boolean') || schema === null) {
    throw invalid(`schema of grammar must be a JSON schema, got ${describe(schema)}`);
  }
  return JSON.parse(text('schema', written));
}

/** The grammar as EBNF. Throws ERR_INVALID_ARGUMENT; ERR_GRAMMAR for what is wrong inside of a schema or pattern. */
export function resolveGrammar(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'object' || value === null) throw invalid(`grammar must be an object, got ${describe(value)}`);
  const read = new OptionReader(value, ['type', 'schema', 'pattern', 'grammar']);
  const type = read.raw('type');
  const own = { json: undefined, json_schema: 'schema', regex: 'pattern', ebnf: 'grammar' } as const;
  if (typeof type !== 'string' || !Object.hasOwn(own, type)) {
    throw invalid(`type of grammar must be 'json', 'json_schema', 'regex' or 'ebnf', got ${describe(type)}`);
  }
  const key = own[type as keyof typeof own];
  const other = ['schema', 'pattern', 'grammar'].find((one) => one !== key && read.has(one));
  if (other !== undefined) throw invalid(`a grammar of type ${type} has no ${other}`);
  switch (key) {
    case undefined:
      return jsonSchemaToEbnf(true);
    case 'schema':
      return jsonSchemaToEbnf(plain(read.raw('schema')));
    case 'pattern':
      return `root ::= ${regexToEbnf(parseRegex(text('pattern', read.raw('pattern'))).regex, ebnfCharacter)}`;
    case 'grammar':
      return text('grammar', read.raw('grammar'));
  }
}
