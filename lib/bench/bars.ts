/** What a run must clear. */
export interface Bar {
  /** What is looked at, with its unit. */
  name: string;
  value: number;
  /** What the value must be, in words. */
  goal: string;
  holds: boolean;
  /** How far the value is from the goal, in the unit of the value; 0 where it holds, null where there is no value. */
  missedBy: number | null;
}

function bar(name: string, value: number, goal: string, limit: number, holds: boolean): Bar {
  const distance = Number(Math.abs(value - limit).toPrecision(4));
  return { name, value, goal, holds, missedBy: holds ? 0 : Number.isFinite(distance) ? distance : null };
}

export const below = (name: string, value: number, limit: number): Bar =>
  bar(name, value, `below ${limit}`, limit, value < limit);

export const atMost = (name: string, value: number, limit: number): Bar =>
  bar(name, value, `at most ${limit}`, limit, value <= limit);

export const atLeast = (name: string, value: number, limit: number): Bar =>
  bar(name, value, `at least ${limit}`, limit, value >= limit);

export const equal = (name: string, value: number, wanted: number): Bar =>
  bar(name, value, `${wanted}`, wanted, value === wanted);
