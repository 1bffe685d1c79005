import { Option, type Command } from 'commander';

import { Model } from '../model.js';
import type { GenerateOptions, LoadOptions } from '../option-types.js';
import { progressLine } from './output.js';
import { integer } from './numbers.js';

/** Flags of commands that load a model. */
export interface DeviceFlags {
  device: string;
  dtype: NonNullable<LoadOptions['dtype']>;
  threads?: number;
}

export function addDeviceFlags(command: Command): Command {
  return command
    .option('--device <device>', 'cpu, cuda or auto; a level can follow, as in cpu:avx2', 'auto')
    .addOption(
      new Option('--dtype <dtype>', 'element type of the weight matrices; auto keeps what is stored')
        .choices(['auto', 'f32', 'f16', 'bf16'])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--threads <count>',
        'worker threads of the CPU backend (default: chosen from the processor)',
      ).argParser(integer('--threads')),
    );
}

/** Flags of the drafting shape. */
export interface BeamFlags {
  beamWidth: number;
  beamLength: number;
}

export function addBeamFlags(command: Command): Command {
  return command
    .addOption(
      new Option('--beam-width <beams>', 'beams drafted per round, 0 to 64; 0 decodes plainly')
        .argParser(integer('--beam-width'))
        .default(1),
    )
    .addOption(
      new Option('--beam-length <tokens>', 'tokens drafted per beam (the root not counted), 0 to 8; 0 decodes plainly')
        .argParser(integer('--beam-length'))
        .default(4),
    );
}

/** Loads a model with progress on a terminal. */
export async function loadModel(
  directory: string,
  drafter: string | false,
  flags: DeviceFlags,
  signal: AbortSignal,
): Promise<Model> {
  const progress = progressLine('loading');
  try {
    return await Model.load(directory, {
      drafter,
      device: flags.device as NonNullable<LoadOptions['device']>,
      dtype: flags.dtype,
      ...(flags.threads === undefined ? {} : { threads: flags.threads }),
      onProgress: progress.update,
      signal,
    });
  } finally {
    progress.done();
  }
}

/** Copies the defined values, as options do not accept undefined. */
export function defined(options: { [K in keyof GenerateOptions]?: GenerateOptions[K] | undefined }): GenerateOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
