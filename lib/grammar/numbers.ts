/** Decimal integers between bounds, as EBNF. */

/** Numbers have no more digits than this, so that each is what a double says exactly. */
export const MOST_DIGITS = 15;
export const LARGEST = 10 ** MOST_DIGITS - 1;

const digits = (low: string, high: string): string => (low === high ? `"${low}"` : `[${low}-${high}]`);
const any = (count: number): string => (count === 0 ? '' : ` [0-9]{${count}}`);

/** Texts of as many digits as both bounds have. */
function between(low: string, high: string): string {
  const rest = low.length - 1;
  const [a, b] = [low.charAt(0), high.charAt(0)];
  if (rest === 0) return digits(a, b);
  const [zeros, nines] = ['0'.repeat(rest), '9'.repeat(rest)];
  if (a === b) {
    const full = low.slice(1) === zeros && high.slice(1) === nines;
    return full ? `${digits(a, a)}${any(rest)}` : `${digits(a, a)} (${between(low.slice(1), high.slice(1))})`;
  }
  const parts: string[] = [];
  let [from, to] = [Number(a), Number(b)];
  if (low.slice(1) !== zeros) {
    parts.push(`${digits(a, a)} (${between(low.slice(1), nines)})`);
    from++;
  }
  const last = high.slice(1) === nines ? undefined : `${digits(b, b)} (${between(zeros, high.slice(1))})`;
  if (last !== undefined) to--;
  if (from <= to) parts.push(`${digits(String(from), String(to))}${any(rest)}`);
  if (last !== undefined) parts.push(last);
  return parts.join(' | ');
}

/** Texts of the integers from `low` to `high`, both at least 0. */
function natural(low: number, high: number): string[] {
  const parts: string[] = [];
  for (let length = String(low).length; length <= String(high).length; length++) {
    const first = Math.max(low, length === 1 ? 0 : 10 ** (length - 1));
    parts.push(between(String(first), String(Math.min(high, 10 ** length - 1))));
  }
  return parts;
}

/** Texts of the integers from `low` to `high`, which are integers of at most MOST_DIGITS digits. */
export function integersBetween(low: number, high: number): string {
  const parts: string[] = [];
  if (low < 0) parts.push(...natural(Math.max(1, -high), -low).map((part) => `"-" (${part})`));
  if (high >= 0) parts.push(...natural(Math.max(0, low), high));
  return parts.join(' | ');
}
