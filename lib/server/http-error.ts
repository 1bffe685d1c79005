import { RedrafterError, type ErrorCode } from '../errors.js';

/** What a client is told when a request fails, in the form of OpenAI's API. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string };
}

/** Codes of failures that belong to HTTP. What the library reports keeps its own code. */
export type HttpCode =
  | 'invalid_api_key'
  | 'host_not_allowed'
  | 'not_found'
  | 'model_not_found'
  | 'method_not_allowed'
  | 'body_too_large'
  | 'unsupported_media_type'
  | 'deadline_exceeded'
  | 'request_timeout'
  | 'client_closed'
  | 'client_too_slow'
  | 'loading'
  | 'load_failed'
  | 'shutting_down';

interface Extra {
  /** The field of the body that is wrong. */
  param?: string;
  headers?: Record<string, string>;
  cause?: unknown;
}

/** A request that fails, as status and body of the answer. The message is for the client and may quote the request. */
export class HttpError extends Error {
  readonly param: string | undefined;
  readonly headers: Record<string, string>;

  constructor(
    readonly status: number,
    readonly code: ErrorCode | HttpCode,
    message: string,
    { param, headers = {}, cause }: Extra = {},
  ) {
    super(message, { cause });
    this.param = param;
    this.headers = headers;
  }

  body(): ErrorBody {
    const { message, code, status, param = null } = this;
    return { error: { message, type: TYPES[status] ?? (status < 500 ? INVALID : 'server_error'), param, code } };
  }
}

const INVALID = 'invalid_request_error';
const TYPES: Record<number, string> = { 401: 'authentication_error', 403: 'permission_error', 429: 'rate_limit_error' };

/** Status of what the library throws. What is not listed is the server's fault: 500. */
const STATUS: Partial<Record<ErrorCode, number>> = {
  ERR_INVALID_ARGUMENT: 400,
  ERR_TOKENIZER: 400,
  ERR_TEMPLATE: 400,
  ERR_GRAMMAR: 400,
  ERR_CONTEXT: 400,
  ERR_KV_FULL: 429,
  ERR_QUEUE_FULL: 429,
  ERR_OOM: 503,
  ERR_DISPOSED: 503,
};

/** A wrong value in the body. */
export function badField(param: string, message: string): HttpError {
  return new HttpError(400, 'ERR_INVALID_ARGUMENT', message, { param });
}

/** A refusal that a later attempt can escape. */
export function busy(status: 429 | 503, code: ErrorCode | HttpCode, message: string): HttpError {
  return new HttpError(status, code, message, { headers: { 'retry-after': '1' } });
}

/** What to answer for whatever was thrown. Details of unexpected errors stay in the server. */
export function toHttpError(thrown: unknown): HttpError {
  if (thrown instanceof HttpError) return thrown;
  if (!(thrown instanceof RedrafterError)) {
    return new HttpError(500, 'ERR_INTERNAL', 'the server failed', { cause: thrown });
  }
  // A signal's reason says who ended the request, and why.
  if (thrown.code === 'ERR_ABORTED' && thrown.cause instanceof HttpError) return thrown.cause;
  const status = STATUS[thrown.code] ?? 500;
  const headers = status === 429 || status === 503 ? { 'retry-after': '1' } : {};
  return new HttpError(status, thrown.code, thrown.message, { headers, cause: thrown });
}
