/**
 * The messages between an app and its model process, and the checks that each side makes before it believes one.
 *
 * Every message is plain JSON (a seed is a decimal string), so any channel carries it: Electron's, Node's `fork`
 * with either serialization, a worker's. A request has an id that the app chooses and never uses twice; answers
 * carry the same id and come in order. `done` or `error` is the last answer of a request.
 *
 * @import { Chunk, GenerateOptions, GenerationResult, KvUsage, LoadOptions, MemoryUsage, ModelInfo, SessionInput, TotalStats } from 'redrafter'
 */

/**
 * What can be asked for. `abort` ends a running load or generation; `ack` says that one `chunks` message was consumed.
 * Neither has an answer of its own, and both are ignored when the request has ended meanwhile.
 *
 * @typedef {Omit<LoadOptions, 'onProgress' | 'signal'>} LoadData
 * @typedef {Omit<GenerateOptions, 'seed' | 'signal' | 'stopTokenIds'> & { seed?: string | number, stopTokenIds?: number[] }} GenerateData
 * @typedef {{ type: 'load', id: number, model: string, options: LoadData }} LoadRequest
 * @typedef {{ type: 'generate', id: number, input: Exclude<SessionInput, Int32Array>, options: GenerateData }} GenerateRequest
 * @typedef {{ type: 'stats' | 'unload' | 'abort' | 'ack', id: number }} PlainRequest
 * @typedef {LoadRequest | GenerateRequest | PlainRequest} Request
 */

/**
 * @typedef {{ text: string, drafted: boolean }} Run Text of tokens that the drafter proposed, or of the model's own.
 * @typedef {Chunk & { runs: Run[] }} RemoteChunk A chunk, and its text in runs: joined, they are `text`.
 * @typedef {Omit<GenerationResult, 'seed'> & { seed: string }} RemoteResult
 * @typedef {{ model: ModelInfo | null, kv: KvUsage | null, memory: MemoryUsage | null, totals: TotalStats | null,
 *   running: number, rssBytes: number }} Stats
 *   `running`: generations and loads under way. `rssBytes`: resident memory of the operating-system process.
 * @typedef {{ code: string, message: string, remedy: string | null }} ErrorData
 * @typedef {{ type: 'progress', id: number, fraction: number }
 *   | { type: 'chunks', id: number, chunks: RemoteChunk[] }
 *   | { type: 'done', id: number, value: unknown }
 *   | { type: 'error', id: number | null, error: ErrorData }} Answer An error without id answers a message without a usable one.
 */

/** `chunks` messages of one generation that may be under way unacknowledged; later chunks wait and travel together. */
export const WINDOW = 4;

/** A failure on the way to or from the model process, or one that the engine reported there. */
export class ModelProcessError extends Error {
  /**
   * @param {string} code A code of redrafter, or ERR_PROTOCOL, ERR_NOT_LOADED, ERR_ALREADY_LOADED, ERR_PROCESS_GONE.
   * @param {string} message
   * @param {string | null} [remedy] What to do about it.
   */
  constructor(code, message, remedy = null) {
    super(message);
    this.name = 'ModelProcessError';
    this.code = code;
    this.remedy = remedy;
  }
}

/**
 * An error as data. Whatever has no code is a bug in the model process.
 * @param {unknown} thrown
 * @returns {ErrorData}
 */
export function errorData(thrown) {
  if (!(thrown instanceof Error)) return { code: 'ERR_INTERNAL', message: String(thrown), remedy: null };
  const { code, remedy } = /** @type {{ code?: unknown, remedy?: unknown }} */ (/** @type {unknown} */ (thrown));
  return {
    code: typeof code === 'string' ? code : 'ERR_INTERNAL',
    message: thrown.message,
    remedy: typeof remedy === 'string' ? remedy : null,
  };
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
const isRecord = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * @param {unknown} value
 * @returns {value is number}
 */
const isId = (value) => Number.isSafeInteger(value) && /** @type {number} */ (value) > 0;

/** @param {string} message */
const malformed = (message) => new ModelProcessError('ERR_PROTOCOL', message);

/**
 * The id of a message, if it has a usable one.
 * @param {unknown} message
 */
export const idOf = (message) => (isRecord(message) && isId(message.id) ? message.id : null);

/**
 * Checks a request. What `model`, `input` and `options` hold beyond their type is the engine's to check.
 * @param {unknown} message
 * @returns {Request}
 * @throws {ModelProcessError} ERR_PROTOCOL
 */
export function parseRequest(message) {
  if (!isRecord(message)) throw malformed('a request must be an object');
  const { type, id, model, input, options = {} } = message;
  if (!isId(id)) throw malformed('id must be a positive integer');
  switch (type) {
    case 'load':
      if (typeof model !== 'string') throw malformed('model must be a string');
      if (!isRecord(options)) throw malformed('options must be an object');
      return { type, id, model, options };
    case 'generate':
      if (typeof input !== 'string' && !Array.isArray(input)) throw malformed('input must be a string or an array');
      if (!isRecord(options)) throw malformed('options must be an object');
      return { type, id, input, options };
    case 'stats':
    case 'unload':
    case 'abort':
    case 'ack':
      return { type, id };
    default:
      throw malformed('unknown type of request');
  }
}

/**
 * Checks an answer, so that a broken model process cannot make the app misbehave.
 * @param {unknown} message
 * @returns {Answer}
 * @throws {ModelProcessError} ERR_PROTOCOL
 */
export function parseAnswer(message) {
  if (!isRecord(message)) throw malformed('an answer must be an object');
  const { type, id, fraction, chunks, value, error } = message;
  if (type === 'error' && (isId(id) || id === null) && isErrorData(error)) return { type, id, error };
  if (!isId(id)) throw malformed('an answer must have an id');
  if (type === 'progress' && typeof fraction === 'number') return { type, id, fraction };
  if (type === 'chunks' && Array.isArray(chunks) && chunks.every(isChunk)) return { type, id, chunks };
  if (type === 'done') return { type, id, value };
  throw malformed('malformed answer');
}

/**
 * @param {unknown} value
 * @returns {value is ErrorData}
 */
const isErrorData = (value) =>
  isRecord(value) &&
  typeof value.code === 'string' &&
  typeof value.message === 'string' &&
  (value.remedy === null || typeof value.remedy === 'string');

/**
 * @param {unknown} value
 * @returns {value is RemoteChunk}
 */
const isChunk = (value) =>
  isRecord(value) &&
  typeof value.text === 'string' &&
  typeof value.accepted === 'number' &&
  Array.isArray(value.tokenIds) &&
  Array.isArray(value.runs);
