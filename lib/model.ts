import { Engine, type StartEngine } from './engine.js';
import { aborted, CallSite, fromThrown } from './errors.js';
import { Grammars } from './grammar/grammars.js';
import { kvUsageOf, type KvUsage } from './kv.js';
import { memoryUsageOf, type MemoryUsage } from './memory.js';
import { native, type NativeModelInfo as ModelInfo } from './native.js';
import type { LoadOptions, SaveOptions, SessionOptions } from './option-types.js';
import { resolveLoad, resolveSession } from './options.js';
import { queueUsageOf, type QueueUsage } from './queue.js';
import { Session, type SessionOwner } from './session.js';
import { StatsTotal, type TotalStats } from './stats.js';
import { Tokenizer } from './tokenizer.js';

export type { ModelInfo };

/**
 * A model in memory with its own engine thread. Several can be loaded at a time. Work that is running keeps the
 * process alive; a model that is idle does not.
 *
 * An idle model that nothing refers to any more, nor to one of its sessions, is freed when it is garbage-collected,
 * but the collector does not know how large it is and may take its time: call {@link Model.dispose}.
 */
export class Model {
  private constructor(private readonly owner: SessionOwner) {}

  /**
   * Loads a model directory in the layout of Hugging Face: config.json, safetensors weights, and optionally
   * tokenizer.json. Rejects with ERR_INVALID_ARGUMENT, ERR_FILE, ERR_MODEL_FORMAT, ERR_CONFIG, ERR_DRAFTER,
   * ERR_TOKENIZER, ERR_TEMPLATE, ERR_BACKEND, ERR_OOM, ERR_NATIVE, ERR_ABORTED, and with what `onProgress` throws.
   */
  static async load(directory: string, options?: LoadOptions): Promise<Model> {
    const site = new CallSite();
    let callers: { error: unknown } | undefined;
    try {
      const { native: engineOptions, onProgress, signal } = resolveLoad(directory, options);
      const addon = native();
      const report = (fraction: number): void => {
        try {
          onProgress?.(fraction);
        } catch (error) {
          callers = { error };
          throw error;
        }
      };
      const start: StartEngine = (onMessages) => new addon.Engine(engineOptions, onMessages);
      const { engine, info } = await Engine.load(start, report, signal);
      try {
        const tokenizer = await Tokenizer.load(engineOptions.model, info.vocab);
        if (signal?.aborted === true) throw aborted(signal);
        const grammars = new Grammars(engine.native, { directory: engineOptions.model, vocab: info.vocab });
        const eosTokenIds = eosOf(info, tokenizer);
        return new Model({ engine, info, tokenizer, eosTokenIds, totals: new StatsTotal(), grammars });
      } catch (error) {
        await engine.close();
        throw error;
      }
    } catch (error) {
      throw callers?.error === error ? error : site.mark(fromThrown(error));
    }
  }

  /** Shape, device and memory of the model. */
  get info(): ModelInfo {
    return this.owner.info;
  }

  /** The model's tokenizer, or null if its directory has none; then only token ids can be used. */
  get tokenizer(): Tokenizer | null {
    return this.owner.tokenizer;
  }

  /** A new, empty session. Rejects with ERR_INVALID_ARGUMENT, ERR_DISPOSED. */
  async createSession(options?: SessionOptions): Promise<Session> {
    return Session.open(this.owner, new CallSite(), options);
  }

  /**
   * Forgets the prefixes of a key, or all of them: no later session gets them, and blocks that no session holds become
   * free. Rejects with ERR_INVALID_ARGUMENT, ERR_DISPOSED.
   */
  async clearPrefixes(prefixKey?: string): Promise<void> {
    const site = new CallSite();
    const key = resolveSession(prefixKey === undefined ? undefined : { prefixKey });
    await this.owner.engine.request('done', site, (native, ticket) => {
      native.clearPrefixes(ticket, 0, key);
    });
  }

  /**
   * A session as {@link Session.save} wrote it, token for token. Its generations are those that the saved session
   * would have had. Keys and values come from the file where version, device and level are the ones that computed
   * them (`session.kv.tokens` tells); otherwise the next generation computes them anew from the tokens.
   *
   * Rejects with ERR_INVALID_ARGUMENT, ERR_FILE, ERR_SESSION_FILE (no saved session, or damaged), ERR_SESSION_MODEL
   * (saved by another model), ERR_CONTEXT, ERR_KV_FULL, ERR_OOM, ERR_DISPOSED, ERR_ABORTED.
   */
  async restoreSession(path: string, options?: SaveOptions): Promise<Session> {
    return Session.restore(this.owner, new CallSite(), path, options);
  }

  /** Sums over the generations of all sessions, open or not, that have ended. */
  get stats(): TotalStats {
    return this.owner.totals.snapshot();
  }

  /** Use of the KV cache over all sessions, as of the last round. Throws ERR_DISPOSED. */
  kvUsage(): KvUsage {
    return kvUsageOf(this.owner.engine.usage());
  }

  /** Requests that wait, run and pause. Throws ERR_DISPOSED. */
  queueUsage(): QueueUsage {
    return queueUsageOf(this.owner.engine.usage());
  }

  /** Memory of the model in bytes, by purpose; the use of KV is as of the last round. Throws ERR_DISPOSED. */
  memoryUsage(): MemoryUsage {
    return memoryUsageOf(this.info.memory, this.owner.engine.usage());
  }

  /** Ends all work, which fails with ERR_DISPOSED, and frees the memory. Resolves when that is done. Idempotent. */
  dispose(): Promise<void> {
    this.owner.grammars.dispose();
    return this.owner.engine.close();
  }

  /** Allows `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** The model's end-of-sequence ids; if it names none, the one of the tokenizer. */
function eosOf(info: ModelInfo, tokenizer: Tokenizer | null): readonly number[] {
  if (info.eosTokenIds.length > 0) return info.eosTokenIds;
  const id = tokenizer?.eosTokenId;
  return id === undefined || id >= info.vocab ? [] : [id];
}
