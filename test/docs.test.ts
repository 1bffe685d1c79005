/** Samples in the documentation are code: every `ts` block is type-checked against lib/ and run against dist/. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import ts from 'typescript';
import { afterAll, describe, expect, it, vi } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const scratch = join(root, 'build/doc-samples');
mkdirSync(scratch, { recursive: true });

const pages = [
  'README.md',
  ...readdirSync(join(root, 'docs')).flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : [])),
];
const samples = pages.flatMap((page) =>
  [...readFileSync(join(root, page), 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map((match, i) => ({
    name: `${page}, sample ${i + 1}`,
    code: match[1] ?? '',
    file: join(scratch, `${page.replace(/\W/g, '-')}-${i + 1}`),
  })),
);

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true });
});

describe('samples in the documentation', () => {
  it('exist', () => {
    expect(samples.length).toBeGreaterThan(0);
  });

  for (const { name, code, file } of samples) {
    it(`${name}: type-checks`, () => {
      writeFileSync(`${file}.mts`, code);
      const program = ts.createProgram([`${file}.mts`], {
        strict: true,
        noEmit: true,
        skipLibCheck: true,
        target: ts.ScriptTarget.ES2023,
        lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
        module: ts.ModuleKind.NodeNext,
        moduleResolution: ts.ModuleResolutionKind.NodeNext,
        types: ['node'],
        typeRoots: [join(root, 'node_modules/@types')],
      });
      const problems = ts
        .getPreEmitDiagnostics(program)
        .map((d) => ts.flattenDiagnosticMessageText(d.messageText, '\n'));
      expect(problems).toEqual([]);
    });

    it(`${name}: runs`, async () => {
      const { outputText } = ts.transpileModule(code, {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
      });
      writeFileSync(`${file}.mjs`, outputText);
      const written: string[] = [];
      const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
      const cwd = vi.spyOn(process, 'cwd').mockReturnValue(root);
      try {
        await import(/* @vite-ignore */ pathToFileURL(`${file}.mjs`).href);
      } finally {
        write.mockRestore();
        cwd.mockRestore();
      }
      expect(written.join('').length).toBeGreaterThan(0);
    });
  }
});
