/** The installed package: it decodes as this repository does, without a compiler, and says clearly when it cannot. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { join } from 'node:path';

import { beforeAll, describe, expect, inject, it } from 'vitest';

import type { Report } from '../../lib/bench/report.js';
import { bundled } from '../kit/bundled.js';
import { environment, expectedIds, jsonOf, run, writePrograms, type Outcome, type Program } from './run.js';

const installed = inject('installed');
const env = environment(inject('path'));
const packageFolder = join(installed, 'node_modules/redrafter');
const platform = `${process.platform}-${process.arch}`;
const glibc = existsSync(join(packageFolder, 'prebuilds', platform, 'redrafter.glibc.node')) && process.platform === 'linux'; // prettier-ignore

let expected: number[][];

beforeAll(async () => {
  writePrograms(installed);
  expected = await expectedIds();
});

function node(program: Program, cwd = installed, variables = env, flags: string[] = []): Promise<Outcome> {
  return run(process.execPath, [...flags, program], cwd, variables);
}

describe('an installed package', () => {
  it('lies outside of the repository, where no compiler can be found', async () => {
    expect(realpathSync(packageFolder).startsWith(realpathSync(join(installed, '..')))).toBe(true);
    const found: string[] = [];
    for (const tool of ['cmake', 'make', 'ninja', 'c++', 'g++', 'gcc', 'clang++', 'cl']) {
      if ((await run(tool, ['--version'], installed, env)).code === 0) found.push(tool);
    }
    expect(found).toEqual([]);
    expect(readdirSync(packageFolder)).not.toContain('build');
  });

  it('decodes the same ids from modules, from CommonJS and in a worker', async () => {
    expect(expected.map((ids) => ids.length)).toEqual([48, 48, 48]);
    for (const program of ['decode.mjs', 'decode.cjs', 'worker.mjs'] as const) {
      expect(jsonOf(await node(program)), program).toEqual(expected);
    }
  });

  it('decodes the same ids from the command line', async () => {
    const model = join(packageFolder, 'models/ts-declarations');
    const { text } = (JSON.parse(readFileSync(join(model, 'prompts.json'), 'utf8')) as { text: string }[])[0] ?? {};
    const args = ['generate', '--model', model, '--drafter', join(model, 'drafter-gru'), '--prompt', text ?? '', '--max-tokens', '48', '--json']; // prettier-ignore
    const out = jsonOf(await run('npx', ['redrafter', ...args], installed, env)) as { tokenIds: number[] };
    expect(out.tokenIds).toEqual(expected[1]);
  });

  it('measures itself, with a page of charts, and says what only a clone can measure', async () => {
    const args = ['bench', 'e2e', 'ops', 'peers', '--quick', '--threads', '1', '--json', 'bench.json', '--html', 'bench.html']; // prettier-ignore
    const { code, stdout } = await run('npx', ['redrafter', ...args], installed, env);
    expect(code, stdout).toBe(0);
    const report = JSON.parse(readFileSync(join(installed, 'bench.json'), 'utf8')) as Report;
    expect(report).toMatchObject({ commit: null, suites: { e2e: { differing: 0 } } });
    expect(readFileSync(join(installed, 'bench.html'), 'utf8')).toContain('<svg ');
    expect(stdout.match(/^Not available: .*clone/gm)).toHaveLength(2);
  });

  it('is one implementation for import and require', async () => {
    const { names, same, instances } = jsonOf(await node('same.mjs')) as { names: string[][]; same: boolean; instances: unknown[] }; // prettier-ignore
    expect(names[0]).toEqual(names[1]);
    expect(names[0]).toContain('Model');
    expect(same).toBe(true);
    expect(instances).toEqual([true, 'ERR_INVALID_ARGUMENT', true, 'ERR_INVALID_ARGUMENT']);
  });

  it('serves HTTP from modules and CommonJS', async () => {
    const { names, answers } = jsonOf(await node('server.mjs')) as { names: string[][]; answers: unknown };
    expect(names.map((each) => each.sort())).toEqual([['Server', 'createServer'], ['Server', 'createServer']]); // prettier-ignore
    expect(answers).toEqual([[true, 200, 'small'], [true, 200, 'small']]); // prettier-ignore
  });

  it('serves the AI SDK from modules and CommonJS, and needs nothing of it', async () => {
    const names = [['languageModel'], ['languageModel']];
    expect(jsonOf(await node('ai-sdk.mjs'))).toEqual({ names, tokens: [8, 8], sdk: false });
  });

  it('may exit in the middle of decoding', async () => {
    expect(await node('exit.mjs')).toEqual({ code: 7, signal: null, stdout: '', stderr: '' });
  });
});

/** A copy of the installation, without models and sources unless they are asked for. */
function copyOf(name: string, without = /[\\/]redrafter[\\/](models|native|docs|prebuilds)$/): string {
  const folder = join(installed, '..', name);
  const modules = join(folder, 'node_modules');
  mkdirSync(modules, { recursive: true });
  for (const dependency of readdirSync(join(installed, 'node_modules'))) {
    if (dependency.startsWith('.') || dependency === 'redrafter') continue;
    symlinkSync(join(installed, 'node_modules', dependency), join(modules, dependency), 'junction');
  }
  cpSync(packageFolder, join(modules, 'redrafter'), { recursive: true, filter: (path) => !without.test(path) });
  writePrograms(folder);
  return folder;
}

/** Puts a changed copy of this platform's binary into a copy of the installation. */
function plant(folder: string, change: (binary: Buffer) => Buffer): void {
  const from = join(packageFolder, 'prebuilds', platform);
  const to = join(folder, 'node_modules/redrafter/prebuilds', platform);
  mkdirSync(to, { recursive: true });
  for (const file of readdirSync(from)) writeFileSync(join(to, file), change(readFileSync(join(from, file))));
}

describe('without a binary that fits', () => {
  const BUILD = expect.stringContaining('npx redrafter build') as string;

  async function failure(folder: string, more: NodeJS.ProcessEnv = {}, flags: string[] = []): Promise<unknown> {
    return jsonOf(await node('load.cjs', folder, { ...env, ...more }, flags));
  }

  function refusal(message: RegExp, remedy = BUILD): object {
    return { name: 'PlatformError', code: 'ERR_NATIVE', message: expect.stringMatching(message) as string, remedy };
  }

  it('loads in a copy as it is, so that what follows means something', async () => {
    const folder = copyOf('whole');
    plant(folder, (binary) => binary);
    expect(await failure(folder)).toHaveProperty('features');
  });

  it('says so when there is none', async () => {
    const folder = copyOf('none');
    expect(await failure(folder)).toEqual(refusal(RegExp(`no prebuilt binary for ${platform}.*has none$`)));
  });

  it('says so on another processor or C library', async () => {
    const arch = await failure(installed, { npm_config_arch: 'riscv64' });
    expect(arch).toEqual(refusal(RegExp(`no prebuilt binary for ${process.platform}-riscv64.*has ${platform}`)));
    if (process.platform !== 'linux') return;
    const libc = await failure(installed, { LIBC: glibc ? 'musl' : 'glibc' });
    expect(libc).toEqual(refusal(glibc ? /\(musl\); this package has \S+ \(glibc\)$/ : /\(glibc\);.*\(musl\)$/));
  });

  it('says so when the file is damaged', async () => {
    const folder = copyOf('damaged');
    plant(folder, (binary) => binary.subarray(0, 40));
    expect(await failure(folder)).toEqual(refusal(/damaged, or for another system/));
    plant(folder, () => Buffer.from('no binary at all '.repeat(100)));
    expect(await failure(folder)).toEqual(refusal(/damaged, or for another system/));
  });

  it.runIf(glibc)('says so when the system has an older glibc', async () => {
    const folder = copyOf('newer-glibc');
    plant(folder, (binary) => {
      const at = binary.indexOf('GLIBC_2.');
      const changed = Buffer.from(binary);
      changed.write('GLIBC_9.', at);
      return changed;
    });
    expect(await failure(folder)).toEqual(refusal(/needs GLIBC 9\.\S+ or newer, this system has 2\.\d+$/));
  });

  it('says so when Node may not load addons', async () => {
    const flags = ['--no-addons'];
    expect(await failure(installed, {}, flags)).toEqual(refusal(/may not load/, expect.stringContaining('--no-addons') as string)); // prettier-ignore
  });

  it('says so when a bundler has moved the library', async () => {
    const folder = copyOf('bundled');
    const redrafter = join(folder, 'node_modules/redrafter');
    cpSync(join(redrafter, 'dist'), join(folder, 'dist'), { recursive: true });
    writeFileSync(join(folder, 'load.cjs'), readFileSync(join(folder, 'load.cjs'), 'utf8').replace("'redrafter'", "'./dist/index.js'")); // prettier-ignore
    expect(await failure(folder)).toEqual(refusal(/moved away/, expect.stringContaining('external') as string));
  });

  it('says which tool is missing to compile', async () => {
    const folder = copyOf('no-tools');
    const main = join(folder, 'node_modules/redrafter/dist/cli/main.js');
    const { code, stdout, stderr } = await run(process.execPath, [main, 'build'], folder, env);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^error \[ERR_NATIVE\]: compiling needs CMake >= 3\.20, there is none\n {2}\S.*cmake/);
  });

  it('compiles one from the sources in the package', { timeout: 600_000 }, async () => {
    const folder = copyOf('source', /[\\/]redrafter[\\/](docs|prebuilds)$/);
    const main = join(folder, 'node_modules/redrafter/dist/cli/main.js');
    const { code, stderr } = await run(process.execPath, [main, 'build'], folder, environment(process.env.PATH ?? ''));
    expect([code, stderr]).toEqual([0, '']);
    expect(readdirSync(join(folder, 'node_modules/redrafter/build'))).toEqual(['Release']);
    expect(jsonOf(await node('decode.mjs', folder))).toEqual(expected);
  });
});

describe('in an Electron archive', () => {
  // For Node app.asar is a folder like any other. What native code opens is put beside it alone, as Electron does.
  it('takes binaries and models from app.asar.unpacked', async () => {
    const archive = copyOf('app.asar');
    expect(await failureCode(archive)).toBe('ERR_NATIVE');
    const outside = `${archive}.unpacked`;
    plant(outside, (binary) => binary);
    expect(await failureCode(archive)).toBeUndefined();
    cpSync(bundled, join(outside, 'node_modules/redrafter/models/ts-declarations'), { recursive: true });
    expect(jsonOf(await node('decode.cjs', archive))).toEqual(expected);
    rmSync(join(outside, 'node_modules/redrafter/prebuilds'), { recursive: true });
    expect(await failureCode(archive)).toBe('ERR_NATIVE');
  });

  async function failureCode(folder: string): Promise<unknown> {
    return (jsonOf(await node('load.cjs', folder)) as { code?: string }).code;
  }
});
