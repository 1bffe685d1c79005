import type { Command } from 'commander';

import { inspect, type Inspection } from '../system.js';
import { bytes, table } from './output.js';

export function addInspect(program: Command): void {
  program
    .command('inspect')
    .description('show the configuration and the tensors of a model or drafter directory, without loading weights')
    .argument('<dir>', 'model or drafter directory')
    .option('--json', 'print one JSON object')
    .action(async (directory: string, flags: { json?: boolean }) => {
      const found = await inspect(directory);
      process.stdout.write(flags.json === true ? `${JSON.stringify(found)}\n` : describe(found));
    });
}

function describe({ kind, config, files, tensors, totalBytes }: Inspection): string {
  const width = Math.max(...Object.keys(config).map((key) => key.length));
  const lines = Object.entries(config).map(([key, value]) => `  ${key.padEnd(width)}  ${String(value)}`);
  const rows = tensors.map(({ name, dtype, shape, bytes: size }) => [name, dtype, shape.join(' x '), bytes(size)]);
  return (
    `${kind}: ${tensors.length} tensors, ${bytes(totalBytes)} in ${files.length} ${files.length === 1 ? 'file' : 'files'}\n` +
    `${lines.join('\n')}\n\n${table([['tensor', 'dtype', 'shape', 'size'], ...rows])}`
  );
}
