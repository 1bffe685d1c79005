import { Option, type Command } from 'commander';

import { Model, type ModelInfo } from '../model.js';
import type { ContextPolicy, LoadOptions, MemoryOptions } from '../option-types.js';
import type { BackendReasonCode } from '../system.js';
import { progressLine } from './output.js';
import { byteCount, contextPolicy, integer } from './numbers.js';

/** Flags of commands that load a model. */
export interface DeviceFlags {
  device: string;
  dtype: NonNullable<MemoryOptions['dtype']>;
  drafterDtype: NonNullable<MemoryOptions['drafterDtype']>;
  threads?: number;
}

export function addDeviceFlags(command: Command): Command {
  return command
    .option('--device <device>', 'cpu, cuda, or auto: cuda if it works; a level can follow, as in cpu:avx2', 'auto')
    .addOption(
      new Option('--dtype <dtype>', 'element type of the weight matrices; auto keeps what is stored')
        .choices(['auto', 'f32', 'f16', 'bf16', 'q8_0', 'q4_0'])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--drafter-dtype <dtype>',
        'the same of the drafter, which does not change the output; auto is, with AVX2 or AVX-512, q4_0 beside a quantised model and q8_0 for one stored with 16 bits, if --dtype is not f32; else as --dtype',
      )
        .choices(['auto', 'f32', 'f16', 'bf16', 'q8_0', 'q4_0'])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--threads <count>',
        'worker threads of the CPU backend (default: chosen from the processor)',
      ).argParser(integer('--threads')),
    );
}

/** Flags of commands where the sizes of a load matter. */
export interface CapacityFlags {
  contextTokens?: number;
  kvTokens?: number;
  prefillChunk?: number;
  memoryBudget?: number;
}

export function addCapacityFlags(command: Command): Command {
  const flag = (name: string, text: string): Option => new Option(`${name} <tokens>`, text).argParser(integer(name));
  return command
    .addOption(flag('--context-tokens', "most tokens of one session (default: the model's limit, at most 4096)"))
    .addOption(flag('--kv-tokens', 'tokens the KV cache holds over all sessions (default: 4 x context tokens)'))
    .addOption(
      flag(
        '--prefill-chunk',
        'most prompt tokens in a forward pass, 1 to 4096; of all requests while any decodes (default: 256)',
      ),
    )
    .addOption(
      new Option(
        '--memory-budget <bytes>',
        'most memory the model may take in all, as in 4GiB; without --kv-tokens the KV cache is as large as fits',
      ).argParser(byteCount('--memory-budget')),
    );
}

/** The flags as options of `Model.load`. */
export function loadOptions(flags: DeviceFlags & CapacityFlags): MemoryOptions {
  const { dtype, drafterDtype, threads, contextTokens, kvTokens, prefillChunk } = flags;
  const { memoryBudget: memoryBudgetBytes } = flags;
  const device = flags.device as NonNullable<MemoryOptions['device']>;
  return {
    device,
    dtype,
    drafterDtype,
    ...defined({ threads, contextTokens, kvTokens, prefillChunk, memoryBudgetBytes }),
  };
}

/** Flags of the drafting shape. */
export interface BeamFlags {
  beamWidth?: number;
  beamLength?: number;
}

export function addBeamFlags(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--beam-width <beams>',
        'beams drafted in every round, 0 to 64; 0 decodes plainly (default: chosen for each round)',
      ).argParser(integer('--beam-width')),
    )
    .addOption(
      new Option(
        '--beam-length <tokens>',
        'tokens drafted per beam (the root not counted), 0 to 8; 0 decodes plainly (default: chosen for each round)',
      ).argParser(integer('--beam-length')),
    );
}

/** What happens when the context is full. */
export interface ContextFlags {
  contextPolicy?: ContextPolicy;
}

export function contextPolicyFlag(): Option {
  return new Option(
    '--context-policy <policy>',
    'when the context is full: error ends with "length"; slide drops the older half and goes on; slide:N keeps the first N tokens (default: error)',
  ).argParser(contextPolicy('--context-policy'));
}

/** Loads a model with progress on a terminal, and says why the device is not what one might expect. */
export async function loadModel(
  directory: string,
  drafter: string | false,
  flags: DeviceFlags & CapacityFlags,
  signal: AbortSignal,
  more: LoadOptions = {},
): Promise<Model> {
  const progress = progressLine('loading');
  let model: Model;
  try {
    model = await Model.load(directory, {
      drafter,
      ...loadOptions(flags),
      ...more,
      onProgress: progress.update,
      signal,
    });
  } finally {
    progress.done();
  }
  tellReason(model.info);
  return model;
}

/** Why there is no CUDA on most machines, which is no news. */
const NOTHING_THERE: readonly BackendReasonCode[] = ['NOT_BUILT', 'NO_DRIVER', 'NO_DEVICE'];

/** Says why a CUDA device that seems to be there was not taken. */
function tellReason({ deviceReason: reason }: ModelInfo): void {
  if (reason === null || NOTHING_THERE.includes(reason.code)) return;
  process.stderr.write(`on the CPU, not on CUDA: ${reason.message} (${reason.code})\n`);
}

/** Copies the defined values, as options do not accept undefined. */
export function defined<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
