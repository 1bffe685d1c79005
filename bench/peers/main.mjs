// The command line of index.mjs.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

import { Command, InvalidArgumentError } from 'commander';

import { barTable } from '../e2e/report.mjs';
import { barsOf, casesTable, idsTable } from './bars.mjs';
import { CASES } from './cases.mjs';
import { DTYPES } from './gguf/file.mjs';
import { merged } from './merge.mjs';
import { runPeers } from './index.mjs';

/** @param {string} text */
function whole(text) {
  if (!/^\d{1,6}$/.test(text) || Number(text) === 0) throw new InvalidArgumentError('must be a whole number above 0.');
  return Number(text);
}

/** @param {readonly string[]} known */
const listOf = (known) => (/** @type {string} */ text) => {
  const all = text.split(',');
  if (!all.every((one) => known.includes(one))) throw new InvalidArgumentError(`must be of ${known.join(',')}.`);
  return known.filter((one) => all.includes(one));
};

const command = new Command('peers')
  .description(
    'redrafter beside node-llama-cpp (llama.cpp) on the same weights, prompts and threads; tables, one JSON file, bars (exit code 1: one does not hold)',
  )
  .option('--model <dir>', 'model directory, Llama or Mistral (default: the bundled one)')
  .option('--drafter <dir>', 'drafter directory (default: drafter-gru in that of the model)')
  .option('--factor <n>', 'widens both, to about n^2 weights (default: 5 with the bundled model, else 1)', whole)
  .option('--dtypes <list>', `of ${Object.keys(DTYPES).join(',')} (default: f32,bf16)`, listOf(Object.keys(DTYPES)))
  .option('--only <list>', `of ${CASES.join(',')} (default: all)`, listOf(CASES))
  .option('--threads <n>', 'of each engine (default: one per processor)', whole)
  .option('--peer-threads <list>', 'tries the peer with each of these (default: --threads)', (text) =>
    text.split(',').map(whole),
  )
  .option('--prompts <file>', 'JSON array of { text } (default: prompts.json of the model, or else of the bundled one)')
  .option('--count <n>', 'prompts taken from it (default: 4)', whole)
  .option('--tokens <n>', 'to decode after each prompt (default: 64)', whole)
  .option('--ids-tokens <n>', 'the same where ids are compared (default: 256)', whole)
  .option('--turns <n>', 'trials of each way, each in a process of its own (default: 3)', whole)
  .option('--batches <list>', 'sequences at once (default: 2,4,8,16,32)', (text) => text.split(',').map(whole))
  .option('--work <dir>', 'keeps the files of the models for another run (default: a temporary folder)')
  .option('--json <file>', 'writes the report')
  .option('--merge', 'adds to the report that is in --json: what was measured again is replaced');

/**
 * @typedef {import('./index.mjs').Options & { json?: string, merge?: true }} Flags
 */
const { json, merge, ...options } = /** @type {Flags} */ (command.parse().opts());
if (merge === true && json === undefined) command.error('error: --merge needs --json');

/** @param {string} line */
const tell = (line) => process.stderr.write(`${line}\n`);

try {
  const fresh = await runPeers({ ...options, tell });
  const report = merge === true && json !== undefined && existsSync(json) ? merged(JSON.parse(readFileSync(json, 'utf8')), fresh) : fresh; // prettier-ignore
  report.bars = barsOf(report);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, undefined, 1)}\n`);
  if (report.cases.length > 0) process.stdout.write(`${casesTable(report)}\n`);
  if (report.ids.length > 0) process.stdout.write(`${idsTable(report)}\n`);
  process.stdout.write(barTable(report.bars));
  process.exitCode = report.bars.every(({ holds }) => holds) ? 0 : 1;
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
