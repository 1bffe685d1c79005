// The command line of index.mjs.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

import { Command } from 'commander';

import { htmlReport } from '../../dist/bench/html.js';
import { asBenchReport } from '../../dist/bench/peers-report.js';
import { benchText } from '../../dist/cli/bench-text.js';
import { decimal, listOf, whole, wholes } from '../parsing.mjs';
import { barsOf } from './bars.mjs';
import { CASES } from './cases.mjs';
import { DTYPES } from './gguf/file.mjs';
import { runPeers } from './index.mjs';
import { merged } from './merge.mjs';

/** @typedef {import('../../lib/bench/peers-report.js').PeersReport} Report */

const command = new Command('peers')
  .description(
    'redrafter beside node-llama-cpp (llama.cpp) on the same weights, prompts and threads; tables, one JSON file, bars ' +
      '(exit code 1: one does not hold)',
  )
  .option('--model <dir>', 'model directory, Llama or Mistral (default: the bundled one)')
  .option('--drafter <dir>', 'drafter directory (default: drafter-gru in that of the model)')
  .option(
    '--weights-gb <n>',
    'widens both until the weights, as a dtype stores them, are so many GB (default: 1 with the bundled model)',
    decimal,
  ) // prettier-ignore
  .option('--factor <n>', 'widens both by this instead, to about n^2 weights', whole)
  .option('--dtypes <list>', `of ${Object.keys(DTYPES).join(',')} (default: bf16,q8_0)`, listOf(Object.keys(DTYPES)))
  .option('--only <list>', `of ${CASES.join(',')} (default: all)`, listOf(CASES))
  .option('--threads <n>', 'of each engine (default: one per processor)', whole)
  .option('--peer-threads <list>', 'tries the peer with each of these (default: --threads, and 1)', wholes)
  .option('--prompts <file>', 'JSON array of { text } (default: prompts.json of the model, or else of the bundled one)')
  .option('--count <n>', 'prompts taken from it (default: 4, quick: 2)', whole)
  .option('--tokens <n>', 'to decode after each prompt (default: 48, quick: 32)', whole)
  .option('--ids-tokens <n>', 'the same where ids are compared (default: 256, quick: 64)', whole)
  .option('--turns <n>', 'trials of each way, each in a process of its own (default: 3, quick: 1)', whole)
  .option('--batches <list>', 'sequences at once (default: 2,4,8,16,32)', wholes)
  .option('--quick', 'a rough run')
  .option('--work <dir>', 'keeps the files of the models for another run (default: a temporary folder)')
  .option('--json <file>', 'writes the report, after each case')
  .option('--merge', 'adds to the report that is in --json: what was measured again is replaced')
  .option('--html <file>', 'writes a page with charts');

/** @typedef {import('./settings.mjs').Options & { json?: string, merge?: true, html?: string }} Flags */
const { json, merge, html, ...options } = /** @type {Flags} */ (command.parse().opts());
if (merge === true && json === undefined) command.error('error: --merge needs --json');

/** @param {string} line */
const tell = (line) => process.stderr.write(`${line}\n`);

/** @type {unknown} */
const before = merge === true && json !== undefined && existsSync(json) ? JSON.parse(readFileSync(json, 'utf8')) : undefined; // prettier-ignore

/** With what was there before. @param {Report} fresh */
function joined(fresh) {
  const report = before === undefined ? fresh : merged(before, fresh);
  return { ...report, bars: barsOf(report) };
}

/** @param {Report} fresh what was measured up to now */
function save(fresh) {
  const report = joined(fresh);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, undefined, 1)}\n`);
  if (html !== undefined) writeFileSync(html, htmlReport(asBenchReport(report)));
  return report;
}

try {
  const report = save(await runPeers({ ...options, tell, save }));
  process.stdout.write(benchText(asBenchReport(report)));
  process.exitCode = report.bars.every(({ holds }) => holds) ? 0 : 1;
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
