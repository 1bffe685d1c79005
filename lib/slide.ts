import { invalid, RedrafterError } from './errors.js';

/** What stays of a full context: the first `keep` and the last `tail` tokens. */
export interface SlideRule {
  keep: number;
  tail: number;
}

/** Tokens that the engine dropped, from `keep` on, before generated token number `at` came. */
export interface Slide {
  at: number;
  dropped: number;
}

/** Tokens of a generation, and the slides of the engine, some of which may have come after the last of them. */
export interface Generated {
  ids: readonly number[];
  slides: readonly Slide[];
}

/**
 * A prompt that leaves room for a token: `ids` itself, or what stays of it. Throws ERR_CONTEXT without a rule, and
 * ERR_INVALID_ARGUMENT when there is nothing.
 */
export function fitPrompt(ids: number[], contextTokens: number, rule: SlideRule | undefined): number[] {
  if (ids.length === 0) throw invalid('there is nothing to continue: the session and the input are empty');
  if (ids.length < contextTokens) return ids;
  if (rule !== undefined) return [...ids.slice(0, rule.keep), ...ids.slice(-rule.tail)];
  throw new RedrafterError(
    'ERR_CONTEXT',
    `the session would hold ${ids.length} tokens before the first new one; the context ends at ${contextTokens}`,
  );
}

/**
 * What a session holds after its prompt and the first `kept` generated tokens, with the slides up to there; and how much of
 * it the engine holds still, after slides that came later: all but what it may have cut off at the end, or `keep`.
 */
export function heldAfter(
  prompt: readonly number[],
  { ids, slides }: Generated,
  kept: number,
  keep: number,
): { ids: number[]; common: number } {
  let held = [...prompt];
  let from = 0;
  const take = (to: number): void => {
    held = held.concat(ids.slice(from, to));
    from = to;
  };
  let late = false;
  for (const { at, dropped } of slides) {
    if (at >= kept) {
      late = true;
      break;
    }
    take(at);
    held.splice(keep, dropped);
  }
  take(kept);
  return { ids: held, common: late ? keep : held.length };
}

/** How many tokens two sequences begin with alike. */
export function commonPrefix(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
