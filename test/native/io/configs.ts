/** Configurations that load, and ways to write and read them. */
import { directory, io } from './build.js';

export type Json = Record<string, unknown>;

export const LLAMA: Json = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 1000,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
};
export const family = (architecture: string, model_type: string, more: Json = {}): Json => ({
  ...LLAMA,
  architectures: [architecture],
  model_type,
  ...more,
});
export const MISTRAL = family('MistralForCausalLM', 'mistral');
export const QWEN2 = family('Qwen2ForCausalLM', 'qwen2');
export const QWEN3 = family('Qwen3ForCausalLM', 'qwen3');

/** JSON text; a value given as {raw: text} is written as that text. */
export function text(config: Json): string {
  const value = (v: unknown): string => (v as { raw?: string } | null)?.raw ?? JSON.stringify(v);
  return `{${Object.entries(config)
    .map(([k, v]) => `${JSON.stringify(k)}:${value(v)}`)
    .join(',')}}`;
}
export const raw = (json: string): { raw: string } => ({ raw: json });

export function read(config: Json | string, generation?: Json | string): Json {
  const files: Record<string, string> = { 'config.json': typeof config === 'string' ? config : text(config) };
  if (generation !== undefined)
    files['generation_config.json'] = typeof generation === 'string' ? generation : text(generation);
  return io.readModelConfig(directory(files));
}
export const without = (config: Json, key: string): Json =>
  Object.fromEntries(Object.entries(config).filter(([k]) => k !== key));
