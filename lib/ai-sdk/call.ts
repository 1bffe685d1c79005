import type { Generation, GenerationResult } from '../generation.js';
import type { Model } from '../model.js';
import { toGenerateOptions, toSessionOptions } from './options.js';
import { toMessages } from './prompt.js';
import type { CallOptions, Warning } from './spec.js';

/** A generation in a session of its own, which is disposed of when the generation ends, read or not. */
export class Call {
  readonly started = new Date();
  /** Resolves when the KV cache is as it was before the call. */
  readonly closed: Promise<void>;

  private constructor(
    readonly generation: Generation,
    readonly warnings: Warning[],
    close: () => Promise<void>,
  ) {
    this.closed = generation.result().then(close, close);
  }

  /** Rejects with what conversion of the prompt and `session.generate` throw at once; nothing is left then. */
  static async start(model: Model, options: CallOptions): Promise<Call> {
    const warnings: Warning[] = [];
    const given = toGenerateOptions(options, warnings);
    const { contextTokens, kvTokens } = model.info;
    const messages = toMessages(options.prompt, warnings);
    // A model without a tokenizer is left to `session.generate`, which says so.
    const input = model.tokenizer?.encodeChat(messages) ?? messages;
    const maxTokens = Math.max(Math.min(contextTokens, kvTokens) - input.length, 1);
    const session = await model.createSession(toSessionOptions(options));
    try {
      return new Call(session.generate(input, { maxTokens, ...given }), warnings, () => session.dispose());
    } catch (error) {
      await session.dispose();
      throw error;
    }
  }

  /** The outcome, once the session is disposed of. */
  async result(): Promise<GenerationResult> {
    await this.closed;
    return this.generation.result();
  }
}
