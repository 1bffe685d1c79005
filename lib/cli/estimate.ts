import type { Command } from 'commander';

import { estimateMemory, type MemoryEstimate } from '../memory.js';
import { bytes, table } from './output.js';
import { addCapacityFlags, addDeviceFlags, loadOptions, type CapacityFlags, type DeviceFlags } from './shared.js';

interface Flags extends DeviceFlags, CapacityFlags {
  drafter: string;
  json?: boolean;
}

export function addEstimate(program: Command): void {
  const command = program
    .command('estimate')
    .description('how much memory a model would take with these options, without loading it')
    .argument('<dir>', 'model directory')
    .option('--drafter <dir>', 'drafter directory, or none', 'none');
  addCapacityFlags(addDeviceFlags(command))
    .option('--json', 'print one JSON object, in bytes')
    .action(async (directory: string, flags: Flags) => {
      const drafter = flags.drafter === 'none' ? false : flags.drafter;
      const estimate = await estimateMemory(directory, { drafter, ...loadOptions(flags) });
      process.stdout.write(flags.json === true ? `${JSON.stringify(estimate)}\n` : describe(estimate));
    });
}

function describe({ weightBytes, drafterBytes, kvBytes, workspaceBytes, totalBytes }: MemoryEstimate): string {
  const rows: [string, number][] = [
    ['weights', weightBytes],
    ['drafter', drafterBytes],
    ['kv cache', kvBytes],
    ['workspace', workspaceBytes],
    ['total', totalBytes],
  ];
  return table(rows.map(([what, count]) => [what, bytes(count), `${count} B`]));
}
