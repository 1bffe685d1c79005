import { Option, type Command } from 'commander';

import type { QuantisedForm } from '../quantize/groups.js';
import { quantize } from '../quantize/quantize.js';
import { bytes } from './output.js';

export function addQuantize(program: Command): void {
  program
    .command('quantize')
    .description(
      'write a model or drafter with its weight matrices quantised, as loading with that --dtype or --drafter-dtype makes them',
    )
    .argument('<dir>', 'model or drafter directory')
    .addOption(
      new Option('--dtype <dtype>', '8.5 or 4.5 bits per weight').choices(['q8_0', 'q4_0']).makeOptionMandatory(),
    )
    .requiredOption('--out <dir>', 'directory to write, empty or new')
    .action(async (directory: string, { dtype, out }: { dtype: QuantisedForm; out: string }) => {
      const written = await quantize(directory, dtype, out);
      process.stdout.write(`${bytes(written.sourceBytes)} of weights became ${bytes(written.bytes)} in ${out}\n`);
    });
}
