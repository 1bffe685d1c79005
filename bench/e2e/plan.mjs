// What is asked and when: a function of the seed alone, so that every rate and every way of drafting gets the same
// requests, and a run can be repeated.

/** @typedef {{ index: number, text: string, maxTokens: number, temperature: number, seed: number }} PlannedRequest */

/** Lengths are drawn so that each doubling of them is as likely as the next: many are short, a few are long. */
export const LENGTHS = { promptCharacters: [24, 1200], outputTokens: [8, 160] };

/**
 * Uniform numbers in (0, 1), by mulberry32. `stream` keeps draws for one purpose apart from those for another.
 * @param {number} seed @param {string} stream
 */
export function randomOf(seed, stream) {
  let state = seed >>> 0;
  for (const character of stream) state = Math.imul(state ^ character.charCodeAt(0), 0x9e3779b1) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (((x ^ (x >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

/** @param {() => number} random @param {number[]} range */
function logUniform(random, [low = 1, high = 1]) {
  return Math.round(low * (high / low) ** random());
}

/**
 * Every other request is sampled, the others are greedy. None ends at an end-of-sequence token: each gives maxTokens.
 * @param {number} seed @param {number} count @param {readonly string[]} texts
 * @returns {PlannedRequest[]}
 */
export function planRequests(seed, count, texts) {
  const random = randomOf(seed, 'requests');
  return Array.from({ length: count }, (_, index) => ({
    index,
    text: (texts[Math.floor(random() * texts.length)] ?? '').slice(0, logUniform(random, LENGTHS.promptCharacters)),
    maxTokens: logUniform(random, LENGTHS.outputTokens),
    temperature: index % 2 === 0 ? 0 : 0.8,
    seed: Math.floor(random() * 2 ** 32),
  }));
}

/**
 * Milliseconds at which requests come, by a Poisson process: independent of each other and of what was answered.
 * Another rate stretches the same arrivals.
 * @param {number} seed @param {number} count @param {number} perSecond
 */
export function planArrivals(seed, count, perSecond) {
  const random = randomOf(seed, 'arrivals');
  let at = 0;
  return Array.from({ length: count }, () => (at += (-Math.log(random()) * 1000) / perSecond));
}
