import { RedrafterError } from '../errors.js';
import {
  ALL,
  characters,
  charactersOf,
  type Characters,
  common,
  ebnfCharacter,
  ebnfString,
  without,
} from './characters.js';
import { integersBetween, LARGEST, MOST_DIGITS } from './numbers.js';
import { MOST_REPEATS, parseRegex, regexToEbnf, repeated } from './regex.js';

/** A JSON schema, already plain data. */
type Schema = Record<string, unknown>;

/** Between tokens there are at most so many spaces, tabs and line ends, so that no text consists of them. */
const MOST_SPACES = 32;
const MOST_DEPTH = 64;

const RAW = without(ALL, characters([0, 0x1f], [0x22, 0x22], [0x5c, 0x5c]));
const RAW_CHARACTER = ebnfCharacter(RAW) ?? '';
const SHORT: Record<string, string> = { '"': '\\"', '\\': '\\\\', '\b': '\\b', '\f': '\\f', '\n': '\\n', '\r': '\\r', '\t': '\\t' }; // prettier-ignore
const NAMED = charactersOf(Object.keys(SHORT).join(''));

/**
 * Rules of JSON itself. A value has no space around it. Surrogates are not written as escapes, as a half of a pair alone is
 * no character; numbers stay within what a double can say.
 */
const JSON_RULES = [
  `ws ::= [ \\n\\r\\t]{0,${MOST_SPACES}}`,
  'hex ::= [0-9A-Fa-f]',
  'escape ::= ["\\\\/bfnrt] | "u" ([0-9A-Ca-cEFef] hex hex hex | [Dd] [0-7] hex hex)',
  // Recursion at the end, as then what is allowed inside of a string is known without trying every token.
  `chars ::= "" | ${RAW_CHARACTER} chars | "\\\\" escape chars`,
  `rest ::= "\\"" | ${RAW_CHARACTER} rest | "\\\\" escape rest`,
  'string ::= "\\"" rest',
  `integer ::= "-"? ("0" | [1-9] [0-9]{0,${MOST_DIGITS - 1}})`,
  `fraction ::= ("." [0-9]{1,${MOST_DIGITS}})? ([Ee] [+-]? [0-9]{1,2})?`,
  'number ::= integer fraction',
  'array ::= "[" ws (value ws ("," ws value ws)*)? "]"',
  'object ::= "{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"',
  'value ::= object | array | string | number | "true" | "false" | "null"',
];

const ANNOTATIONS = new Set([
  ...[
    'title',
    'description',
    'default',
    'examples',
    'deprecated',
    'readOnly',
    'writeOnly',
    '$comment',
    '$schema',
    '$id',
  ],
  ...['$defs', 'definitions'],
]);
/** What says something of values of one type, and nothing of others. */
const OF_TYPE: Record<string, readonly string[]> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  number: ['minimum'],
  boolean: [],
  null: [],
};
const FORMATS: Record<string, string> = {
  date: '^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])$',
  time: '^([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$',
  'date-time':
    '^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$',
  uuid: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$',
  ipv4: '^(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)(\\.(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)){3}$',
};

function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

/** A set of characters inside of a JSON string. */
function inString(set: Characters): string | undefined {
  const parts: string[] = [];
  const raw = common(set, RAW);
  if (raw.length > 0) {
    const written = ebnfCharacter(raw);
    if (written === undefined) return undefined;
    parts.push(written);
  }
  for (const [text, written] of Object.entries(SHORT)) {
    if (common(set, charactersOf(text)).length > 0) parts.push(ebnfString(written));
  }
  for (const [first, last] of common(set, without(characters([0, 0x1f]), NAMED))) {
    for (let code = first; code <= last; code++) parts.push(ebnfString(`\\u${code.toString(16).padStart(4, '0')}`));
  }
  return `(${parts.join(' | ')})`;
}

class Converter {
  private readonly rules = [...JSON_RULES];
  private readonly names = new Map<unknown, string>();
  private depth = 0;

  constructor(private readonly whole: unknown) {}

  convert(): string {
    return [`root ::= ${this.ruleOf(this.whole, '#')}`, ...this.rules].join('\n');
  }

  private fail(path: string, why: string): never {
    throw new RedrafterError('ERR_GRAMMAR', `the JSON schema at ${path}: ${why}`);
  }

  private add(body: string): string {
    const name = `r${this.rules.length}`;
    this.rules.push(`${name} ::= ${body}`);
    return name;
  }

  /**
   * The rule of a schema, which may be under way: so schemas can contain themselves. `chain`: those that are nothing but this
   * one, or one of several.
   */
  private ruleOf(schema: unknown, path: string, chain: readonly unknown[] = []): string {
    if (chain.includes(schema)) this.fail(path, 'a schema that consists of itself');
    const known = this.names.get(schema);
    if (known !== undefined) return known;
    if (schema === true) return 'value';
    if (schema === false) this.fail(path, 'false allows nothing');
    if (!isObject(schema)) this.fail(path, 'a schema must be an object or a boolean');
    if (++this.depth > MOST_DEPTH) this.fail(path, `schemas inside of schemas, more than ${MOST_DEPTH} deep`);
    const index = this.rules.length;
    const name = `r${index}`;
    this.rules.push('');
    this.names.set(schema, name);
    this.rules[index] = `${name} ::= ${this.body(schema, path, [...chain, schema])}`;
    this.depth--;
    return name;
  }

  private body(schema: Schema, path: string, chain: readonly unknown[]): string {
    const keys = Object.keys(schema).filter((key) => schema[key] !== undefined && !ANNOTATIONS.has(key));
    const alone = (key: string): void => {
      const other = keys.find((one) => one !== key && !(one === 'type' && (key === 'enum' || key === 'const')));
      if (other !== undefined) this.fail(path, `${other} beside ${key} is not supported`);
    };
    for (const key of ['$ref', 'anyOf', 'oneOf', 'allOf', 'enum', 'const'] as const) {
      if (!keys.includes(key)) continue;
      alone(key);
      if (key === '$ref') return this.ruleOf(this.resolve(schema.$ref, path), String(schema.$ref), chain);
      if (key === 'const') return this.literals([schema.const], schema.type, path);
      const list: unknown = schema[key];
      if (!Array.isArray(list) || list.length === 0) this.fail(path, `${key} must be an array that is not empty`);
      if (key === 'enum') return this.literals(list, schema.type, path);
      if (key === 'allOf' && list.length > 1) this.fail(path, 'allOf of more than one schema is not supported');
      if (key === 'oneOf' && !this.exclude(list)) {
        this.fail(path, 'oneOf is supported where the schemas differ in type, or in a required property with const or enum; use anyOf where several may hold'); // prettier-ignore
      }
      return list.map((one, i) => this.ruleOf(one, `${path}/${key}/${i}`, chain)).join(' | ');
    }
    return this.typed(schema, keys, path);
  }

  private typed(schema: Schema, keys: readonly string[], path: string): string {
    const given = schema.type ?? this.inferred(keys);
    const types: readonly unknown[] = given === undefined ? [] : Array.isArray(given) ? given : [given];
    const wrong = types.find((type) => typeof type !== 'string' || !Object.hasOwn(OF_TYPE, type));
    if (wrong !== undefined) this.fail(path, `unknown type ${JSON.stringify(wrong)}`);
    for (const key of keys) {
      if (key === 'type') continue;
      const fits = Object.keys(OF_TYPE).filter((type) => OF_TYPE[type]?.includes(key) === true);
      if (!fits.some((type) => types.includes(type))) {
        this.fail(path, fits.length === 0 || types.length > 0 ? `${key} is not supported${types.length > 0 && fits.length > 0 ? ` for type ${types.join()}` : ''}` : `${key} needs a type beside it`); // prettier-ignore
      }
    }
    if (types.length === 0) {
      if (Array.isArray(given)) this.fail(path, 'type must not be empty');
      return 'value';
    }
    return types.map((type) => this.ofType(type as string, schema, path)).join(' | ');
  }

  private inferred(keys: readonly string[]): string | undefined {
    return ['object', 'array'].find((type) => keys.some((key) => OF_TYPE[type]?.includes(key)));
  }

  private ofType(type: string, schema: Schema, path: string): string {
    switch (type) {
      case 'object':
        return this.object(schema, path);
      case 'array':
        return this.array(schema, path);
      case 'string':
        return this.string(schema, path);
      case 'integer':
        return this.integer(schema, path);
      case 'number':
        return this.number(schema, path);
      case 'boolean':
        return '"true" | "false"';
      default:
        return '"null"';
    }
  }

  /** Properties come in the order of the schema, and others do not come. */
  private object(schema: Schema, path: string): string {
    const { properties = {}, required = [], additionalProperties: others } = schema;
    if (!isObject(properties)) this.fail(path, 'properties must be an object');
    if (!Array.isArray(required)) this.fail(path, 'required must be an array');
    const names = Object.keys(properties);
    const missing = required.find((name) => !names.includes(name as string)) as unknown;
    if (missing !== undefined) this.fail(path, `required names ${JSON.stringify(missing)}, which properties does not`);
    if (names.length === 0) {
      if (others === false || 'properties' in schema) return '"{" ws "}"';
      const value = others === undefined ? 'value' : this.ruleOf(others, `${path}/additionalProperties`);
      const member = this.add(`string ws ":" ws ${value} ws`);
      return `"{" ws (${member} ("," ws ${member})*)? "}"`;
    }
    if (others !== undefined && others !== false) this.fail(path, 'additionalProperties beside properties is not supported, but for false'); // prettier-ignore
    const members = names.map((name) => {
      const value = this.ruleOf(properties[name], `${path}/properties/${name}`);
      return {
        rule: this.add(`${ebnfString(JSON.stringify(name))} ws ":" ws ${value} ws`),
        needed: required.includes(name),
      };
    });
    // What may follow once something came, and what may come first, from the last member backwards.
    let after = '""';
    let first: string[] = [];
    for (const { rule, needed } of members.reverse()) {
      first = needed ? [`${rule} ${after}`] : [`${rule} ${after}`, ...first];
      after = this.add(needed ? `"," ws ${rule} ${after}` : `"," ws ${rule} ${after} | ${after}`);
    }
    const any = members.some(({ needed }) => needed);
    return `"{" ws (${first.join(' | ')})${any ? '' : '?'} "}"`;
  }

  private array(schema: Schema, path: string): string {
    const { items = true, prefixItems = [] } = schema;
    const least = this.count(schema, 'minItems', path) ?? 0;
    const most = this.count(schema, 'maxItems', path) ?? Infinity;
    if (!Array.isArray(prefixItems)) this.fail(path, 'prefixItems must be an array');
    const fixed = prefixItems.map((one, i) => this.ruleOf(one, `${path}/prefixItems/${i}`));
    if (least > most) this.fail(path, 'minItems is above maxItems');
    if (fixed.length > 0) {
      if (items !== false || most < fixed.length || least > fixed.length) {
        this.fail(path, 'prefixItems is supported with items: false, and minItems and maxItems that allow all of them');
      }
      return `"[" ws ${fixed.map((rule) => `${rule} ws`).join(' "," ws ')} "]"`;
    }
    if (most === 0) return '"[" ws "]"';
    if (items === false) {
      if (least > 0) this.fail(path, 'minItems of an array without items');
      return '"[" ws "]"';
    }
    const item = this.add(`${this.ruleOf(items, `${path}/items`)} ws`);
    const rest = repeated(`"," ws ${item}`, Math.max(0, least - 1), most - 1);
    return `"[" ws (${item} ${rest})${least === 0 ? '?' : ''} "]"`;
  }

  private string(schema: Schema, path: string): string {
    const { pattern, format } = schema;
    const least = this.count(schema, 'minLength', path);
    const most = this.count(schema, 'maxLength', path);
    if ([pattern, format, least ?? most].filter((one) => one !== undefined).length > 1) {
      this.fail(path, 'of pattern, format, and minLength with maxLength only one is supported');
    }
    if (format !== undefined && (typeof format !== 'string' || !Object.hasOwn(FORMATS, format))) {
      this.fail(
        path,
        `format ${JSON.stringify(format)} is not supported; there are ${Object.keys(FORMATS).join(', ')}`,
      );
    }
    if (pattern !== undefined && typeof pattern !== 'string') this.fail(path, 'pattern must be a string');
    const regex = pattern ?? (format === undefined ? undefined : FORMATS[format]);
    if (regex !== undefined) {
      const parsed = this.located(path, () => parseRegex(regex));
      const body = this.located(path, () => regexToEbnf(parsed.regex, inString));
      return `"\\"" ${parsed.fromStart ? '' : 'chars'} ${body} ${parsed.toEnd ? '' : 'chars'} "\\""`;
    }
    if (least === undefined && most === undefined) return 'string';
    if ((least ?? 0) > (most ?? Infinity)) this.fail(path, 'minLength is above maxLength');
    // Without escapes, which would make every mask a search.
    return `"\\"" ${repeated(RAW_CHARACTER, least ?? 0, most ?? Infinity)} "\\""`;
  }

  /** Says of an error where in the schema it is. */
  private located<T>(path: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.fail(path, (error as Error).message);
    }
  }

  private integer(schema: Schema, path: string): string {
    const bound = (key: string, nearest: (x: number) => number, step: number): number | undefined => {
      const value = schema[key];
      if (value === undefined) return undefined;
      if (typeof value !== 'number' || !Number.isFinite(value)) this.fail(path, `${key} must be a number`);
      return step === 0 ? nearest(value) : Number.isInteger(value) ? value + step : nearest(value);
    };
    const low = Math.max(
      bound('minimum', Math.ceil, 0) ?? -Infinity,
      bound('exclusiveMinimum', Math.ceil, 1) ?? -Infinity,
    );
    const high = Math.min(
      bound('maximum', Math.floor, 0) ?? Infinity,
      bound('exclusiveMaximum', Math.floor, -1) ?? Infinity,
    );
    if (low === -Infinity && high === Infinity) return 'integer';
    const [from, to] = [Math.max(low, -LARGEST), Math.min(high, LARGEST)];
    if (from > to) this.fail(path, `no integer of at most ${MOST_DIGITS} digits is in the range`);
    return integersBetween(from, to);
  }

  private number(schema: Schema, path: string): string {
    const types = Array.isArray(schema.type) ? (schema.type as unknown[]) : [schema.type];
    const { minimum } = schema;
    if (minimum === undefined || (types.includes('integer') && minimum !== 0)) {
      if (minimum !== undefined) this.fail(path, 'minimum of a number is supported for 0 only');
      return 'number';
    }
    if (minimum !== 0) this.fail(path, 'minimum of a number is supported for 0 only; bounds of type integer are free');
    return `("0" | [1-9] [0-9]{0,${MOST_DIGITS - 1}}) fraction`;
  }

  private count(schema: Schema, key: string, path: string): number | undefined {
    const value = schema[key];
    if (value === undefined) return undefined;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MOST_REPEATS) return value;
    this.fail(path, `${key} must be an integer from 0 to ${MOST_REPEATS}`);
  }

  /** Values written without spaces. */
  private literals(values: readonly unknown[], type: unknown, path: string): string {
    const types: readonly unknown[] | undefined = type === undefined ? undefined : Array.isArray(type) ? type : [type];
    const fits = values.filter((value) => {
      const own = typeOf(value);
      return types === undefined || types.includes(own) || (own === 'integer' && types.includes('number'));
    });
    if (fits.length < values.length) this.fail(path, `a value that is not of type ${JSON.stringify(type)}`);
    return fits.map((value) => ebnfString(JSON.stringify(value))).join(' | ');
  }

  private resolve(ref: unknown, path: string): unknown {
    if (ref === '#') return this.whole;
    if (typeof ref !== 'string' || !ref.startsWith('#/')) this.fail(path, `$ref must be '#' or begin with '#/', got ${JSON.stringify(ref)}`); // prettier-ignore
    let found: unknown = this.whole;
    for (const part of ref.slice(2).split('/')) {
      const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
      const inside = typeof found === 'object' && found !== null && Object.hasOwn(found, key);
      if (!inside) this.fail(path, `$ref ${ref} leads nowhere`);
      found = (found as Schema)[key];
    }
    return found;
  }

  /** Whether no value is of two of these schemas, as far as their types, or constants in a required property, tell. */
  private exclude(schemas: readonly unknown[]): boolean {
    const plain = schemas.map((schema) => {
      let found = schema;
      for (let i = 0; i < MOST_DEPTH && isObject(found) && typeof found.$ref === 'string'; i++)
        found = this.resolve(found.$ref, '#');
      return isObject(found) ? found : {};
    });
    const constants = (schema: Schema, name: string): string[] | undefined => {
      const property = isObject(schema.properties) ? schema.properties[name] : undefined;
      if (!isObject(property) || !Array.isArray(schema.required) || !schema.required.includes(name)) return undefined;
      const values: unknown = 'const' in property ? [property.const] : property.enum;
      return Array.isArray(values) ? values.map((value) => JSON.stringify(value)) : undefined;
    };
    const differ = (a: Schema, b: Schema): boolean => {
      const [s, t] = [a.type, b.type].map((type) => (type === 'integer' ? 'number' : type));
      if (typeof s === 'string' && typeof t === 'string' && s !== t) return true;
      return Object.keys(isObject(a.properties) ? a.properties : {}).some((name) => {
        const [own, others] = [constants(a, name), constants(b, name)];
        return (
          s === 'object' &&
          t === 'object' &&
          own !== undefined &&
          others?.every((value) => !own.includes(value)) === true
        );
      });
    };
    return plain.every((a, i) => plain.slice(i + 1).every((b) => differ(a, b)));
  }
}

/**
 * The texts of a JSON schema's values as EBNF, with the root rule `root`. What the schema allows is never exceeded: what cannot
 * be said is refused with ERR_GRAMMAR and the place in the schema.
 */
export function jsonSchemaToEbnf(schema: unknown): string {
  return new Converter(schema).convert();
}
