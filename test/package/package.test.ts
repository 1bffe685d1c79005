/** The tarball itself: what is in it, and whether its types and entry points are right for every kind of user. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { publint } from 'publint';
import ts from 'typescript';
import { describe, expect, inject, it } from 'vitest';

import { root } from '../../scripts/tools.mjs';

const tarball = inject('tarball');
const installed = inject('installed');
const manifest = JSON.parse(readFileSync(join(installed, 'node_modules/redrafter/package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

describe('the tarball', () => {
  const files = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n').map((path) => path.replace(/^package\//, '')); // prettier-ignore

  it('has a binary for this platform, the compiled library, the sources to compile, and no tests', () => {
    const binaries = files.filter((path) => path.endsWith('.node'));
    expect(binaries.filter((path) => path.startsWith(`prebuilds/${process.platform}-${process.arch}/`))).not.toEqual(
      [],
    );
    expect(binaries.filter((path) => !path.startsWith('prebuilds/'))).toEqual([]);
    for (const path of [
      'dist/index.js',
      'dist/index.mjs',
      'dist/ai-sdk.js',
      'dist/ai-sdk.mjs',
      'CMakeLists.txt',
      'LICENSE',
      'README.md',
    ]) {
      expect(files).toContain(path);
    }
    expect(files.filter((path) => /^(lib|test|train|bench|build|node_modules|native\/testing)\//.test(path))).toEqual(
      [],
    );
    expect(files).toContain('dist/vendor/echarts.licences.txt'); // with what it is the licence of
    expect(files).toContain('dist/vendor/echarts.js');
    expect(files).toContain('cmake/cuda.cmake'); // CMakeLists.txt includes it
    expect(files.filter((path) => /redrafter_cuda/.test(path))).toEqual([]); // only with --cuda
    expect(files.filter((path) => /binding\.gyp$/.test(path))).toEqual([]); // npm clients compile where they see one
  });

  it('runs nothing at install time', () => {
    const atInstall = ['preinstall', 'install', 'postinstall', 'prepare'];
    expect(Object.keys(manifest.scripts).filter((name) => atInstall.includes(name))).toEqual([]);
  });

  it('satisfies publint', async () => {
    const { buffer, byteOffset, byteLength } = readFileSync(tarball);
    const pack = { tarball: buffer.slice(byteOffset, byteOffset + byteLength) };
    const { messages } = await publint({ pack, strict: true });
    expect(messages).toEqual([]);
  });

  it('has types that agree with what is loaded', async () => {
    const result = await checkPackage(createPackageFromTarballData(new Uint8Array(readFileSync(tarball))));
    expect(result.types && result.problems).toEqual([]);
  });
});

describe('types of the installed package', () => {
  const USE = `
    async function use(): Promise<string> {
      const model: Model = await Model.load('model', { drafter: false, threads: 1 });
      const session = await model.createSession();
      for await (const { text, tokenIds } of session.generate('a', { maxTokens: 2 })) if (tokenIds.length > 0) return text;
      const code = (error: unknown): string => (error instanceof RedrafterError ? error.code : 'none');
      return code(session);
    }
    void use;`;
  const IMPORT = `import { Model, RedrafterError } from 'redrafter';`;
  const USE_AI_SDK = `
    import { Model } from 'redrafter';
    import { languageModel, type RedrafterOptions } from 'redrafter/ai-sdk';
    async function use(model: Model): Promise<'v4'> {
      const options: RedrafterOptions = { beamWidth: 2, drafting: true };
      await languageModel(model).doGenerate({ prompt: [], providerOptions: { redrafter: options } });
      return languageModel(model, { modelId: 'x' }).specificationVersion;
    }
    void use;`;
  const USE_SERVER = `
    import { Model } from 'redrafter';
    import { createServer, type RequestLog, type Server, type ServerOptions } from 'redrafter/server';
    async function use(model: Promise<Model>): Promise<string> {
      const onRequest = (entry: RequestLog): number | undefined => entry.completionTokens;
      const options: ServerOptions = { modelName: 'small', port: 0, onRequest: (entry) => void onRequest(entry) };
      const server: Server = createServer(model, options);
      await server.ready;
      return server.listen();
    }
    void use;`;
  const kinds = {
    'nodenext, module': {
      file: 'use.mts',
      module: ts.ModuleKind.NodeNext,
      resolution: ts.ModuleResolutionKind.NodeNext,
    },
    'nodenext, CommonJS': {
      file: 'use.cts',
      module: ts.ModuleKind.NodeNext,
      resolution: ts.ModuleResolutionKind.NodeNext,
    },
    // Before `require` of a module was allowed, which `nodenext` takes for granted.
    'node16, CommonJS': {
      file: 'use.cts',
      module: ts.ModuleKind.Node16,
      resolution: ts.ModuleResolutionKind.Node16,
    },
    bundler: { file: 'use.ts', module: ts.ModuleKind.ESNext, resolution: ts.ModuleResolutionKind.Bundler },
  };

  function problems(kind: keyof typeof kinds, code: string): string[] {
    const { file, module, resolution } = kinds[kind];
    const path = join(installed, file);
    writeFileSync(path, code);
    const program = ts.createProgram([path], {
      strict: true,
      noEmit: true,
      target: ts.ScriptTarget.ES2023,
      lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
      module,
      moduleResolution: resolution,
      types: ['node'],
      typeRoots: [join(root, 'node_modules/@types')],
      // An optional peer, which the installation is without.
      paths: { '@ai-sdk/provider': [join(root, 'node_modules/@ai-sdk/provider/dist/index.d.ts')] },
    });
    // The declarations of Node and of TypeScript itself are not what is checked here.
    const own = program
      .getSourceFiles()
      .filter((source) => source.fileName.startsWith(installed.replaceAll('\\', '/')));
    expect(own.length).toBeGreaterThan(5);
    return [...program.getGlobalDiagnostics(), ...own.flatMap((source) => [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)])].map((d) => ts.flattenDiagnosticMessageText(d.messageText, '\n')); // prettier-ignore
  }

  for (const kind of Object.keys(kinds) as (keyof typeof kinds)[]) {
    it(`are found and right: ${kind}`, () => {
      expect(problems(kind, IMPORT + USE)).toEqual([]);
      expect(problems(kind, `${IMPORT} import { Nothing } from 'redrafter'; void Model.load(7); void RedrafterError; void Nothing;`)).toHaveLength(2); // prettier-ignore
      expect(problems(kind, USE_SERVER)).toEqual([]);
      expect(problems(kind, USE_SERVER.replace('modelName', 'name'))).toHaveLength(1);
      expect(problems(kind, USE_AI_SDK)).toEqual([]);
      expect(problems(kind, USE_AI_SDK.replace("<'v4'>", "<'v3'>"))).toHaveLength(1);
    });
  }

  it('have errors that can be tested for and not made', () => {
    const classes = ['RedrafterError', 'AbortError'];
    const use = (body: (name: string) => string): string[] =>
      problems('nodenext, module', `import { ${classes.join(', ')} } from 'redrafter'; ${classes.map(body).join(' ')}`);
    expect(use((name) => `export type Made${name} = InstanceType<typeof ${name}>;`)).toEqual([]);
    expect(use((name) => `export const as${name}: new (...args: any[]) => Error = ${name};`)).toEqual([]);
    expect(use((name) => `new ${name}(); new ${name}('message'); new ${name}('ERR_BUSY', 'message');`)).toHaveLength(6);
  });

  it('are found by require() in TypeScript', () => {
    const code = `import redrafter = require('redrafter'); const { Model, RedrafterError } = redrafter; type Model = redrafter.Model;`;
    expect(problems('nodenext, CommonJS', code + USE)).toEqual([]);
  });
});
