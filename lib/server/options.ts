import { invalid } from '../errors.js';
import type { ContextPolicy } from '../option-types.js';
import { describe, OptionReader } from '../options.js';

/** Options of `createServer`. */
export interface ServerOptions {
  /** Address to listen on. One outside of loopback needs `apiKey`. Default: `'127.0.0.1'`. */
  host?: string;
  /** 0 to 65535; 0 takes a free one. Default: 8080. */
  port?: number;
  /** Name of the model in requests and answers. */
  modelName: string;
  /** Key that every route but /health asks for (`Authorization: Bearer KEY`). Default: none. */
  apiKey?: string;
  /** Host names that requests may name, beside those of loopback. Default: on loopback none, elsewhere any. */
  allowedHosts?: readonly string[];
  /** Most choices that one request may ask for (`n`), 1 to 128; each takes a place of the model's queue. Default: 8. */
  maxChoices?: number;
  /** Most that an answer takes, waiting included, in milliseconds; then 504 or an error event. Default: 600,000. */
  requestTimeoutMs?: number;
  /** Most bytes of a body, 1024 to 2^30. Default: 2,000,000. */
  bodyLimit?: number;
  /**
   * Most that a stream keeps for a client that reads slower than the model writes, in UTF-16 units, 1024 to 2^30. When
   * more waits, the generation pauses until the client has read it. Default: 65,536.
   */
  streamBuffer?: number;
  /** Most that a client may not read anything although there is something, in milliseconds. Default: 30,000. */
  stallTimeoutMs?: number;
  /** Beams drafted per round, 0 to 64, for requests that do not say. Default: that of `GenerateOptions`. */
  beamWidth?: number;
  /** Tokens drafted per beam, 0 to 8, for requests that do not say. Default: that of `GenerateOptions`. */
  beamLength?: number;
  /** What happens when the context is full, for all requests, as in `GenerateOptions`. Default: `'error'`. */
  contextPolicy?: ContextPolicy;
  /**
   * Which requests may take what another has computed of an equal beginning: `'none'`; those of the same
   * `prompt_cache_key` (`'key'`); or `'all'`. Whoever shares can learn, by how fast an answer begins, that somebody else had
   * the same prompt, and clients choose their keys themselves: let only those share that trust each other. Default: `'none'`.
   */
  prefixSharing?: PrefixSharing;
  /** Called once for each request that has ended. What it throws is not caught. */
  onRequest?: (entry: RequestLog) => void;
}

/** Which requests share prefixes. */
export type PrefixSharing = 'none' | 'key' | 'all';

/** What is known of a request that has ended. Nothing of prompts, answers, keys, or paths that clients made up. */
export interface RequestLog {
  /** As in the header `x-request-id` of the answer. */
  id: string;
  /** When it came, ISO 8601. */
  time: string;
  /** HTTP method. */
  method: string;
  /** One of the server's routes, or `other`. */
  route: string;
  /** Status of the answer; 499 when the client went away before there was one. */
  status: number;
  /** Code of the error that ended it, in mid-stream too. */
  code?: string;
  /** From the header to the end of the answer, in milliseconds. */
  ms: number;
  /** Waiting in the queue of the engine, in milliseconds. Absent where it did not end well. */
  queueMs?: number;
  /** Whether the answer was to be a stream. Absent where the request was not one to generate, or was refused. */
  stream?: boolean;
  /** Tokens of the prompt. Absent as `stream` is. */
  promptTokens?: number;
  /** Tokens generated, the one that ended generation included. Absent, as what follows, where it did not end well. */
  completionTokens?: number;
  /** As in the answer: `stop` or `length`. */
  finishReason?: string;
  /** As in `GenerationStats`. */
  tokensPerStep?: number;
  /** As in `GenerationStats`, in milliseconds. */
  timeToFirstTokenMs?: number;
}

const KEYS = [
  'host',
  'port',
  'modelName',
  'apiKey',
  'allowedHosts',
  'maxChoices',
  'requestTimeoutMs',
  'bodyLimit',
  'streamBuffer',
  'stallTimeoutMs',
  'beamWidth',
  'beamLength',
  'contextPolicy',
  'prefixSharing',
  'onRequest',
] as const;

/** Checked {@link ServerOptions}. */
export interface ResolvedServer {
  host: string;
  port: number;
  modelName: string;
  apiKey: string | undefined;
  /** Names that requests may name; undefined for any. */
  allowedHosts: ReadonlySet<string> | undefined;
  maxChoices: number;
  requestTimeoutMs: number;
  bodyLimit: number;
  streamBuffer: number;
  stallTimeoutMs: number;
  shape: { beamWidth?: number; beamLength?: number };
  contextPolicy: ContextPolicy;
  prefixSharing: PrefixSharing;
  onRequest: (entry: RequestLog) => void;
}

const LOOPBACK_NAMES = ['localhost', '127.0.0.1', '[::1]'];
/** Longest that anything waits, in milliseconds. */
export const DAY = 86_400_000;

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host);
}

function text(read: OptionReader, key: string): string | undefined {
  const value = read.raw(key);
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || value === '') throw invalid(`${key} must be a non-empty string`);
  return value;
}

function hostNames(value: unknown): string[] {
  if (value === undefined) return [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.map((name) => {
    if (typeof name === 'string' && /^([\w.-]+|\[[\da-f:.]+\])$/i.test(name)) return name.toLowerCase();
    throw invalid(`allowedHosts must be host names without a port, got ${describe(name)}`);
  });
}

/** Throws ERR_INVALID_ARGUMENT, also for an address outside of loopback without a key. */
export function resolveServer(options: ServerOptions): ResolvedServer {
  const read = new OptionReader(options, KEYS);
  const host = text(read, 'host') ?? '127.0.0.1';
  const apiKey = text(read, 'apiKey');
  const modelName = text(read, 'modelName');
  if (modelName === undefined) throw invalid('modelName is missing');
  if (!isLoopback(host) && apiKey === undefined) {
    throw invalid(`listening on ${describe(host)}, which other machines can reach, needs an API key`);
  }
  const named = hostNames(read.raw('allowedHosts'));
  const onRequest = read.raw('onRequest', () => undefined);
  if (typeof onRequest !== 'function') throw invalid(`onRequest must be a function, got ${describe(onRequest)}`);
  const prefixSharing = read.raw('prefixSharing', 'none');
  if (prefixSharing !== 'none' && prefixSharing !== 'key' && prefixSharing !== 'all') {
    throw invalid(`prefixSharing must be 'none', 'key' or 'all', got ${describe(prefixSharing)}`);
  }
  const width = read.raw('beamWidth');
  const length = read.raw('beamLength');
  return {
    host,
    port: read.integer('port', 8080, 0, 65535),
    modelName,
    apiKey,
    allowedHosts: isLoopback(host)
      ? new Set([...LOOPBACK_NAMES, host, ...named])
      : named.length > 0
        ? new Set(named)
        : undefined,
    maxChoices: read.integer('maxChoices', 8, 1, 128),
    requestTimeoutMs: read.integer('requestTimeoutMs', 600_000, 1, DAY),
    bodyLimit: read.integer('bodyLimit', 2_000_000, 1024, 2 ** 30),
    streamBuffer: read.integer('streamBuffer', 65_536, 1024, 2 ** 30),
    stallTimeoutMs: read.integer('stallTimeoutMs', 30_000, 1, DAY),
    shape: {
      ...(width === undefined ? {} : { beamWidth: read.integer('beamWidth', 0, 0, 64) }),
      ...(length === undefined ? {} : { beamLength: read.integer('beamLength', 0, 0, 8) }),
    },
    contextPolicy: read.raw('contextPolicy', 'error') as ContextPolicy, // checked once there is a model
    prefixSharing,
    onRequest: onRequest as ResolvedServer['onRequest'],
  };
}
