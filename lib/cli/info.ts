import type { Command } from 'commander';

import { backends, cpuFeatures, version } from '../system.js';

export function addInfo(program: Command): void {
  program
    .command('info')
    .description('which devices can be used here, and why others cannot')
    .option('--json', 'print one JSON object')
    .action((flags: { json?: boolean }) => {
      const info = {
        version: version(),
        node: process.versions.node,
        platform: `${process.platform}-${process.arch}`,
        backends: backends(),
        cpuFeatures: cpuFeatures(),
      };
      if (flags.json === true) process.stdout.write(`${JSON.stringify(info)}\n`);
      else process.stdout.write(describe(info));
    });
}

function describe(info: {
  version: string;
  node: string;
  platform: string;
  backends: { name: string; available: boolean; reason: string }[];
  cpuFeatures: string[];
}): string {
  const devices = info.backends.map(({ name, available, reason }) =>
    `  ${name.padEnd(12)} ${available ? 'available' : `not available: ${reason}`}`.trimEnd(),
  );
  return (
    `redrafter ${info.version}\n` +
    `node      ${info.node} on ${info.platform}\n` +
    `cpu       ${info.cpuFeatures.join(' ')}\n` +
    `devices\n${devices.join('\n')}\n`
  );
}
