// The peer is installed in this folder alone, when somebody measures.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { npm } from '../../scripts/tools.mjs';
import { installedVersion } from './peer.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));

/** The version that package.json names. */
function wantedVersion() {
  /** @type {unknown} */
  const parsed = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'));
  return /** @type {{ dependencies: Record<string, string> }} */ (parsed).dependencies['node-llama-cpp'];
}

/**
 * Installs what package-lock.json says, unless it is there. No script of any package runs (.npmrc): its binaries come from npm.
 * @param {(line: string) => void} tell
 * @returns {string} the version
 */
export function installPeer(tell) {
  const wanted = wantedVersion();
  if (installedVersion() !== wanted) {
    tell(
      `node-llama-cpp ${wanted} is not installed: npm ci in bench/peers (about 730 MB, as npm takes its GPU builds too)`,
    );
    const [command, args] = npm('ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error');
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: here, encoding: 'utf8' });
    if (status !== 0) {
      throw new Error(
        `npm ci in bench/peers failed, so there is no peer to measure; it needs the npm registry once:\n${stdout}${stderr}`,
      );
    }
  }
  const installed = installedVersion();
  if (installed === undefined || installed !== wanted)
    throw new Error(`npm ci in bench/peers left node-llama-cpp ${installed ?? 'out'}, not ${wanted}`);
  return installed;
}
