/**
 * Models for the AI SDK (the packages `ai` and `@ai-sdk/provider`): its functions `generateText`, `streamText` and what
 * builds on them, with a model in this process. Start with {@link languageModel}.
 *
 * @module redrafter/ai-sdk
 * @group Reference
 */
import { Call } from './ai-sdk/call.js';
import { endingOf } from './ai-sdk/result.js';
import type { CallOptions, GenerateResult, LanguageModel, StreamResult } from './ai-sdk/spec.js';
import { streamOf } from './ai-sdk/stream.js';
import { invalid, RedrafterError } from './errors.js';
import { Model } from './model.js';
import { describe, OptionReader } from './options.js';

export type { RedrafterOptions } from './ai-sdk/options.js';
export type { RedrafterMetadata } from './ai-sdk/result.js';

/** Settings of {@link languageModel}. */
export interface LanguageModelSettings {
  /** Name of the model in results and telemetry. Default: its architecture, such as `LlamaForCausalLM`. */
  modelId?: string;
}

/**
 * A loaded model as the AI SDK's `LanguageModelV4`. It takes text through the model's chat template and gives text; it
 * is yours to dispose of the model. Every call has a session of its own, which ends with it.
 *
 * The settings of a call are those of `session.generate` under the AI SDK's names, with its ranges and defaults, except
 * that `maxOutputTokens` is the rest of the context if not given. `providerOptions.redrafter` takes
 * {@link RedrafterOptions}, `providerMetadata.redrafter` gives {@link RedrafterMetadata}. What is not supported and can be
 * left out (JSON, tools, reasoning effort) is a warning; files, tool calls and tool results in the
 * prompt are errors.
 *
 * Throws ERR_INVALID_ARGUMENT, ERR_TOKENIZER (the model has no tokenizer), ERR_TEMPLATE (it has no chat template).
 * Calls reject with what `model.createSession` and `session.generate` throw.
 */
export function languageModel(model: Model, settings?: LanguageModelSettings): LanguageModel {
  if (!(model instanceof Model)) throw invalid(`model must be a loaded Model, got ${describe(model)}`);
  const modelId = new OptionReader(settings, ['modelId']).raw('modelId', model.info.architecture);
  if (typeof modelId !== 'string' || modelId === '') {
    throw invalid(`modelId must be a non-empty string, got ${describe(modelId)}`);
  }
  if (model.tokenizer === null) {
    throw new RedrafterError(
      'ERR_TOKENIZER',
      'the AI SDK needs a tokenizer, and the model directory has no tokenizer.json',
      {
        remedy: 'put tokenizer.json into the model directory, or give token ids to session.generate',
      },
    );
  }
  if (!model.tokenizer.hasChatTemplate) {
    throw new RedrafterError('ERR_TEMPLATE', 'the AI SDK needs a chat template, and the model has none', {
      remedy: 'put chat_template.jinja into the model directory, or give text to session.generate',
    });
  }
  return new RedrafterLanguageModel(model, modelId);
}

class RedrafterLanguageModel implements LanguageModel {
  readonly specificationVersion = 'v4';
  readonly provider = 'redrafter';
  /** No kind of file is taken, by URL or otherwise. */
  readonly supportedUrls = {};

  constructor(
    private readonly model: Model,
    readonly modelId: string,
  ) {}

  async doGenerate(options: CallOptions): Promise<GenerateResult> {
    const call = await Call.start(this.model, options);
    const result = await call.result();
    return {
      content: result.text === '' ? [] : [{ type: 'text', text: result.text }],
      ...endingOf(result),
      warnings: call.warnings,
      response: { timestamp: call.started, modelId: this.modelId },
    };
  }

  async doStream(options: CallOptions): Promise<StreamResult> {
    const call = await Call.start(this.model, options);
    return { stream: streamOf(call, this.modelId, options.includeRawChunks === true) };
  }
}
