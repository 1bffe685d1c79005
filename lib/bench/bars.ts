/** What a run must clear. */
export interface Bar {
  /** What is looked at, with its unit. */
  name: string;
  value: number;
  /** What the value must be, in words. */
  goal: string;
  holds: boolean;
}

export const below = (name: string, value: number, limit: number): Bar => ({
  name,
  value,
  goal: `below ${limit}`,
  holds: value < limit,
});

export const atLeast = (name: string, value: number, limit: number): Bar => ({
  name,
  value,
  goal: `at least ${limit}`,
  holds: value >= limit,
});

export const equal = (name: string, value: number, wanted: number): Bar => ({
  name,
  value,
  goal: `${wanted}`,
  holds: value === wanted,
});
