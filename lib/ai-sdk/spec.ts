/**
 * The types of the AI SDK's provider specification, and nothing else of it. The package is written as modules only, and
 * this library is compiled to CommonJS: the attribute makes the declarations resolve for both kinds of user.
 */
export type {
  LanguageModelV4 as LanguageModel,
  LanguageModelV4CallOptions as CallOptions,
  LanguageModelV4FinishReason as FinishReason,
  LanguageModelV4GenerateResult as GenerateResult,
  LanguageModelV4Message as Message,
  LanguageModelV4StreamPart as StreamPart,
  LanguageModelV4StreamResult as StreamResult,
  LanguageModelV4Usage as Usage,
  SharedV4ProviderMetadata as ProviderMetadata,
  SharedV4Warning as Warning,
} from '@ai-sdk/provider' with { 'resolution-mode': 'import' };
