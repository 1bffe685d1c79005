import { isatty } from 'node:tty';

import pc from 'picocolors';

import { fromThrown, RedrafterError } from '../errors.js';

/** Ends the process after output is written. Ctrl-C: 130, as shells expect. */
export const EXIT = { failure: 1, interrupted: 130 } as const;

const { FORCE_COLOR = '', NO_COLOR = '', TERM } = process.env;

/** Colours for standard output: on a terminal that has them, or with FORCE_COLOR; never with NO_COLOR. */
export const paint = pc.createColors(
  // Not left to the library, which also colours what is piped where CI is set.
  NO_COLOR === '' && (!['', '0'].includes(FORCE_COLOR) || (isatty(1) && TERM !== 'dumb')),
);

/** Prints an error in the form that scripts depend on, and what to do about it on a line of its own. */
export function printError(thrown: unknown): void {
  const error = fromThrown(thrown);
  const message = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
  process.stderr.write(`error [${error.code}]: ${message}\n`);
  process.stderr.write(`  ${error.remedy}\n`);
}

/** Control characters other than tab and newline, which could move the cursor or change the terminal. */
// eslint-disable-next-line no-control-regex -- finding them is the point
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Text for a terminal: what a model writes must not act on it. */
export function printable(text: string): string {
  return process.stdout.isTTY ? text.replaceAll(CONTROL, '\uFFFD') : text;
}

/** Rows with columns padded to the same width; numbers (all but the first column) are right-aligned. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  const pad = (cell: string, i: number): string =>
    i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
  return rows.map((row) => row.map(pad).join('  ').trimEnd() + '\n').join('');
}

/** 1234567 as "1.2 MB". */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** An AbortSignal that fires at the first Ctrl-C; the second one ends the process at once. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  process.on('SIGINT', () => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new RedrafterError('ERR_ABORTED', 'interrupted'));
  });
  return controller.signal;
}

/** Shows loading progress on a terminal; the line is removed when done. */
export function progressLine(what: string): { update: (fraction: number) => void; done: () => void } {
  if (!process.stderr.isTTY) return { update: () => undefined, done: () => undefined };
  return {
    update: (fraction) => process.stderr.write(`\r${what} ${String(Math.floor(fraction * 100)).padStart(3)} %`),
    done: () => process.stderr.write('\r\x1b[K'),
  };
}
