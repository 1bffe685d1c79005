// The command line of load.mjs.
import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

import { Command, InvalidArgumentError, Option } from 'commander';

import { listOf, positive, whole } from '../parsing.mjs';

export const bundled = fileURLToPath(new URL('../../models/ts-declarations', import.meta.url));

/** @typedef {'adaptive' | 'fixed' | 'off'} Mode */
/** @type {readonly Mode[]} */
const MODES = ['adaptive', 'fixed', 'off'];

/** @param {string} text */
function shape(text) {
  const [, beamWidth = '', beamLength = ''] = /^([1-9]\d?)x([1-8])$/.exec(text) ?? [];
  if (beamWidth === '') throw new InvalidArgumentError('must be beams x tokens, as in 1x4.');
  return { beamWidth: Number(beamWidth), beamLength: Number(beamLength) };
}

const command = new Command('load')
  .description('throughput and latency under load; one JSON file, one table, bars (exit code 1: one does not hold)')
  .option('--model <dir>', 'model directory', bundled)
  .option('--drafter <dir>', 'drafter directory (default: drafter-gru in that of the model)')
  .option('--prompts <file>', 'JSON array of { text } (default: prompts.json of the model, or else of the bundled one)')
  .option(
    '--rates <list>',
    'requests per second, by commas (default: 0.25 to 2 times what plain decoding answers)',
    (text) => text.split(',').map(positive),
  ) // prettier-ignore
  .option('--requests <count>', 'requests at each rate and mode (default: as many as take 3 minutes in all)', whole)
  .option('--modes <list>', 'adaptive, fixed, off', listOf(MODES), MODES)
  .addOption(
    new Option('--shape <WxL>', 'beams and tokens of fixed drafting').argParser(shape).default(shape('1x4'), '1x4'),
  ) // prettier-ignore
  .option('--seed <number>', 'of arrivals, prompts, lengths and sampling', whole, 1)
  .option('--threads <count>', 'worker threads of the model', whole, availableParallelism())
  .option('--kv-tokens <tokens>', 'size of the KV cache, which bounds how many run at once', whole, 4096)
  .option('--max-queued <count>', 'requests that may wait; more are refused', whole, 32)
  .option(
    '--soak [requests]',
    'instead: so many tiny requests (10000), a fifth of them aborted; memory must stay flat',
    whole,
  ) // prettier-ignore
  .option('--json <file>', 'writes the figures')
  .option('--plot <file>', 'draws them as SVG; needs --json, and Python with matplotlib ($PYTHON, or python3)');

/**
 * @typedef {{ model: string, drafter?: string, prompts?: string, rates?: number[], requests?: number,
 *   modes: readonly Mode[], shape: { beamWidth: number, beamLength: number }, seed: number, threads: number,
 *   kvTokens: number, maxQueued: number, soak?: number | true, json?: string, plot?: string }} Flags
 */
export const flags = /** @type {Flags} */ (command.parse().opts());
export const python = process.env['PYTHON'] ?? 'python3';
if (flags.plot !== undefined) checkPlot();

/** Before minutes of measuring, not after. */
function checkPlot() {
  if (flags.json === undefined || flags.soak !== undefined) command.error('error: --plot needs --json and no --soak');
  try {
    execFileSync(python, ['-c', 'import matplotlib'], { stdio: 'ignore' });
  } catch {
    command.error(`error: ${python} has no matplotlib (Debian: python3-matplotlib, and PYTHON=/usr/bin/python3)`);
  }
}
