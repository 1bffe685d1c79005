import { resolveGrammar, type Grammar } from '../grammar/options.js';
import type { GenerateOptions } from '../option-types.js';
import { at, BodyFields } from './body.js';
import { badField } from './http-error.js';

/** The field `response_format`, as OpenAI's API has it. Throws a 400 that names it. */
export function responseFormat(given: unknown): Pick<GenerateOptions, 'grammar'> {
  if (given === undefined) return {};
  const param = 'response_format';
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw badField(param, `${param} must be an object with a type`);
  }
  const fields = at(param, () => new BodyFields(given, ['type', 'json_schema']));
  const type = fields.raw('type');
  if (fields.has('json_schema') !== (type === 'json_schema')) {
    throw badField(param, `${param} has json_schema exactly where its type is json_schema`);
  }
  if (type === 'text') return {};
  if (type === 'json_object') return { grammar: { type: 'json_schema', schema: { type: 'object' } } };
  if (type !== 'json_schema') throw badField(param, `type of ${param} must be 'text', 'json_object' or 'json_schema'`);
  const named = fields.raw('json_schema');
  if (typeof named !== 'object' || named === null) throw badField(param, `json_schema of ${param} must be an object`);
  const { schema = true } = named as { schema?: object | boolean };
  const grammar: Grammar = { type: 'json_schema', schema };
  at(param, () => resolveGrammar(grammar));
  return { grammar };
}
