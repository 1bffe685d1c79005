import { readFile } from 'node:fs/promises';

import { Option, type Command } from 'commander';

import { invalid, RedrafterError } from '../errors.js';
import type { Generation, GenerationResult } from '../generation.js';
import type { Grammar } from '../grammar/options.js';
import type { Model } from '../model.js';
import type { Session, SessionInput } from '../session.js';
import { biasList, bigInteger, decimal, idList, integer } from './numbers.js';
import { EXIT, interruptSignal } from './output.js';
import {
  addBeamFlags,
  addCapacityFlags,
  addDeviceFlags,
  contextPolicyFlag,
  defined,
  loadModel,
  type BeamFlags,
  type CapacityFlags,
  type ContextFlags,
  type DeviceFlags,
} from './shared.js';
import { summary, TokenPrinter } from './stream.js';

interface ControlFlags {
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  logitBias?: Map<number, number>;
  ban?: number[];
  minTokens: number;
  jsonSchema?: string;
  grammar?: string;
}

interface Flags extends DeviceFlags, CapacityFlags, BeamFlags, ControlFlags, ContextFlags {
  model: string;
  drafter: string;
  prompt?: string;
  promptIds?: number[];
  chat?: boolean;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  seed?: bigint;
  ignoreEos?: boolean;
  logprobs?: number;
  json?: boolean;
}

function flag<T>(flags: string, text: string, parse: (value: string) => T, fallback?: T): Option {
  const option = new Option(flags, text).argParser(parse);
  return fallback === undefined ? option : option.default(fallback);
}

export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .description('continue a prompt; the output does not depend on the drafter, which only makes it faster')
    .requiredOption('--model <dir>', 'model directory: config.json, safetensors, tokenizer.json')
    .option('--drafter <dir>', 'drafter directory, or none', 'none')
    .option('--prompt <text>', 'text to continue, taken as it is')
    .addOption(flag('--prompt-ids <ids>', 'token ids to continue, such as 1,2,3', idList('--prompt-ids')))
    .option('--chat', "put the prompt through the model's chat template as a user message")
    .addOption(flag('--max-tokens <tokens>', 'most tokens to generate', integer('--max-tokens'), 256))
    .addOption(flag('--temperature <t>', '0 to 100; 0 takes the most probable token', decimal('--temperature'), 0))
    .addOption(flag('--top-k <k>', 'sample among the k most probable tokens; 0 for all', integer('--top-k'), 0))
    .addOption(flag('--top-p <p>', 'sample within this probability mass, above 0 to 1', decimal('--top-p'), 1))
    .addOption(flag('--min-p <p>', 'drop tokens below this fraction of the best, 0 to below 1', decimal('--min-p'), 0))
    .addOption(flag('--seed <n>', 'seed of sampling, 0 to 2^64-1 (default: random)', bigInteger('--seed')));
  addCapacityFlags(addDeviceFlags(addBeamFlags(addControlFlags(command))))
    .addOption(contextPolicyFlag())
    .option('--ignore-eos', 'go on after an end-of-sequence token')
    .addOption(
      flag('--logprobs <k>', 'log-probabilities of the tokens and of the top k, 0 to 64', integer('--logprobs')),
    )
    .option('--json', 'print one JSON object at the end in the place of text')
    .action(async (flags: Flags) => {
      await generate(flags);
    });
}

function addControlFlags(command: Command): Command {
  const numeric = (flags: string, text: string, fallback: number): Option =>
    flag(flags, text, decimal(flags.split(' ')[0] ?? flags), fallback);
  return command
    .addOption(numeric('--repetition-penalty <p>', 'make tokens of the text less probable, 0.01 to 100', 1))
    .addOption(numeric('--presence-penalty <p>', 'subtract from logits of generated tokens, -2 to 2', 0))
    .addOption(numeric('--frequency-penalty <p>', 'subtract for each time a token was generated, -2 to 2', 0))
    .addOption(flag('--logit-bias <biases>', 'add to logits, such as 17=-2.5,3=100', biasList('--logit-bias')))
    .addOption(flag('--ban <ids>', 'token ids that are never chosen, such as 1,2,3', idList('--ban')))
    .option('--json-schema <file>', 'generate JSON that the schema in this file allows')
    .option('--grammar <file>', 'generate text that follows the rule root of the EBNF in this file')
    .addOption(flag('--min-tokens <tokens>', 'tokens before the text may end by a token', integer('--min-tokens'), 0));
}

function inputOf(flags: Flags): SessionInput {
  const { prompt, promptIds } = flags;
  if (promptIds !== undefined && prompt === undefined) {
    if (flags.chat === true) throw invalid('--chat needs --prompt');
    return promptIds;
  }
  if (prompt === undefined || promptIds !== undefined) throw invalid('give either --prompt or --prompt-ids');
  return flags.chat === true ? [{ role: 'user', content: prompt }] : prompt;
}

async function grammarOf({ jsonSchema, grammar }: ControlFlags): Promise<Grammar | undefined> {
  if (jsonSchema !== undefined && grammar !== undefined) throw invalid('give either --json-schema or --grammar');
  const file = jsonSchema ?? grammar;
  if (file === undefined) return undefined;
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new RedrafterError('ERR_FILE', `cannot read ${file}`, { cause });
  });
  if (grammar !== undefined) return { type: 'ebnf', grammar: text };
  try {
    return { type: 'json_schema', schema: JSON.parse(text) as object };
  } catch (cause) {
    throw new RedrafterError('ERR_GRAMMAR', `${file} is not JSON`, { cause });
  }
}

async function generate(flags: Flags): Promise<void> {
  const input = inputOf(flags);
  const grammar = await grammarOf(flags);
  const signal = interruptSignal();
  const model = await loadModel(flags.model, flags.drafter === 'none' ? false : flags.drafter, flags, signal);
  try {
    const session = await model.createSession();
    const { maxTokens, temperature, topK, topP, minP, seed, beamWidth, beamLength, ignoreEos, logprobs } = flags;
    const {
      repetitionPenalty,
      presencePenalty,
      frequencyPenalty,
      logitBias,
      ban: bannedTokenIds,
      minTokens,
      contextPolicy,
    } = flags;
    const run = session.generate(
      input,
      defined({
        ...{ maxTokens, temperature, topK, topP, minP, seed, beamWidth, beamLength, ignoreEos, logprobs },
        ...{
          repetitionPenalty,
          presencePenalty,
          frequencyPenalty,
          logitBias,
          bannedTokenIds,
          minTokens,
          grammar,
          contextPolicy,
        },
      }),
    );
    signal.addEventListener('abort', () => {
      run.abort();
    });
    if (flags.json === true) printJson(await run.result());
    else await streamText(model, session, run, temperature > 0 && seed === undefined);
    if (signal.aborted) process.exitCode = EXIT.interrupted;
  } finally {
    await model.dispose();
  }
}

function printJson(result: GenerationResult): void {
  const { tokenIds, text, finishReason, logprobs, stats } = result;
  // JSON.stringify leaves out `logprobs` when they were not asked for.
  process.stdout.write(`${JSON.stringify({ tokenIds, text, finishReason, logprobs, stats })}\n`);
}

async function streamText(model: Model, session: Session, run: Generation, tellSeed: boolean): Promise<void> {
  const printer = new TokenPrinter(model.tokenizer?.detokenizer(session.tokenIds.at(-1)));
  for await (const chunk of run) printer.chunk(chunk);
  printer.end();
  const { stats, seed } = await run.result();
  if (tellSeed) process.stderr.write(`seed ${seed}\n`);
  process.stderr.write(`${summary(stats)}\n`);
}
