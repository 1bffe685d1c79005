/** Running programs against an installation, as its user would. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Model } from '../../lib/index.js';
import { bundled, prompts, trainedDrafters } from '../kit/bundled.js';

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** The environment without what npm, vitest and this repository put there, and with the given PATH. */
export function environment(path: string, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const ours = /^(npm_(?!config_(registry|cache|userconfig|globalconfig)$)|vitest|node_|redrafter|init_cwd|path$)/i;
  const kept = Object.entries(process.env).filter(([name]) => !ours.test(name) || name === 'NODE_EXTRA_CA_CERTS');
  return { ...Object.fromEntries(kept), PATH: path, ...more };
}

export function run(command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { cwd, env, timeout: 600_000, maxBuffer: 1 << 28, shell: process.platform === 'win32' };
    const child = execFile(command, args, options, (_, stdout, stderr) => {
      resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr });
    });
  });
}

/** Standard output of a program that must succeed in silence, as JSON. */
export function jsonOf({ code, signal, stdout, stderr }: Outcome): unknown {
  if (code !== 0 || stderr !== '') throw new Error(`exit code ${String(code ?? signal)}: ${stderr}${stdout}`);
  return JSON.parse(stdout);
}

/** What is decoded everywhere: plain, drafted, and sampled from a wide tree. */
const CASES = [
  { prompt: prompts[0]?.text ?? '', options: { maxTokens: 48, temperature: 0, beamWidth: 0, beamLength: 0 } },
  { prompt: prompts[0]?.text ?? '', options: { maxTokens: 48, temperature: 0 } },
  {
    prompt: prompts[5]?.text ?? '',
    options: { maxTokens: 48, temperature: 0.7, seed: 7, beamWidth: 8, beamLength: 5 },
  },
];

/** Ids of every case from the engine of this repository. */
export async function expectedIds(): Promise<number[][]> {
  await using model = await Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1 });
  const ids: number[][] = [];
  for (const { prompt, options } of CASES) {
    await using session = await model.createSession();
    ids.push([...(await session.generate(prompt, options).result()).tokenIds]);
  }
  return ids;
}

/** Decodes every case with the model of the installed package and reports the ids: on stdout, in a worker by message. */
const DECODE = `
  const { dirname, join } = await import('node:path');
  const { parentPort } = await import('node:worker_threads');
  const directory = join(dirname(require.resolve('redrafter/package.json')), 'models/ts-declarations');
  const model = await Model.load(directory, { drafter: join(directory, 'drafter-gru'), threads: 1 });
  const ids = [];
  for (const { prompt, options } of ${JSON.stringify(CASES)}) {
    const session = await model.createSession();
    ids.push([...(await session.generate(prompt, options).result()).tokenIds]);
    await session.dispose();
  }
  await model.dispose();
  if (parentPort === null) console.log(JSON.stringify(ids));
  else parentPort.postMessage(ids);`;

const IMPORT = `
  import { createRequire } from 'node:module';
  import { Model } from 'redrafter';
  const require = createRequire(import.meta.url);`;

const PROGRAMS = {
  'decode.mjs': IMPORT + DECODE,
  'decode.cjs': `const { Model } = require('redrafter'); (async () => {${DECODE}})();`,
  'worker.mjs': `
    import { Worker } from 'node:worker_threads';
    const worker = new Worker(new URL('./decode.mjs', import.meta.url));
    worker.once('message', (ids) => console.log(JSON.stringify(ids)));`,
  'exit.mjs': `${IMPORT}
    import { dirname, join } from 'node:path';
    const directory = join(dirname(require.resolve('redrafter/package.json')), 'models/ts-declarations');
    const session = await (await Model.load(directory)).createSession();
    for await (const chunk of session.generate('interface', { maxTokens: 2000, ignoreEos: true })) process.exit(7);`,
  'same.mjs': `${IMPORT}
    import * as modules from 'redrafter';
    const common = require('redrafter');
    const names = [Object.keys(modules).sort(), Object.keys(common).sort()];
    const instances = [];
    for (const [load, other] of [[modules, common], [common, modules]]) {
      try { await load.inspect(''); }
      catch (error) { instances.push(error instanceof other.RedrafterError, error.code); }
    }
    console.log(JSON.stringify({ names, same: names[0].every((name) => modules[name] === common[name]), instances }));`,
  'ai-sdk.mjs': `${IMPORT}
    import { dirname, join } from 'node:path';
    import * as modules from 'redrafter/ai-sdk';
    const common = require('redrafter/ai-sdk');
    const directory = join(dirname(require.resolve('redrafter/package.json')), 'models/ts-declarations');
    const model = await Model.load(directory, { drafter: join(directory, 'drafter-gru'), threads: 1 });
    const prompt = [{ role: 'user', content: [{ type: 'text', text: 'A point in the plane.' }] }];
    const tokens = [];
    for (const { languageModel } of [modules, common]) {
      const { usage } = await languageModel(model).doGenerate({ prompt, maxOutputTokens: 8 });
      tokens.push(usage.outputTokens.total);
    }
    await model.dispose();
    const sdk = await import('@ai-sdk/provider').then(() => true, () => false);
    console.log(JSON.stringify({ names: [Object.keys(modules), Object.keys(common)], tokens, sdk }));`,
  'server.mjs': `${IMPORT}
    import { dirname, join } from 'node:path';
    import * as modules from 'redrafter/server';
    const common = require('redrafter/server');
    const directory = join(dirname(require.resolve('redrafter/package.json')), 'models/ts-declarations');
    const model = await Model.load(directory, { threads: 1 });
    const answers = [];
    for (const { createServer, Server } of [modules, common]) {
      const server = createServer(model, { modelName: 'small', port: 0 });
      await server.ready;
      const answer = await fetch((await server.listen()) + '/v1/models/small');
      answers.push([server instanceof Server, answer.status, (await answer.json()).id]);
      await server.close();
    }
    await model.dispose();
    console.log(JSON.stringify({ names: [Object.keys(modules), Object.keys(common)], answers }));`,
  'load.cjs': `
    const { cpuFeatures } = require('redrafter');
    try { console.log(JSON.stringify({ features: cpuFeatures() })); }
    catch ({ name, code, message, remedy }) { console.log(JSON.stringify({ name, code, message, remedy })); }`,
};

export type Program = keyof typeof PROGRAMS;

/** Writes the programs into a folder whose node_modules has redrafter. */
export function writePrograms(folder: string): void {
  for (const [name, source] of Object.entries(PROGRAMS)) writeFileSync(join(folder, name), source);
}
