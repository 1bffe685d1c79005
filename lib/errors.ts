/** Every code a {@link RedrafterError} can carry. Codes are stable: programs may switch on them. */
export type ErrorCode =
  /** An argument or option has a wrong type, is out of range or is unknown. */
  | 'ERR_INVALID_ARGUMENT'
  /** A file cannot be opened or read, or changed while it was read. */
  | 'ERR_FILE'
  /** The weights are not well-formed safetensors, or not the tensors that the configuration asks for. */
  | 'ERR_MODEL_FORMAT'
  /** config.json is missing a value, or holds one that is wrong or not supported. */
  | 'ERR_CONFIG'
  /** The drafter does not fit the target model. */
  | 'ERR_DRAFTER'
  /** Text was given or asked for and there is no usable tokenizer, or text does not map to ids of the model. */
  | 'ERR_TOKENIZER'
  /** The chat template is missing, malformed, or refuses the messages. */
  | 'ERR_TEMPLATE'
  /** A grammar or JSON schema is wrong or not supported, or leaves nothing that could be chosen. */
  | 'ERR_GRAMMAR'
  /** The thread that carries out grammars ended, or gave no answer. */
  | 'ERR_GRAMMAR_WORKER'
  /** The request does not fit in the context of the model. */
  | 'ERR_CONTEXT'
  /** The file is not a saved session, or it is damaged or incomplete. */
  | 'ERR_SESSION_FILE'
  /** The session was saved by another model than the one that is to restore it. */
  | 'ERR_SESSION_MODEL'
  /** The KV cache has no room for the request. */
  | 'ERR_KV_FULL'
  /** As many requests, or tokens of their prompts, are waiting as were allowed at load. */
  | 'ERR_QUEUE_FULL'
  /** Memory could not be allocated, or a thread not be started. */
  | 'ERR_OOM'
  /** The session is already carrying out an operation. */
  | 'ERR_BUSY'
  /** An AbortSignal fired. The error's `name` is `AbortError` and its `cause` the signal's reason. */
  | 'ERR_ABORTED'
  /** The model or session was disposed of. */
  | 'ERR_DISPOSED'
  /** The device or instruction-set level that was asked for cannot be used here. */
  | 'ERR_BACKEND'
  /** The model produced values that are not numbers. */
  | 'ERR_NUMERIC'
  /** A CUDA call failed, or a kernel did. */
  | 'ERR_CUDA'
  /** The native addon is missing or does not fit this platform. */
  | 'ERR_NATIVE'
  /** A bug in redrafter. */
  | 'ERR_INTERNAL';

/** Every code, with what to do next; the place that makes an error may know better. */
const REMEDIES: Record<ErrorCode, string> = {
  ERR_INVALID_ARGUMENT:
    'pass what the message asks for; the API reference gives unit, range and default of every option',
  ERR_FILE: 'check the path, its permissions, the space on the disk, and that nothing else writes to the file',
  ERR_MODEL_FORMAT: 'download or export the weights again; `redrafter inspect DIR` shows what the files hold',
  ERR_CONFIG: 'check config.json against the weights, and that the architecture is one that redrafter loads',
  ERR_DRAFTER: 'use a drafter that was trained for this model, or load the model without one',
  ERR_TOKENIZER: 'give token ids, or put the tokenizer.json that belongs to the model into its directory',
  ERR_TEMPLATE: 'give text or token ids, or messages in the form that the chat template of the model expects',
  ERR_GRAMMAR: 'change what the message names; the guide on constrained decoding lists what is supported',
  ERR_GRAMMAR_WORKER: 'start the generation again; if it happens again, report it with the grammar',
  ERR_SESSION_FILE: 'restore another copy of the file, or begin a new session',
  ERR_SESSION_MODEL: 'load the model that the session was saved with, with the same dtype',
  ERR_CONTEXT: 'shorten the input, lower maxTokens, or load the model with a larger contextTokens',
  ERR_KV_FULL: 'dispose of or rewind sessions, lower maxTokens, or load the model with a larger kvTokens',
  ERR_QUEUE_FULL:
    'try again when a request has ended, or load the model with a larger maxQueuedRequests or maxQueuedTokens',
  ERR_OOM:
    'free memory, load the model with a smaller contextTokens or kvTokens, or raise memoryBudgetBytes or the limits of the process',
  ERR_BUSY: 'wait for the running operation, or use a session of its own (createSession, fork)',
  ERR_ABORTED: 'nothing, if it was meant; otherwise start the operation again without that signal',
  ERR_DISPOSED: 'create a new session, or load the model again; keep both until their work has ended',
  ERR_BACKEND: 'run `redrafter info` to see which devices can be used and why others cannot',
  ERR_NUMERIC: 'download or convert the weights again, or load them with another dtype',
  ERR_CUDA: 'load the model again, or with device cpu; if it happens again, check the device with `nvidia-smi`',
  ERR_NATIVE: 'run `npx redrafter build`, or install the package again on this platform',
  ERR_INTERNAL: 'please report this with the message and how to repeat it',
};

/**
 * The base of every error of this package. Its `code` says what went wrong; the subclass follows from the code and
 * says what kind of thing a program can do about it.
 */
export class RedrafterError extends Error {
  /** What went wrong, for programs. */
  readonly code: ErrorCode;
  /** What to do about it, for people. */
  readonly remedy: string;

  /**
   * No code is of this type: errors are made by redrafter alone.
   * @hidden
   */
  constructor(code: ErrorCode & { made: never }, message: string); // in the published types instead of the next one
  /** @internal */
  constructor(code: ErrorCode, message: string, options?: { remedy?: string; cause?: unknown });
  constructor(code: ErrorCode, message: string, options: { remedy?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.remedy = options.remedy ?? REMEDIES[code];
    // Decided here, so that no place that makes an error can pair a code with the wrong class.
    Object.setPrototypeOf(this, classOf(code).prototype as object);
    this.name = classOf(code).name;
  }
}

/** The call is wrong and will be wrong again: a bug in the calling program. */
export class InvalidArgumentError extends RedrafterError {
  declare readonly code: 'ERR_INVALID_ARGUMENT' | 'ERR_GRAMMAR';
}

/** A file of a model, drafter or saved session cannot be used. */
export class FileError extends RedrafterError {
  declare readonly code:
    'ERR_FILE' | 'ERR_MODEL_FORMAT' | 'ERR_CONFIG' | 'ERR_DRAFTER' | 'ERR_SESSION_FILE' | 'ERR_SESSION_MODEL';
}

/** Text or messages cannot be turned into tokens of this model. */
export class TextError extends RedrafterError {
  declare readonly code: 'ERR_TOKENIZER' | 'ERR_TEMPLATE';
}

/** There is not enough room: a smaller request, or a later one, can succeed. */
export class CapacityError extends RedrafterError {
  declare readonly code: 'ERR_CONTEXT' | 'ERR_KV_FULL' | 'ERR_QUEUE_FULL' | 'ERR_OOM';
}

/** The object is not in a state to do this: busy with other work, or disposed of. */
export class StateError extends RedrafterError {
  declare readonly code: 'ERR_BUSY' | 'ERR_DISPOSED';
}

/** An AbortSignal fired. The class has the name that fetch, streams and timers use. */
export class AbortError extends RedrafterError {
  declare readonly code: 'ERR_ABORTED';
}

/** This machine or installation cannot do it: a device is missing, or the native addon. */
export class PlatformError extends RedrafterError {
  declare readonly code: 'ERR_BACKEND' | 'ERR_NATIVE';
}

/** The computation itself failed. */
export class InternalError extends RedrafterError {
  declare readonly code: 'ERR_NUMERIC' | 'ERR_CUDA' | 'ERR_GRAMMAR_WORKER' | 'ERR_INTERNAL';
}

function classOf(code: ErrorCode): { name: string; prototype: unknown } {
  switch (code) {
    case 'ERR_INVALID_ARGUMENT':
    case 'ERR_GRAMMAR':
      return InvalidArgumentError;
    case 'ERR_FILE':
    case 'ERR_MODEL_FORMAT':
    case 'ERR_CONFIG':
    case 'ERR_DRAFTER':
    case 'ERR_SESSION_FILE':
    case 'ERR_SESSION_MODEL':
      return FileError;
    case 'ERR_TOKENIZER':
    case 'ERR_TEMPLATE':
      return TextError;
    case 'ERR_CONTEXT':
    case 'ERR_KV_FULL':
    case 'ERR_QUEUE_FULL':
    case 'ERR_OOM':
      return CapacityError;
    case 'ERR_BUSY':
    case 'ERR_DISPOSED':
      return StateError;
    case 'ERR_ABORTED':
      return AbortError;
    case 'ERR_BACKEND':
    case 'ERR_NATIVE':
      return PlatformError;
    case 'ERR_NUMERIC':
    case 'ERR_CUDA':
    case 'ERR_GRAMMAR_WORKER':
    case 'ERR_INTERNAL':
      return InternalError;
  }
}

/** Shorthand for the most common error. */
export function invalid(message: string): RedrafterError {
  return new RedrafterError('ERR_INVALID_ARGUMENT', message);
}

/** The error for work ended by `signal`. */
export function aborted(signal: AbortSignal): RedrafterError {
  return new RedrafterError('ERR_ABORTED', 'the operation was aborted', { cause: signal.reason as unknown });
}

/** An error reported by native code, as code and message; an unknown code is a bug and becomes ERR_INTERNAL. */
export function nativeError(code: string, message: string): RedrafterError {
  return Object.hasOwn(REMEDIES, code)
    ? new RedrafterError(code as ErrorCode, message)
    : new RedrafterError('ERR_INTERNAL', `${message} (native code ${code})`);
}

/** Converts what a native call threw. */
export function fromThrown(thrown: unknown): RedrafterError {
  if (thrown instanceof RedrafterError) return thrown;
  if (!(thrown instanceof Error)) return new RedrafterError('ERR_INTERNAL', String(thrown));
  const code: unknown = 'code' in thrown ? thrown.code : undefined;
  if (typeof code === 'string' && Object.hasOwn(REMEDIES, code)) return nativeError(code, thrown.message);
  return new RedrafterError('ERR_INTERNAL', thrown.message, { cause: thrown });
}

/**
 * Where the caller was when it started asynchronous work. An error that arrives later was made on another
 * turn of the event loop; {@link CallSite.mark} gives it this stack instead of one that shows only internals.
 */
export class CallSite {
  private readonly at: { stack?: string } = {};

  /** Call it in the public function itself. */
  constructor() {
    Error.captureStackTrace(this.at, CallSite);
  }

  /** Replaces the stack of `error` by this one and returns it. */
  mark(error: RedrafterError): RedrafterError {
    const frames = (this.at.stack ?? '').split('\n').slice(1).join('\n');
    error.stack = `${error.name} [${error.code}]: ${error.message}\n${frames}`;
    return error;
  }
}
