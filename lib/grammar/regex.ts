import { RedrafterError } from '../errors.js';
import { ALL, characters, LAST, charactersOf, type Characters, common, union, without } from './characters.js';

/** A regular expression without what only some texts have: look-around, references, borders of words. */
export type Regex =
  | { kind: 'set'; set: Characters }
  | { kind: 'sequence'; parts: Regex[] }
  | { kind: 'choice'; parts: Regex[] }
  | { kind: 'repeat'; part: Regex; least: number; most: number };

export interface ParsedRegex {
  regex: Regex;
  /** Whether `^` and `$` stood at the ends. */
  fromStart: boolean;
  toEnd: boolean;
}

/** Repetitions are written out by whoever makes a matcher of them. */
export const MOST_REPEATS = 1000;
const MOST_DEPTH = 100;

const DIGITS = charactersOf('0123456789');
const WORD = characters([0x30, 0x39], [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]);
// As for borders of lines and \w, of ASCII alone.
const SPACE = characters([9, 13], [0x20, 0x20]);
const LINE_ENDS = characters([10, 10], [13, 13]);
const CLASSES: Record<string, Characters> = {
  ...{ d: DIGITS, w: WORD, s: SPACE },
  ...{ D: without(ALL, DIGITS), W: without(ALL, WORD), S: without(ALL, SPACE) },
};
const CONTROLS: Record<string, number> = { n: 10, r: 13, t: 9, f: 12, v: 11, '0': 0 };

/** Parses the syntax of JavaScript with the flag `u`. */
class Parser {
  private readonly units: string[];
  private at = 0;
  private depth = 0;

  constructor(private readonly pattern: string) {
    this.units = Array.from(pattern);
  }

  parse(): ParsedRegex {
    const fromStart = this.skip('^');
    const toEnd = this.units[this.units.length - 1] === '$' && !this.isEscaped(this.units.length - 1);
    if (toEnd) this.units.pop();
    const top = this.choice();
    if (this.at < this.units.length) this.fail(`unexpected ${this.units[this.at] ?? ''}`);
    // `^a|b$` is `(^a)|(b$)`: what stands at the ends would speak of one choice only.
    if ((fromStart || toEnd) && top.kind === 'choice') this.fail('put ^ and $ around a group: ^(?:a|b)$');
    return { regex: top, fromStart, toEnd };
  }

  private fail(why: string): never {
    throw new RedrafterError(
      'ERR_GRAMMAR',
      `the regular expression ${JSON.stringify(this.pattern)} at ${this.at}: ${why}`,
    );
  }

  /** Whether an odd number of backslashes stands before. */
  private isEscaped(index: number): boolean {
    let count = 0;
    while (this.units[index - 1 - count] === '\\') count++;
    return count % 2 === 1;
  }

  private skip(text: string): boolean {
    const found = Array.from(text).every((unit, i) => this.units[this.at + i] === unit);
    if (found) this.at += Array.from(text).length;
    return found;
  }

  private choice(): Regex {
    if (++this.depth > MOST_DEPTH) this.fail('too many groups inside of groups');
    const parts = [this.sequence()];
    while (this.skip('|')) parts.push(this.sequence());
    this.depth--;
    return parts.length === 1 ? (parts[0] as Regex) : { kind: 'choice', parts };
  }

  private sequence(): Regex {
    const parts: Regex[] = [];
    for (;;) {
      const unit = this.units[this.at];
      if (unit === undefined || unit === '|' || unit === ')') return { kind: 'sequence', parts };
      parts.push(this.repeated(this.atom()));
    }
  }

  private repeated(part: Regex): Regex {
    let result = part;
    const bounds = this.bounds();
    if (bounds === undefined) return result;
    const [least, most] = bounds;
    if (least > most) this.fail('a repetition whose bounds are the wrong way round');
    if (Math.max(least, most === Infinity ? 0 : most) > MOST_REPEATS)
      this.fail(`more than ${MOST_REPEATS} repetitions`);
    result = { kind: 'repeat', part: result, least, most };
    this.skip('?'); // lazy: which texts match does not depend on it
    if (this.bounds() !== undefined) this.fail('nothing to repeat');
    return result;
  }

  private bounds(): [number, number] | undefined {
    if (this.skip('*')) return [0, Infinity];
    if (this.skip('+')) return [1, Infinity];
    if (this.skip('?')) return [0, 1];
    if (this.units[this.at] !== '{') return undefined;
    const found = /^\{(\d{1,6})(,(\d{0,6}))?\}/.exec(this.units.slice(this.at, this.at + 20).join(''));
    if (found === null) this.fail('{ must be written \\{ or begin a repetition');
    this.at += found[0].length;
    const least = Number(found[1]);
    if (found[2] === undefined) return [least, least];
    return [least, found[3] === '' || found[3] === undefined ? Infinity : Number(found[3])];
  }

  private atom(): Regex {
    const unit = this.units[this.at] ?? '';
    if (unit === '(') return this.group();
    if (unit === '[') return { kind: 'set', set: this.setOf() };
    this.at++;
    if (unit === '.') return { kind: 'set', set: without(ALL, LINE_ENDS) };
    if (unit === '\\') return { kind: 'set', set: this.escape(false) };
    if (unit === '^' || unit === '$') this.fail(`${unit} may stand at the ends only`);
    if ('*+?{}]'.includes(unit)) this.fail(`${unit} must be written \\${unit} here`);
    return { kind: 'set', set: charactersOf(unit) };
  }

  private group(): Regex {
    this.at++;
    if (this.units[this.at] === '?' && !this.skip('?:')) {
      const name = /^\?<[A-Za-z_]\w*>/.exec(this.units.slice(this.at, this.at + 60).join(''));
      if (name === null) this.fail('look-around and flags are not supported');
      this.at += name[0].length;
    }
    const inner = this.choice();
    if (!this.skip(')')) this.fail('a group is not closed');
    return inner;
  }

  /** After a backslash. */
  private escape(inSet: boolean): Characters {
    const unit = this.units[this.at++] ?? this.fail('a backslash at the end');
    const set = CLASSES[unit];
    if (set !== undefined) return set;
    const control = CONTROLS[unit] ?? (inSet && unit === 'b' ? 8 : undefined);
    if (control !== undefined) return characters([control, control]);
    const rest = this.units.slice(this.at, this.at + 10).join('');
    const code = unit === 'x' ? /^([0-9a-f]{2})/i.exec(rest) : unit === 'u' ? /^(?:([0-9a-f]{4})|\{([0-9a-f]{1,6})\})/i.exec(rest) : null; // prettier-ignore
    if (code !== null) {
      this.at += code[0].length;
      const value = parseInt(code[1] ?? code[2] ?? '', 16);
      if ((value >= 0xd800 && value <= 0xdfff) || value > LAST) this.fail('a surrogate, or no code point');
      return characters([value, value]);
    }
    if (/[A-Za-z0-9]/.test(unit)) this.fail(`\\${unit} is not supported`);
    return charactersOf(unit);
  }

  private setOf(): Characters {
    this.at++;
    const negated = this.skip('^');
    const sets: Characters[] = [];
    while (!this.skip(']')) {
      const first = this.member();
      if (this.units[this.at] === '-' && this.units[this.at + 1] !== ']') {
        this.at++;
        const last = this.member();
        const [from, to] = [first[0]?.[0] ?? 0, last[0]?.[0] ?? 0];
        const single = [first, last].every((set) => set.length === 1 && set[0]?.[0] === set[0]?.[1]);
        if (!single || from > to) this.fail('a range whose ends are no characters in order');
        sets.push(common(characters([from, to]), ALL));
      } else sets.push(first);
    }
    const set = negated ? without(ALL, union(...sets)) : union(...sets);
    if (set.length === 0) this.fail('a class without characters');
    return set;
  }

  private member(): Characters {
    const unit = this.units[this.at++] ?? this.fail('a class is not closed');
    return unit === '\\' ? this.escape(true) : charactersOf(unit);
  }
}

/** Throws ERR_GRAMMAR with the place of what is wrong or not supported. */
export function parseRegex(pattern: string): ParsedRegex {
  return new Parser(pattern).parse();
}

/** `set` writes a set of characters that is not empty, or gives undefined where it cannot. Throws ERR_GRAMMAR then. */
export function regexToEbnf(regex: Regex, set: (characters: Characters) => string | undefined): string {
  switch (regex.kind) {
    case 'set': {
      const written = set(regex.set);
      if (written !== undefined) return written;
      throw new RedrafterError('ERR_GRAMMAR', 'a class of a regular expression has some of the characters beyond ASCII, and too many to write out; all or none can be had'); // prettier-ignore
    }
    case 'sequence':
      return regex.parts.length === 0 ? '""' : `(${regex.parts.map((part) => regexToEbnf(part, set)).join(' ')})`;
    case 'choice':
      return `(${regex.parts.map((part) => regexToEbnf(part, set)).join(' | ')})`;
    case 'repeat':
      return repeated(regexToEbnf(regex.part, set), regex.least, regex.most);
  }
}

/** A part, `least` to `most` times. */
export function repeated(part: string, least: number, most: number): string {
  if (most === 0) return '""';
  if (least === 1 && most === 1) return part;
  if (most === Infinity)
    return least === 0 ? `(${part})*` : least === 1 ? `(${part})+` : `((${part}){${least}} (${part})*)`;
  if (least === 0 && most === 1) return `(${part})?`;
  return least === most ? `(${part}){${least}}` : `(${part}){${least},${most}}`;
}
