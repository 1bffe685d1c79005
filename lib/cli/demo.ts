import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Option, type Command } from 'commander';

import { RedrafterError } from '../errors.js';
import type { GenerationResult } from '../generation.js';
import type { Model } from '../model.js';
import { packageRoot } from '../package-root.js';
import { integer } from './numbers.js';
import { EXIT, interruptSignal, paint, printable, table } from './output.js';
import { addBeamFlags, addDeviceFlags, contextPolicyFlag, defined, loadModel } from './shared.js';
import type { BeamFlags, ContextFlags, DeviceFlags } from './shared.js';
import { TokenPrinter } from './stream.js';

interface Flags extends DeviceFlags, BeamFlags, ContextFlags {
  drafter: 'gru' | 'elman';
  prompts: number;
  maxTokens: number;
}

interface Prompt {
  name: string;
  text: string;
}

/** Outcome of one prompt, decoded both ways. */
interface Pair {
  name: string;
  plain: GenerationResult;
  drafted: GenerationResult;
}

const MODEL = join(packageRoot, 'models/ts-declarations/');

export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .description('complete held-out prompts with the bundled model, drafting on and off, and compare')
    .addOption(new Option('--drafter <cell>', 'which bundled drafter').choices(['gru', 'elman']).default('gru'))
    .addOption(new Option('--prompts <count>', 'how many prompts').argParser(integer('--prompts')).default(3))
    .addOption(
      new Option('--max-tokens <tokens>', 'tokens per completion').argParser(integer('--max-tokens')).default(160),
    );
  addDeviceFlags(addBeamFlags(command))
    .addOption(contextPolicyFlag())
    .action(async (flags: Flags) => {
      await demo(flags);
    });
}

/** `count` prompts spread evenly over the file, which is ordered by source. */
async function readPrompts(count: number): Promise<Prompt[]> {
  const path = `${MODEL}prompts.json`;
  try {
    const all = JSON.parse(await readFile(path, 'utf8')) as Prompt[];
    const chosen = new Set(Array.from({ length: count }, (_, i) => Math.floor((i * all.length) / count)));
    return all.filter((_, i) => chosen.has(i));
  } catch (error) {
    throw new RedrafterError('ERR_FILE', `cannot read ${path}`, { cause: error });
  }
}

async function demo(flags: Flags): Promise<void> {
  const signal = interruptSignal();
  const prompts = await readPrompts(Math.max(flags.prompts, 1));
  const model = await loadModel(MODEL, `${MODEL}drafter-${flags.drafter}`, flags, signal);
  try {
    const { device, level, threads, dtype, drafter } = model.info;
    process.stdout.write(
      `ts-declarations (${dtype}) with drafter-${flags.drafter} (${drafter?.dtype ?? 'none'}), ${shapeOf(flags)}, ` +
        `on ${device} ${level}, ${threads} threads. ${paint.green('Green')} is drafted and accepted.\n`,
    );
    const pairs: Pair[] = [];
    for (const prompt of prompts) pairs.push(await complete(model, prompt, flags, signal));
    process.stdout.write(`\n${results(pairs)}\n`);
    report(pairs);
  } finally {
    await model.dispose();
  }
}

function shapeOf({ beamWidth, beamLength }: Flags): string {
  if (beamWidth === undefined && beamLength === undefined) return 'beams chosen for each round';
  return `beam ${beamWidth ?? 1} x ${beamLength ?? 4}`;
}

async function complete(model: Model, prompt: Prompt, flags: Flags, signal: AbortSignal): Promise<Pair> {
  const { maxTokens, beamWidth, beamLength, contextPolicy } = flags;
  const options = { maxTokens, ...defined({ contextPolicy }), signal };
  process.stdout.write(`\n${paint.bold(prompt.name)}\n${paint.dim(printable(prompt.text))}`);
  const session = await model.createSession();
  const run = session.generate(prompt.text, { ...options, ...defined({ beamWidth, beamLength }) });
  const printer = new TokenPrinter(model.tokenizer?.detokenizer(session.tokenIds.at(-1)));
  for await (const chunk of run) printer.chunk(chunk);
  printer.end();
  const drafted = await run.result();
  await session.rewind(0);
  const plain = await session.generate(prompt.text, { ...options, drafting: false }).result();
  await session.dispose();
  return { name: prompt.name, plain, drafted };
}

function results(pairs: readonly Pair[]): string {
  const row = (name: string, step: number, plain: number, drafted: number): string[] => [
    name,
    step.toFixed(2),
    plain.toFixed(1),
    drafted.toFixed(1),
    `${(drafted / plain).toFixed(2)} x`,
  ];
  const rows = pairs.map(({ name, plain: { stats: p }, drafted: { stats: d } }) =>
    row(name, d.tokensPerStep, p.tokensPerSecond, d.tokensPerSecond),
  );
  return table([['prompt', 'tokens/step', 'plain tokens/s', 'drafted tokens/s', 'gain'], ...rows, total(pairs, row)]);
}

/** All prompts together: tokens over rounds and tokens over time. */
function total(
  pairs: readonly Pair[],
  row: (name: string, step: number, plain: number, drafted: number) => string[],
): string[] {
  const sum = (value: (pair: Pair) => number): number => pairs.reduce((all, pair) => all + value(pair), 0);
  const tokens = sum(({ drafted }) => Math.max(drafted.stats.tokens - 1, 0));
  const seconds = (of: (pair: Pair) => GenerationResult): number =>
    sum((pair) => of(pair).stats.totalMs - of(pair).stats.prefillMs) / 1000;
  return row(
    'all',
    tokens / sum(({ drafted }) => drafted.stats.rounds),
    tokens / seconds(({ plain }) => plain),
    tokens / seconds(({ drafted }) => drafted),
  );
}

function report(pairs: readonly Pair[]): void {
  const wrong = pairs.filter(({ plain, drafted }) => plain.tokenIds.join() !== drafted.tokenIds.join());
  const count = pairs.reduce((all, { drafted }) => all + drafted.tokenIds.length, 0);
  if (wrong.length === 0) {
    process.stdout.write(`All ${count} token ids are equal with drafting on and off.\n`);
    return;
  }
  process.stderr.write(
    `error [ERR_INTERNAL]: drafting changed the output of ${wrong.map(({ name }) => name).join(', ')}\n`,
  );
  process.exitCode = EXIT.failure;
}
