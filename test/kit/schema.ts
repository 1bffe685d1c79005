/** Whether a value is valid, by the definitions of JSON schema 2020-12 for the keywords that grammars are made of. */
type Schema = Record<string, unknown>;

const FORMATS: Record<string, (text: string) => boolean> = {
  date: (text) => !Number.isNaN(Date.parse(text)) && /^\d{4}-\d\d-\d\d$/.test(text),
  time: (text) => !Number.isNaN(Date.parse(`2020-01-01T${text}`)),
  'date-time': (text) => !Number.isNaN(Date.parse(text)),
  uuid: (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text),
  ipv4: (text) => text.split('.').length === 4 && text.split('.').every((part) => String(Number(part)) === part && Number(part) < 256), // prettier-ignore
};

const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

function hasType(value: unknown, type: string): boolean {
  if (type === 'null') return value === null;
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isSafeInteger(value);
  if (type === 'number') return Number.isFinite(value);
  return typeof value === type && value !== null && !Array.isArray(value);
}

export function isValid(schema: unknown, value: unknown, root: unknown = schema): boolean {
  if (typeof schema === 'boolean') return schema;
  const s = schema as Schema;
  const valid = (one: unknown, of: unknown): boolean => isValid(one, of, root);
  const list = (key: string): unknown[] => s[key] as unknown[];
  const count = (key: string): number => s[key] as number;
  const rules: Record<string, () => boolean> = {
    $ref: () => {
      const parts = (s.$ref as string).split('/').slice(1);
      return valid(
        parts.reduce((found: unknown, part) => (found as Schema)[part], root),
        value,
      );
    },
    type: () => [s.type].flat().some((type) => hasType(value, type as string)),
    const: () => equal(s.const, value),
    enum: () => list('enum').some((one) => equal(one, value)),
    anyOf: () => list('anyOf').some((one) => valid(one, value)),
    oneOf: () => list('oneOf').filter((one) => valid(one, value)).length === 1,
    allOf: () => list('allOf').every((one) => valid(one, value)),
  };
  if (typeof value === 'string') {
    const length = Array.from(value).length;
    rules.minLength = () => length >= count('minLength');
    rules.maxLength = () => length <= count('maxLength');
    rules.pattern = () => new RegExp(s.pattern as string, 'u').test(value);
    rules.format = () => FORMATS[s.format as string]?.(value) === true;
  }
  if (typeof value === 'number') {
    rules.minimum = () => value >= count('minimum');
    rules.maximum = () => value <= count('maximum');
    rules.exclusiveMinimum = () => value > count('exclusiveMinimum');
    rules.exclusiveMaximum = () => value < count('exclusiveMaximum');
  }
  if (Array.isArray(value)) {
    const prefix = (s.prefixItems as unknown[] | undefined) ?? [];
    rules.prefixItems = () => prefix.every((one, i) => i >= value.length || valid(one, value[i]));
    rules.items = () => value.slice(prefix.length).every((one) => valid(s.items, one));
    rules.minItems = () => value.length >= count('minItems');
    rules.maxItems = () => value.length <= count('maxItems');
  } else if (typeof value === 'object' && value !== null) {
    const properties = (s.properties ?? {}) as Schema;
    rules.required = () => list('required').every((key) => Object.hasOwn(value, key as string));
    rules.properties = () => Object.entries(value).every(([key, one]) => !Object.hasOwn(properties, key) || valid(properties[key], one)); // prettier-ignore
    rules.additionalProperties = () => Object.entries(value).every(([key, one]) => Object.hasOwn(properties, key) || valid(s.additionalProperties, one)); // prettier-ignore
  }
  return Object.keys(s).every((key) => rules[key]?.() ?? true);
}

/** Schemas of every keyword, each with something that it allows. */
export const SCHEMAS: Record<string, { schema: object | boolean; example: unknown }> = {
  anything: { schema: {}, example: { a: [1, -2.5e3, 'x"\\\n', null, true, {}] } },
  person: {
    schema: {
      type: 'object',
      properties: {
        name: { type: 'string', description: 'as it is written' },
        age: { type: 'integer', minimum: 3, maximum: 150 },
        tags: { type: 'array', items: { enum: ['a', 'b c', 3, null, { x: [1] }] }, minItems: 1, maxItems: 3 },
        born: { type: 'string', format: 'date' },
        note: { type: ['string', 'null'] },
      },
      required: ['name', 'tags'],
      additionalProperties: false,
    },
    example: { name: 'Ann', tags: ['b c', { x: [1] }], born: '1990-02-03' },
  },
  'optional only': {
    schema: { type: 'object', properties: { 'a"b': { type: 'boolean' }, b: { const: 'é' }, c: { type: 'null' } } },
    example: { b: 'é', c: null },
  },
  map: { schema: { type: 'object', additionalProperties: { type: 'integer' } }, example: { x: 1, y: -20 } },
  empty: { schema: { type: 'object', properties: {} }, example: {} },
  tree: {
    schema: {
      $ref: '#/$defs/node',
      $defs: {
        node: {
          type: 'object',
          properties: {
            value: { type: 'number', minimum: 0 },
            children: { type: 'array', items: { $ref: '#/$defs/node' } },
          },
          required: ['value'],
        },
      },
    },
    example: { value: 1.5, children: [{ value: 0, children: [] }] },
  },
  shapes: {
    schema: {
      oneOf: [
        {
          type: 'object',
          properties: { kind: { const: 'circle' }, radius: { type: 'number' } },
          required: ['kind', 'radius'],
        },
        {
          type: 'object',
          properties: { kind: { enum: ['square', 'cube'] }, side: { type: 'integer' } },
          required: ['kind'],
        },
        { type: 'string', maxLength: 5 },
      ],
    },
    example: { kind: 'cube', side: 4 },
  },
  union: { schema: { anyOf: [{ type: 'integer' }, { allOf: [{ type: 'boolean' }] }] }, example: false },
  tuple: {
    schema: { type: 'array', prefixItems: [{ type: 'string' }, { type: 'integer' }], items: false },
    example: ['x', 5],
  },
  lengths: { schema: { type: 'string', minLength: 2, maxLength: 4 }, example: 'añ😀' },
  long: { schema: { type: 'string', minLength: 3 }, example: 'abcdefg' },
  pattern: { schema: { type: 'string', pattern: '^([A-Z]\\d{2,3}|"q\\\\"|\\t)+$' }, example: 'A12"q\\"\t' },
  'open pattern': { schema: { type: 'string', pattern: 'x[é-ë]y' }, example: '\nxêy"' },
  'class of the rest': { schema: { type: 'string', pattern: '^[^a-y]{2,6}$' }, example: 'zé"😀' },
  'date and time': { schema: { type: 'string', format: 'date-time' }, example: '2026-11-26T04:05:06.7+01:00' },
  time: { schema: { type: 'string', format: 'time' }, example: '23:59:59Z' },
  uuid: { schema: { type: 'string', format: 'uuid' }, example: '123e4567-e89b-12d3-a456-426614174000' },
  ipv4: { schema: { type: 'string', format: 'ipv4' }, example: '255.0.13.199' },
  ...Object.fromEntries(
    [[0, 9], [-7, 132], [95, 105], [999, 1000], [-20, -3], [0, 0], [-1, 0], [12345, 67890], [-999999999999999, -1]].map(([minimum, maximum]) => [
      `from ${minimum} to ${maximum}`,
      { schema: { type: 'integer', minimum, maximum }, example: maximum },
    ]),
  ), // prettier-ignore
  'above 17': { schema: { type: 'integer', exclusiveMinimum: 17 }, example: 1234567 },
  'below 2.5': { schema: { type: 'integer', exclusiveMaximum: 2.5 }, example: -17 },
  number: { schema: { type: 'number' }, example: -12.75e-7 },
};
