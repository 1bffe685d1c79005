import { describe, expect, it } from 'vitest';

import { StopMatcher } from '../../lib/stop.js';
import { Random } from '../kit/random.js';

/** Pushes pieces; returns the text given out, whether it stopped, and after how many pieces. */
function run(stops: string[], pieces: string[]): { text: string; stopped: boolean; pieces: number } {
  const matcher = new StopMatcher(stops);
  let text = '';
  for (const [i, piece] of pieces.entries()) {
    const step = matcher.push(piece);
    text += step.text;
    if (step.stopped) return { text, stopped: true, pieces: i + 1 };
  }
  return { text: text + matcher.flush(), stopped: false, pieces: pieces.length };
}

/** The definition: the stop string that is completed first, the longest of those that end at one character. */
function reference(stops: string[], text: string): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const hits = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (hits.length > 0) return { text: text.slice(0, end - Math.max(...hits)), stopped: true };
  }
  return { text, stopped: false };
}

describe('StopMatcher', () => {
  it('passes text through without stop strings', () => {
    expect(run([], ['a', '', 'b'])).toEqual({ text: 'ab', stopped: false, pieces: 3 });
  });

  it('finds a stop string across pieces and cuts before it', () => {
    expect(run(['STOP'], ['abcS', 'T', 'OPdef'])).toEqual({ text: 'abc', stopped: true, pieces: 3 });
    expect(run(['\n\n'], ['a\n', '\nb'])).toEqual({ text: 'a', stopped: true, pieces: 2 });
  });

  it('holds back only what may begin a stop string, and gives it out when it does not', () => {
    const matcher = new StopMatcher(['abcd']);
    expect(matcher.push('xab')).toEqual({ text: 'x', stopped: false });
    expect(matcher.push('c')).toEqual({ text: '', stopped: false });
    expect(matcher.push('')).toEqual({ text: '', stopped: false });
    expect(matcher.push('x')).toEqual({ text: 'abcx', stopped: false });
    expect(matcher.push('ab')).toEqual({ text: '', stopped: false });
    expect(matcher.flush()).toBe('ab');
  });

  it('finds overlapping and self-repeating patterns', () => {
    expect(run(['aab'], ['aa', 'ab'])).toMatchObject({ text: 'a', stopped: true });
    expect(run(['abab', 'b'], ['a', 'b'])).toMatchObject({ text: 'a', stopped: true });
    expect(run(['bc', 'abc'], ['xa', 'bc'])).toMatchObject({ text: 'x', stopped: true });
    expect(run(['abcde', 'cd'], ['abcde'])).toMatchObject({ text: 'ab', stopped: true });
  });

  it('never splits a surrogate pair', () => {
    expect(run(['😀!'], ['a😀', '?'])).toMatchObject({ text: 'a😀?', stopped: false });
    expect(run(['😀!'], ['a😀', '!'])).toMatchObject({ text: 'a', stopped: true });
    const matcher = new StopMatcher(['😀!']);
    expect(matcher.push('a😀').text).toBe('a');
  });

  it('equals its definition on random strings, however they are cut', () => {
    const random = new Random(1);
    const word = (least: number, most: number): string =>
      Array.from({ length: least + random.integer(0, most - least + 1) }, () => 'ab'[random.integer(0, 2)]).join('');
    let stopped = 0;
    for (let trial = 0; trial < 5000; trial++) {
      const stops = Array.from({ length: 1 + random.integer(0, 4) }, () => word(1, 6));
      const text = word(0, 24);
      const pieces: string[] = [];
      for (let at = 0; at < text.length;) {
        const size = random.integer(0, 5);
        pieces.push(text.slice(at, at + size));
        at += size;
      }
      const expected = reference(stops, text);
      const { text: got, stopped: hit } = run(stops, pieces);
      expect({ stops, text: got, stopped: hit }).toEqual({ stops, ...expected });
      if (hit) stopped++;
    }
    expect(stopped).toBeGreaterThan(1000);
    expect(stopped).toBeLessThan(5000);
  });

  it('takes linear time on a pattern that almost matches', () => {
    const stops = Array.from({ length: 64 }, (_, i) => `${'a'.repeat(1023)}${String.fromCharCode(98 + (i % 20))}`);
    const started = performance.now();
    expect(
      run(
        stops,
        Array.from({ length: 200 }, () => 'a'.repeat(100)),
      ).text,
    ).toHaveLength(20_000);
    expect(performance.now() - started).toBeLessThan(5000);
  });
});
