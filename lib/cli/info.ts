import type { Command } from 'commander';

import { type BackendStatus, cpuFeatures, getBackends, version } from '../system.js';

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
        backends: getBackends(),
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
  backends: BackendStatus[];
  cpuFeatures: string[];
}): string {
  const width = Math.max(...info.backends.map(({ device }) => device.length)) + 1;
  const devices = info.backends.map(({ device, selected, reason }) => {
    const state = reason === null ? 'available' : `not available: ${reason.message} (${reason.code})`;
    return `  ${device.padEnd(width)} ${state}${selected ? ', taken by auto' : ''}`;
  });
  return (
    `redrafter ${info.version}\n` +
    `node      ${info.node} on ${info.platform}\n` +
    `cpu       ${info.cpuFeatures.join(' ')}\n` +
    `devices\n${devices.join('\n')}\n`
  );
}
