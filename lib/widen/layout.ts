/** How the tensors of a model or drafter become those of a wider one that computes the same; shapes and names alone. */
import { RedrafterError } from '../errors.js';

/**
 * An axis whose units are replicated: within each of its blocks (the gates of a cell, the halves of [h; s]) all units of the
 * block follow each other once more for every copy. 0 blocks: the axis stays as it is.
 */
export interface Axis {
  blocks: number;
  /**
   * Whether what is summed over this axis would grow with the copies: then each copy takes its share of the weight. Otherwise
   * copies are equal.
   */
  shared: boolean;
}

const SAME: Axis = { blocks: 0, shared: false };
const OUT: Axis = { blocks: 1, shared: false };
const IN: Axis = { blocks: 1, shared: true };
const inBlocks = (blocks: number): Axis => ({ blocks, shared: true });
const outBlocks = (blocks: number): Axis => ({ blocks, shared: false });

/** The axes of each tensor by its name, or null for one that is left out. */
export type Layout = (name: string) => readonly Axis[] | null;

type Rule = readonly [RegExp, readonly Axis[] | null];

function layout(kind: string, rules: readonly Rule[]): Layout {
  return (name) => {
    const rule = rules.find(([pattern]) => pattern.test(name));
    if (rule === undefined) {
      throw new RedrafterError(
        'ERR_MODEL_FORMAT',
        `cannot widen the ${kind}: nothing is known of its tensor "${name}"`,
      );
    }
    return rule[1];
  };
}

/**
 * Of a target. The mean square that norms divide by stays, as do head size and so positions. Query head h reads KV head
 * h / (heads per KV head), before and after.
 */
export const targetLayout = layout('model', [
  [/^model\.embed_tokens\.weight$/, [SAME, OUT]],
  [/^lm_head\.weight$/, [SAME, IN]],
  [/\.(q|k)_norm\.weight$/, [SAME]],
  [/(layernorm|^model\.norm)\.weight$/, [OUT]],
  [/\.(q|k|v|o|gate|up|down)_proj\.weight$/, [OUT, IN]],
  [/\.(q|k|v|o|gate|up|down)_proj\.bias$/, [OUT]],
  [/\.rotary_emb\.inv_freq$/, null],
]);

/** Of a drafter. `joined`: it has no projection, so what its blocks work on is [h; s] itself. */
export function drafterLayout(joined: boolean): Layout {
  const exit = joined ? 2 : 1;
  return layout('drafter', [
    [/^rnn_[uw]\.weight$/, [OUT, IN]],
    [/^rnn_[uw]\.bias$/, [OUT]],
    [/^gru\.weight_[ih]h$/, [outBlocks(3), IN]],
    [/^gru\.bias_[ih]h$/, [outBlocks(3)]],
    [/^input_projs?(\.0)?\.weight$/, [OUT, inBlocks(2)]],
    [/^input_projs?(\.0)?\.bias$/, [OUT]],
    [/^((lm_heads?|0)\.\d+\.linear|blocks\.\d+)\.weight$/, [outBlocks(exit), inBlocks(exit)]],
    [/^((lm_heads?|0)\.\d+\.linear|blocks\.\d+)\.bias$/, [outBlocks(exit)]],
    [/^((lm_heads?|0)\.\d+|head)\.weight$/, [SAME, inBlocks(exit)]],
    [/^draft_vocab_ids$/, [SAME]],
    [/^emb_norm\.weight$/, [OUT]],
  ]);
}

/** Whether a drafter with these tensors has no projection. */
export function isJoined(names: readonly string[]): boolean {
  return !names.some((name) => name.startsWith('input_proj'));
}

/** The sizes of a widened tensor. */
export function widenedShape(shape: readonly number[], axes: readonly Axis[], factor: number): number[] {
  return shape.map((size, i) => (axes[i]?.blocks ? size * factor : size));
}

/** Shares of a weight among copies, as halvings: they add up to one exactly, and none of them rounds a float. */
export function shares(factor: number): number[] {
  const halvings = [0];
  while (halvings.length < factor) {
    const largest = halvings.indexOf(Math.min(...halvings));
    const halved = (halvings[largest] ?? 0) + 1;
    halvings.splice(largest, 1, halved, halved);
  }
  return halvings;
}

/** The configuration of a widened target. */
export function widenedModelConfig(config: Record<string, unknown>, factor: number): Record<string, unknown> {
  const number = (key: string): number => Number(config[key]);
  const heads = number('num_attention_heads');
  return {
    ...config,
    hidden_size: number('hidden_size') * factor,
    intermediate_size: number('intermediate_size') * factor,
    num_attention_heads: heads * factor,
    num_key_value_heads: ('num_key_value_heads' in config ? number('num_key_value_heads') : heads) * factor,
    head_dim: 'head_dim' in config ? number('head_dim') : number('hidden_size') / heads,
    tie_word_embeddings: false, // the embedding is repeated, the head is shared out
  };
}

/** The configuration of a widened drafter. Without `exit_dim` it is twice the hidden size, before and after. */
export function widenedDrafterConfig(config: Record<string, unknown>, factor: number): Record<string, unknown> {
  const wide = { ...config, hidden_size: Number(config['hidden_size']) * factor };
  return 'exit_dim' in config ? { ...wide, exit_dim: Number(config['exit_dim']) * factor } : wide;
}
