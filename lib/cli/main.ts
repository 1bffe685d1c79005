#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { Command, CommanderError } from 'commander';

import { invalid, RedrafterError } from '../errors.js';
import { packageRoot } from '../package-root.js';
import { addBench } from './bench.js';
import { addBuild } from './build.js';
import { addDemo } from './demo.js';
import { addEstimate } from './estimate.js';
import { addGenerate } from './generate.js';
import { addInfo } from './info.js';
import { addInspect } from './inspect.js';
import { EXIT, printError } from './output.js';
import { addServe } from './serve.js';
import { addWiden } from './widen.js';

const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };

// `redrafter generate ... | head` closes the pipe early; that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

const program = new Command('redrafter')
  .description('Lossless decoding of large language models with recurrent drafters.')
  .version(version)
  .showSuggestionAfterError(true)
  .exitOverride()
  .configureOutput({ writeErr: () => undefined }); // errors are printed below, in one form
for (const add of [addDemo, addGenerate, addServe, addInspect, addEstimate, addBench, addWiden, addInfo, addBuild])
  add(program);

program.parseAsync().catch((error: unknown) => {
  // Commander reports --help and --version the same way, with exit code 0.
  if (!(error instanceof CommanderError)) {
    printError(error);
    const interrupted = error instanceof RedrafterError && error.code === 'ERR_ABORTED';
    process.exitCode = interrupted ? EXIT.interrupted : EXIT.failure;
  } else if (error.exitCode !== 0) {
    printError(invalid(error.message));
    process.exitCode = EXIT.failure;
  }
});
