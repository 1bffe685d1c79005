import { writeFileSync } from 'node:fs';

import { Option, type Command } from 'commander';

import { htmlReport } from '../bench/html.js';
import { checkOptions, type Shape } from '../bench/options.js';
import { Progress } from '../bench/progress.js';
import { type SuiteName, SUITES } from '../bench/report.js';
import { runBench } from '../bench/run.js';
import { invalid, RedrafterError } from '../errors.js';
import { benchText } from './bench-text.js';
import { decimal, integer } from './numbers.js';
import { EXIT, interruptSignal } from './output.js';
import { addDeviceFlags, defined, type DeviceFlags } from './shared.js';

interface Flags extends DeviceFlags {
  suite?: string[];
  model?: string;
  drafter?: string[];
  prompts?: string[];
  beamShapes?: Shape[];
  widen?: number;
  quick?: boolean;
  tokens?: number;
  turns?: number;
  promptCount?: number;
  temperature?: number;
  json?: string;
  html?: string;
}

function count(flags: string, text: string): Option {
  return new Option(flags, text).argParser(integer(flags.split(' ')[0] ?? flags));
}

/** `1x4,4x4`: beams x tokens. */
function shapeList(text: string): Shape[] {
  return text.split(',').map((shape) => {
    const [, width, length] = /^(\d{1,3})x(\d{1,3})$/.exec(shape) ?? [];
    if (width === undefined || length === undefined) {
      throw invalid(`--beam-shapes must be beams x tokens by commas, as in 1x4,4x4, got ${JSON.stringify(shape)}`);
    }
    return { beamWidth: Number(width), beamLength: Number(length) };
  });
}

export function addBench(program: Command): void {
  const command = program
    .command('bench')
    .description(
      'measure drafters and this machine; see docs/performance.md. Exit code 1: a bar does not hold. Suites: ' +
        'e2e (plain, fixed shapes, adaptive), shapes (costs by shape, best shape), study (speed by cost and acceptance), ' +
        'ops (kernels), peers (other engines), all',
    )
    .argument('[suites...]', 'what to measure: e2e, shapes, study, ops, peers, or all (default: e2e)')
    .option('--suite <names...>', 'the same as an option')
    .option('--model <dir>', 'model directory (default: the bundled model)')
    .option('--drafter <dirs...>', 'drafter directories to compare (default: those of the bundled model)')
    .option(
      '--prompts <files...>',
      'JSON arrays of { "text" } or { "tokenIds" }, with "set" to tell kinds apart; else each file is a set',
    );
  addDeviceFlags(command)
    .addOption(new Option('--beam-shapes <list>', 'fixed shapes, beams x tokens, as in 1x4,4x4').argParser(shapeList))
    .addOption(count('--widen <k>', 'measure the model with its units replicated k times (1 to 64): the same function'))
    .addOption(count('--tokens <count>', 'tokens that each prompt is continued by (default: 128, quick: 24)'))
    .addOption(count('--turns <count>', 'trials of each way, each a process of its own (default: 5, quick: 1)'))
    .addOption(count('--prompt-count <count>', 'prompts of each set (default: 8, quick: 2)'))
    .addOption(
      new Option('--temperature <t>', '0 to 100 (default: 0; study: 0, 0.7 and 1)').argParser(decimal('--temperature')),
    )
    .option('--quick', 'a few seconds: whether everything works, not how fast it is')
    .option('--json <file>', 'also write the report as JSON')
    .option('--html <file>', 'also write it as one page with charts, which loads nothing')
    .action(bench);
}

function suitesOf(given: readonly string[], { suite = [] }: Flags): SuiteName[] | undefined {
  const names = [...given, ...suite].flatMap((name) => name.split(','));
  if (names.length === 0) return undefined;
  return names.includes('all') ? [...SUITES] : (names as SuiteName[]); // checkOptions looks at them
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new RedrafterError('ERR_FILE', `cannot write ${path}`, { cause });
  }
}

async function bench(given: string[], flags: Flags): Promise<void> {
  const { model, drafter: drafters, prompts, threads, beamShapes, widen, quick, tokens, turns, promptCount } = flags;
  const { temperature, dtype, drafterDtype, json, html } = flags;
  const device = flags.device as 'auto';
  const settings = checkOptions({
    ...defined({ suites: suitesOf(given, flags), model, drafters, prompts, threads, beamShapes, widen, quick, tokens }),
    ...defined({ turns, promptCount, temperature }),
    device,
    dtype,
    drafterDtype,
  });
  for (const path of [json, html]) if (path !== undefined) write(path, ''); // before minutes of measuring, not after
  const report = await runBench(settings, new Progress(process.stderr), interruptSignal());
  process.stdout.write(benchText(report));
  if (json !== undefined) write(json, `${JSON.stringify(report, undefined, 1)}\n`);
  if (html !== undefined) write(html, htmlReport(report));
  if (report.bars.some(({ holds }) => !holds)) process.exitCode = EXIT.failure;
}
