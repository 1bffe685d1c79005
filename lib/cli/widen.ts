import type { Command } from 'commander';

import { widen } from '../widen/widen.js';
import { integer } from './numbers.js';
import { bytes } from './output.js';

export function addWiden(program: Command): void {
  program
    .command('widen')
    .description(
      'write a model or drafter with its units replicated and about factor^2 its weights, which computes the same: for measuring',
    )
    .argument('<dir>', 'model or drafter directory')
    .requiredOption('--factor <n>', 'how many times each unit is there, 1 to 64', integer('--factor'))
    .requiredOption('--out <dir>', 'directory to write, empty or new')
    .action(async (directory: string, { factor, out }: { factor: number; out: string }) => {
      const written = await widen(directory, factor, out);
      process.stdout.write(`${bytes(written.sourceBytes)} of weights became ${bytes(written.bytes)} in ${out}\n`);
    });
}
