/** Sets of characters, as ranges of code points in rising order that do not touch. */
export type Characters = readonly (readonly [first: number, last: number])[];

export const LAST = 0x10ffff;
/** Everything that UTF-8 can say: surrogates are no characters. */
export const ALL: Characters = [
  [0, 0xd7ff],
  [0xe000, LAST],
];

export function characters(...ranges: [first: number, last: number][]): Characters {
  const sorted = [...ranges].sort((a, b) => a[0] - b[0]);
  const joined: [number, number][] = [];
  for (const [first, last] of sorted) {
    const before = joined[joined.length - 1];
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else joined.push([first, last]);
  }
  return joined;
}

/** The characters of a string. */
export function charactersOf(text: string): Characters {
  return characters(...Array.from(text, (c): [number, number] => [c.codePointAt(0) ?? 0, c.codePointAt(0) ?? 0]));
}

export function union(...sets: Characters[]): Characters {
  return characters(...sets.flat().map(([first, last]): [number, number] => [first, last]));
}

/** What is in `a` and not in `b`. */
export function without(a: Characters, b: Characters): Characters {
  let left = a.map(([first, last]): [number, number] => [first, last]);
  for (const [first, last] of b) {
    left = left.flatMap(([from, to]) => {
      if (last < from || first > to) return [[from, to]];
      const parts: [number, number][] = [];
      if (from < first) parts.push([from, first - 1]);
      if (to > last) parts.push([last + 1, to]);
      return parts;
    });
  }
  return left;
}

export function common(a: Characters, b: Characters): Characters {
  return without(a, without(ALL, b));
}

const hex = (code: number, digits: number): string => code.toString(16).padStart(digits, '0');

/** A character in the classes and strings of EBNF. */
function escaped(code: number): string {
  if (/[0-9A-Za-z]/.test(String.fromCodePoint(code))) return String.fromCodePoint(code);
  return code <= 0xffff ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

const ASCII: Characters = [[0, 0x7f]];
const BEYOND = without(ALL, ASCII);
/** Characters beyond ASCII that are written out. */
const MOST_BEYOND = 256;

const size = (set: Characters): number => set.reduce((sum, [first, last]) => sum + last - first + 1, 0);
const range = ([first, last]: readonly [number, number]): string =>
  first === last ? escaped(first) : `${escaped(first)}-${escaped(last)}`;

/**
 * One character of a set that is not empty. Classes of the library are right for ASCII alone, and where they are negated, for
 * all else together; so others are written out, and undefined is the answer where they are too many.
 */
export function ebnfCharacter(set: Characters): string | undefined {
  const beyond = common(set, BEYOND);
  if (size(beyond) === size(BEYOND)) {
    const missing = without(ASCII, set);
    return missing.length === 0 ? '([^a] | "a")' : `[^${missing.map(range).join('')}]`;
  }
  if (size(beyond) > MOST_BEYOND) return undefined;
  const parts: string[] = [];
  const ascii = common(set, ASCII);
  if (ascii.length > 0) parts.push(`[${ascii.map(range).join('')}]`);
  for (const [first, last] of beyond) {
    for (let code = first; code <= last; code++) parts.push(ebnfString(String.fromCodePoint(code)));
  }
  return parts.length === 1 ? parts[0] : `(${parts.join(' | ')})`;
}

/** A string of EBNF. */
export function ebnfString(text: string): string {
  return `"${Array.from(text, (c) => escaped(c.codePointAt(0) ?? 0)).join('')}"`;
}
