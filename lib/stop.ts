/** What {@link StopMatcher.push} found. */
export interface StopStep {
  /** Text that is certainly not part of a stop string and may be shown. */
  text: string;
  /** Whether a stop string was completed; then `text` ends right before it and nothing more may be pushed. */
  stopped: boolean;
}

/** One stop string with the state of its Knuth-Morris-Pratt automaton. */
interface Needle {
  pattern: string;
  /** fallback[n]: longest proper prefix of the pattern that is a suffix of its first n units. */
  fallback: Int32Array;
  matched: number;
}

function needle(pattern: string): Needle {
  const fallback = new Int32Array(pattern.length + 1);
  let n = 0;
  for (let i = 1; i < pattern.length; i++) {
    while (n > 0 && pattern[i] !== pattern[n]) n = fallback[n] ?? 0;
    if (pattern[i] === pattern[n]) n++;
    fallback[i + 1] = n;
  }
  return { pattern, fallback, matched: 0 };
}

function advance(state: Needle, unit: string): void {
  while (state.matched > 0 && state.pattern[state.matched] !== unit) state.matched = state.fallback[state.matched] ?? 0;
  if (state.pattern[state.matched] === unit) state.matched++;
}

/**
 * Finds stop strings in text that arrives in pieces.
 *
 * Text that might be the beginning of a stop string is held back until the next pieces decide. The stop string
 * that is completed first wins; of several completed by the same character, the longest. The outcome does not
 * depend on how the text is cut into pieces.
 */
export class StopMatcher {
  private readonly needles: Needle[];
  private held = '';

  /** `stops`: non-empty strings; an empty list passes everything through. */
  constructor(stops: readonly string[]) {
    this.needles = stops.map(needle);
  }

  push(piece: string): StopStep {
    if (this.needles.length === 0) return { text: piece, stopped: false };
    const text = this.held + piece;
    let longest = 0;
    for (let i = this.held.length; i < text.length; i++) {
      longest = 0;
      let complete = 0;
      for (const state of this.needles) {
        advance(state, text.charAt(i));
        if (state.matched === state.pattern.length) complete = Math.max(complete, state.matched);
        longest = Math.max(longest, state.matched);
      }
      if (complete > 0) {
        this.held = '';
        return { text: text.slice(0, i + 1 - complete), stopped: true };
      }
    }
    if (piece.length > 0) {
      this.held = text.slice(text.length - longest);
      return { text: text.slice(0, text.length - longest), stopped: false };
    }
    return { text: '', stopped: false };
  }

  /** The text still held back, at the end of generation. */
  flush(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }
}
