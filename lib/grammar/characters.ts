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

/** A class of EBNF; the set must not be empty. */
export function ebnfClass(set: Characters): string {
  return `[${set.map(([a, b]) => (a === b ? escaped(a) : `${escaped(a)}-${escaped(b)}`)).join('')}]`;
}

/** A string of EBNF. */
export function ebnfString(text: string): string {
  return `"${Array.from(text, (c) => escaped(c.codePointAt(0) ?? 0)).join('')}"`;
}
