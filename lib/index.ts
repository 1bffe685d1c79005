/**
 * Lossless decoding of large language models with recurrent drafters. Start with {@link Model.load}.
 *
 * @module redrafter
 * @group Reference
 */
export { Model } from './model.js';
export type { ModelInfo } from './model.js';
export { Session } from './session.js';
export type { SessionInput } from './session.js';
export { Generation } from './generation.js';
export type { Chunk, FinishReason, GenerationResult, TokenLogprob } from './generation.js';
export { Tokenizer } from './tokenizer.js';
export type { ChatMessage } from './chat.js';
export type { ChatOptions, DecodeOptions, Detokenizer, EncodeOptions } from './tokenizer.js';
export type {
  AppendOptions,
  GenerateManyOptions,
  ContextPolicy,
  GenerateOptions,
  LoadOptions,
  MemoryOptions,
  SaveOptions,
  SessionOptions,
  SlidePolicy,
} from './option-types.js';
export type { EbnfGrammar, Grammar, JsonGrammar, JsonSchemaGrammar, RegexGrammar } from './grammar/options.js';
export type { DecodeStats, GenerationStats, TotalStats } from './stats.js';
export type { KvUsage, SessionKv } from './kv.js';
export type { QueueUsage } from './queue.js';
export { estimateMemory } from './memory.js';
export type { MemoryEstimate, MemoryUsage } from './memory.js';
export { cpuFeatures, getBackends, inspect, version } from './system.js';
export type { BackendReason, BackendReasonCode, BackendStatus, Inspection, TensorInfo } from './system.js';
export {
  AbortError,
  CapacityError,
  FileError,
  InternalError,
  InvalidArgumentError,
  PlatformError,
  RedrafterError,
  StateError,
  TextError,
} from './errors.js';
export type { ErrorCode } from './errors.js';
