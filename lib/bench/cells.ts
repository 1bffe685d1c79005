/** What the tables of reports are made of: text cells, for the terminal and for HTML alike. */
import type { Spread } from './statistics.js';

export interface Table {
  title: string;
  head: string[];
  rows: string[][];
  /** What to know when reading it. */
  note?: string;
}

export const spread = ({ median, low, high }: Spread, digits: number): string =>
  low === high ? median.toFixed(digits) : `${median.toFixed(digits)} (${low.toFixed(digits)}-${high.toFixed(digits)})`;
export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
