import type { ChatMessage } from '../chat.js';
import type { Model } from '../model.js';
import type { ContextPolicy, GenerateOptions, SessionOptions } from '../option-types.js';
import { copyIds, describe, resolveGenerate } from '../options.js';
import type { Tokenizer } from '../tokenizer.js';
import { at, BodyFields } from './body.js';
import { badField, HttpError } from './http-error.js';
import type { PrefixSharing } from './options.js';
import { responseFormat } from './response-format.js';

/** What one request asks for, checked. */
export interface Job {
  kind: 'chat' | 'completion';
  /** The whole prompt. */
  ids: Int32Array;
  options: GenerateOptions;
  /** Choices to answer with. */
  n: number;
  stream: boolean;
  includeUsage: boolean;
  returnTokenIds: boolean;
  /** How it is served, where the request says anything about that. */
  serviceTier: ServiceTier | undefined;
  /** With whom it shares prefixes: the option of a session. */
  prefixes: SessionOptions;
}

/** Where jobs are checked against. */
export interface JobContext {
  model: Model;
  tokenizer: Tokenizer;
  modelName: string;
  /** Drafting shape where the request names none. */
  shape: { beamWidth?: number; beamLength?: number };
  /** Most choices of one request. */
  maxChoices: number;
  contextPolicy: ContextPolicy;
  prefixSharing: PrefixSharing;
}

const SHARED = [
  'model',
  'stream',
  'stream_options',
  'max_tokens',
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'n',
  'presence_penalty',
  'frequency_penalty',
  'repetition_penalty',
  'logit_bias',
  'banned_token_ids',
  'min_tokens',
  'response_format',
  'seed',
  'stop',
  'logprobs',
  'ignore_eos',
  'return_token_ids',
  'prompt_cache_key',
  'service_tier',
  'redrafter',
];
const COMPLETION = [...SHARED, 'prompt'];
const CHAT = [...SHARED, 'messages', 'max_completion_tokens', 'top_logprobs'];

/** Most alternatives per token in lists of log-probabilities. */
const TOP_LOGPROBS = 20;
const CACHE_KEY_UNITS = 512;
/** As OpenAI's API has it for completions. */
const COMPLETION_TOKENS = 16;
/**
 * Longest prompt text that is looked at, in UTF-16 units per token of the context. Text that is read has far fewer per
 * token, and turning it into tokens would keep the event loop busy only to find that it does not fit.
 */
const UNITS_PER_TOKEN = 16;

/** Checks the body of /v1/completions. Throws HttpError. */
export function parseCompletion(body: unknown, context: JobContext): Job {
  const fields = new BodyFields(body, COMPLETION);
  checkModel(fields, context.modelName);
  const logprobs = fields.integer('logprobs', 0, TOP_LOGPROBS);
  const limit = fields.integer('max_tokens', 1, context.model.info.contextTokens) ?? COMPLETION_TOKENS;
  const shared = parseShared(fields, context, limit, logprobs);
  return { kind: 'completion', ids: promptIds(fields.raw('prompt'), context, limit), ...shared };
}

/** Checks the body of /v1/chat/completions. Throws HttpError. */
export function parseChat(body: unknown, context: JobContext): Job {
  const { model, tokenizer } = context;
  const { contextTokens, kvTokens } = model.info;
  const fields = new BodyFields(body, CHAT);
  checkModel(fields, context.modelName);
  const wanted = fields.boolean('logprobs');
  const top = fields.integer('top_logprobs', 0, TOP_LOGPROBS);
  if (top !== undefined && !wanted) throw badField('top_logprobs', 'top_logprobs needs logprobs: true');
  const limit =
    fields.integer('max_completion_tokens', 1, contextTokens) ?? fields.integer('max_tokens', 1, contextTokens);
  const shared = parseShared(fields, context, limit ?? contextTokens, wanted ? (top ?? 0) : undefined);
  const messages = chatMessages(fields.raw('messages'));
  // Each takes a token at least, however little it says.
  if (messages.length >= contextTokens)
    throw tooLong('messages', `there are ${messages.length} messages`, contextTokens);
  checkLength(
    'messages',
    messages.reduce((sum, { content }) => sum + content.length, 0),
    contextTokens,
  );
  const ids = at('messages', () => tokenizer.encodeChat(messages));
  checkRoom(ids, 'messages', context, limit ?? 1);
  // What goes beyond the context is cut by the engine, what goes beyond the KV cache would be refused.
  const maxTokens = limit ?? Math.min(contextTokens, kvTokens) - ids.length;
  return { kind: 'chat', ids, ...shared, options: { ...shared.options, maxTokens } };
}

function checkModel(fields: BodyFields, served: string): void {
  const name = fields.string('model');
  if (name === undefined) throw badField('model', 'model is missing');
  if (name !== served) {
    throw new HttpError(404, 'model_not_found', `there is no model ${describe(name)}`, { param: 'model' });
  }
}

function parseShared(
  fields: BodyFields,
  { model, shape, maxChoices, contextPolicy, prefixSharing }: JobContext,
  maxTokens: number,
  logprobs: number | undefined,
): Omit<Job, 'kind' | 'ids'> {
  const stream = fields.boolean('stream');
  let includeUsage = false;
  if (fields.has('stream_options')) {
    if (!stream) throw badField('stream_options', 'stream_options needs stream: true');
    const given = fields.raw('stream_options');
    includeUsage = nested('stream_options', given, ['include_usage', 'include_obfuscation']).boolean('include_usage');
  }
  const serviceTier = tierOf(fields);
  const stop = fields.raw('stop') as NonNullable<GenerateOptions['stop']>;
  const options: GenerateOptions = {
    maxTokens,
    contextPolicy,
    temperature: fields.number('temperature', 1, 'from 0 to 2', (value) => value >= 0 && value <= 2),
    topP: fields.number('top_p', 1, 'greater than 0 and at most 1', (value) => value > 0 && value <= 1),
    topK: fields.integer('top_k', 0, 2 ** 31 - 1) ?? 0,
    minP: fields.number('min_p', 0, 'at least 0 and less than 1', (value) => value >= 0 && value < 1),
    ignoreEos: fields.boolean('ignore_eos'),
    ...control(fields, model),
    ...responseFormat(fields.raw('response_format')),
    ...(fields.has('seed') ? { seed: seedOf(fields.raw('seed')) } : {}),
    ...(fields.has('stop') ? { stop } : {}),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...shape,
    ...(serviceTier === undefined ? {} : { priority: PRIORITIES[serviceTier] }),
    ...extension(fields.raw('redrafter')),
  };
  // The rest of the checks is the library's, done now so that a wrong request need not wait for its turn.
  const { vocab, contextTokens, drafter } = model.info;
  at('stop', () => resolveGenerate(options, { vocab, contextTokens, hasDrafter: drafter !== null, eosTokenIds: [] }));
  return {
    options,
    n: fields.integer('n', 1, maxChoices) ?? 1,
    stream,
    includeUsage,
    returnTokenIds: fields.boolean('return_token_ids'),
    serviceTier,
    prefixes: prefixesOf(fields, prefixSharing),
  };
}

/** What changes the logits that tokens are chosen from. */
function control(fields: BodyFields, model: JobContext['model']): GenerateOptions {
  const penalty = (key: string, fallback: number, low: number, high: number): number =>
    fields.number(key, fallback, `from ${low} to ${high}`, (value) => value >= low && value <= high);
  const lists: GenerateOptions = {
    ...(fields.has('logit_bias') ? { logitBias: fields.raw('logit_bias') as Record<number, number> } : {}),
    ...(fields.has('banned_token_ids') ? { bannedTokenIds: fields.raw('banned_token_ids') as number[] } : {}),
  };
  const { vocab, contextTokens } = model.info;
  const context = { vocab, contextTokens, hasDrafter: false, eosTokenIds: [] };
  for (const [key, param] of [
    ['logitBias', 'logit_bias'],
    ['bannedTokenIds', 'banned_token_ids'],
  ] as const) {
    // prettier-ignore
    if (lists[key] !== undefined) at(param, () => resolveGenerate({ [key]: lists[key] }, context));
  }
  return {
    presencePenalty: penalty('presence_penalty', 0, -2, 2),
    frequencyPenalty: penalty('frequency_penalty', 0, -2, 2),
    repetitionPenalty: penalty('repetition_penalty', 1, 0.01, 100),
    minTokens: fields.integer('min_tokens', 0, 2 ** 31 - 1) ?? 0,
    ...lists,
  };
}

/** Keys of requests are none that the program of the server uses itself. Where they mean nothing they may be anything. */
function prefixesOf(fields: BodyFields, sharing: PrefixSharing): SessionOptions {
  if (sharing === 'all') return { prefixKey: 'redrafter/server' };
  const key = sharing === 'key' ? fields.string('prompt_cache_key') : undefined;
  if (key === undefined || key === '') return {};
  if (key.length > CACHE_KEY_UNITS || !key.isWellFormed()) {
    throw badField('prompt_cache_key', `prompt_cache_key must have at most ${CACHE_KEY_UNITS} UTF-16 units`);
  }
  return { prefixKey: `redrafter/server/${key}` };
}

function nested(key: string, value: unknown, known: readonly string[]): BodyFields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badField(key, `${key} must be an object, got ${describe(value)}`);
  }
  return new BodyFields(value, known);
}

type ServiceTier = 'default' | 'flex' | 'priority';

const PRIORITIES: Readonly<Record<ServiceTier, number>> = { default: 0, flex: -5, priority: 5 };

/** What OpenAI's service tiers become: where nobody pays for more, `auto` and `scale` are the default. */
const TIERS: Readonly<Record<string, ServiceTier>> = {
  auto: 'default',
  default: 'default',
  scale: 'default',
  flex: 'flex',
  priority: 'priority',
};

function tierOf(fields: BodyFields): ServiceTier | undefined {
  const tier = fields.string('service_tier');
  if (tier === undefined) return undefined;
  if (Object.hasOwn(TIERS, tier)) return TIERS[tier];
  throw badField('service_tier', `service_tier must be ${Object.keys(TIERS).join(', ')}, got ${describe(tier)}`);
}

/** The field `redrafter`: how to draft, which changes the speed and not the output, and when to come and to end. */
function extension(value: unknown): GenerateOptions {
  if (value === undefined) return {};
  const fields = nested('redrafter', value, ['drafting', 'beam_width', 'beam_length', 'priority', 'deadline_ms']);
  const priority = fields.integer('priority', -10, 10);
  const deadlineMs = fields.integer('deadline_ms', 1, 2 ** 31 - 1);
  const beamWidth = fields.integer('beam_width', 0, 64);
  const beamLength = fields.integer('beam_length', 0, 8);
  return {
    ...(fields.has('drafting') ? { drafting: fields.boolean('drafting') } : {}),
    ...(beamWidth === undefined ? {} : { beamWidth }),
    ...(beamLength === undefined ? {} : { beamLength }),
    ...(priority === undefined ? {} : { priority }),
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
  };
}

/** JSON has no 64-bit integers, so seeds beyond 2^53 come, and are returned, as decimal strings. */
function seedOf(value: unknown): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === 'string' && /^\d{1,20}$/.test(value) && BigInt(value) < 1n << 64n) return BigInt(value);
  throw badField(
    'seed',
    `seed must be an integer from 0 to 2^53-1, or a string of digits up to 2^64-1, got ${describe(value)}`,
  );
}

/** A text, a list of token ids, or a list that holds just one of these. */
function promptIds(given: unknown, context: JobContext, limit: number): Int32Array {
  const { model, tokenizer } = context;
  const { vocab, contextTokens } = model.info;
  let prompt = given;
  if (Array.isArray(prompt) && (typeof prompt[0] === 'string' || Array.isArray(prompt[0]))) {
    if (prompt.length > 1) throw badField('prompt', 'prompt must be one prompt: send several requests');
    prompt = (prompt as unknown[])[0];
  }
  if (prompt === undefined) throw badField('prompt', 'prompt is missing');
  if (typeof prompt === 'string') {
    const text = wellFormed('prompt', prompt);
    checkLength('prompt', text.length, contextTokens);
    return checkRoom(
      at('prompt', () => tokenizer.encode(text)),
      'prompt',
      context,
      limit,
    );
  }
  if (!Array.isArray(prompt)) {
    throw badField('prompt', `prompt must be a string or an array of token ids, got ${describe(prompt)}`);
  }
  checkLength('prompt', prompt.length, contextTokens);
  return checkRoom(
    at('prompt', () => copyIds('prompt', prompt, vocab, Infinity)),
    'prompt',
    context,
    limit,
  );
}

function tooLong(param: string, what: string, contextTokens: number): HttpError {
  const message = `${what}, and the context holds ${contextTokens} tokens`;
  return new HttpError(400, 'ERR_CONTEXT', message, { param });
}

function checkLength(param: string, units: number, contextTokens: number): void {
  if (units <= contextTokens * UNITS_PER_TOKEN) return;
  throw tooLong(param, `${param} has ${units} characters`, contextTokens);
}

/** Refuses what can never run: a prompt without room for a token, or a request beyond the whole KV cache. */
function checkRoom(ids: Int32Array, param: string, { model }: JobContext, limit: number): Int32Array {
  const { contextTokens, kvTokens } = model.info;
  if (ids.length === 0) throw badField(param, `${param} is empty, and the model has no token to begin with`);
  if (ids.length >= contextTokens) throw tooLong(param, `${param} has ${ids.length} tokens`, contextTokens);
  if (Math.min(ids.length + limit, contextTokens) <= kvTokens) return ids;
  const message = `the prompt has ${ids.length} tokens; with max_tokens that is more than the ${kvTokens} of the KV cache`;
  throw new HttpError(400, 'ERR_KV_FULL', message, { param: 'max_tokens' });
}

function wellFormed(param: string, text: string): string {
  if (!text.isWellFormed()) throw badField(param, `${param} has half of a surrogate pair`);
  return text;
}

function chatMessages(value: unknown): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw badField('messages', `messages must be a non-empty array, got ${describe(value)}`);
  }
  return value.map((entry: unknown, i) => {
    const where = `messages[${i}]`;
    if (typeof entry !== 'object' || entry === null) {
      throw badField('messages', `${where} must be an object, got ${describe(entry)}`);
    }
    for (const [key, given] of Object.entries(entry)) {
      // Clients send back what they were given; a field that holds nothing asks for nothing.
      const nothing = given === null || (Array.isArray(given) && given.length === 0);
      if (key !== 'role' && key !== 'content' && !nothing) {
        throw badField('messages', `${where} has a field that is not supported: ${describe(key)}`);
      }
    }
    const { role, content } = entry as Record<string, unknown>;
    if (typeof role !== 'string' || !ROLES.has(role)) {
      throw badField('messages', `${where}.role must be ${[...ROLES.keys()].join(', ')}, got ${describe(role)}`);
    }
    const text = wellFormed('messages', contentText(content, `${where}.content`));
    return { role: ROLES.get(role) ?? role, content: text };
  });
}

/** OpenAI's API calls the system `developer` for newer models; templates know `system`. */
const ROLES = new Map([
  ['system', 'system'],
  ['developer', 'system'],
  ['user', 'user'],
  ['assistant', 'assistant'],
]);

function contentText(content: unknown, where: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) {
    throw badField('messages', `${where} must be a string or an array of text parts, got ${describe(content)}`);
  }
  const parts = content.map((part: unknown, i) => {
    const { type, text } = (typeof part === 'object' && part !== null ? part : {}) as Record<string, unknown>;
    if (type === 'text' && typeof text === 'string') return text;
    throw badField('messages', `${where}[${i}] must be { type: "text", text }: only text is supported`);
  });
  return parts.join('');
}
