/**
 * What the documentation says is checked: `ts` samples are type-checked and run, commands in `sh` samples exist with
 * their options, every promise names a test that exists, and the page of errors lists exactly the codes.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import ts from 'typescript';
import { afterAll, describe, expect, it, vi } from 'vitest';

import { benchReportOf } from '../lib/bench/peers-report.js';
import { shownTables } from '../lib/bench/tables.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const scratch = join(root, 'build/doc-samples');
mkdirSync(scratch, { recursive: true });

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const folders = existsSync(join(root, 'examples')) ? readdirSync(join(root, 'examples')) : [];
const pages = [
  'README.md',
  ...readdirSync(join(root, 'docs')).flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : [])),
  ...folders.map((name) => `examples/${name}/README.md`).filter((page) => existsSync(join(root, page))),
];

/** Code blocks of one language. */
function blocks(page: string, language: string): string[] {
  return [...read(page).matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map((m) => m[1] ?? '');
}

const samples = pages.flatMap((page) =>
  blocks(page, 'ts').map((code, i) => ({
    name: `${page}, sample ${i + 1}`,
    code,
    file: join(scratch, `${page.replace(/\W/g, '-')}-${i + 1}`),
  })),
);

/** Diagnostics of files, each with the name of its file. */
function typeCheck(files: readonly string[]): { file: string; problem: string }[] {
  const program = ts.createProgram(files, {
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
  return ts.getPreEmitDiagnostics(program).map((d) => ({
    file: d.file?.fileName ?? '',
    problem: ts.flattenDiagnosticMessageText(d.messageText, '\n'),
  }));
}

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true });
});

describe('ts samples', () => {
  it('type-check, and a wrong one would not (negative control)', () => {
    expect(samples.length).toBeGreaterThan(10);
    for (const { file, code } of samples) writeFileSync(`${file}.mts`, code);
    const control = join(scratch, 'control.mts');
    writeFileSync(control, "import { Model } from 'redrafter';\nawait Model.load(1);\n");
    const problems = typeCheck([...samples.map(({ file }) => `${file}.mts`), control]);
    expect(problems.filter(({ file }) => file !== control)).toEqual([]);
    expect(problems).not.toEqual([]);
  });

  it.each(samples.map(({ name, ...sample }) => [name, sample] as const))('%s runs and prints', async (_, sample) => {
    const { code, file } = sample;
    const { outputText } = ts.transpileModule(code, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
    });
    writeFileSync(`${file}.mjs`, outputText);
    const written: string[] = [];
    const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
    const log = vi.spyOn(console, 'log').mockImplementation((...values) => written.push(values.join(' ')));
    const cwd = vi.spyOn(process, 'cwd').mockReturnValue(root);
    try {
      await import(/* @vite-ignore */ pathToFileURL(`${file}.mjs`).href);
    } finally {
      write.mockRestore();
      log.mockRestore();
      cwd.mockRestore();
    }
    expect(written.join('').length).toBeGreaterThan(0);
  });
});

const help = new Map<string, string>();

/** What is wrong with one line of a shell sample; lines of other programs are not looked at. */
function shellProblem(line: string): string | undefined {
  const words = (line.replace(/\s#.*/, '').match(/"[^"]*"|'[^']*'|\S+/g) ?? []).filter((word) => word !== 'npx');
  if (words[0] === 'npm' && words[1] === 'run') {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    return words[2] !== undefined && Object.hasOwn(scripts, words[2]) ? undefined : `no script in ${line}`;
  }
  if (words[0] !== 'redrafter') return undefined;
  const command = words[1] === undefined || words[1].startsWith('-') ? '' : words[1];
  if (!help.has(command)) {
    const args = [join(root, 'dist/cli/main.js'), ...(command === '' ? [] : [command]), '--help'];
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    help.set(command, status === 0 ? stdout : '');
  }
  const text = help.get(command) ?? '';
  // commander answers `nonsense --help` with the help of the program itself.
  if (!text.startsWith(`Usage: redrafter ${command}`)) return `no command in ${line}`;
  for (const [i, word] of words.entries()) {
    if (!word.startsWith('--')) continue;
    const option = new RegExp(`^ +(?:-\\w, )?${word}(?: <(\\w+)>)?(?: |$)`, 'm').exec(text);
    if (option === null) return `no option ${word} in ${line}`;
    const value = words[i + 1];
    if (option[1] !== undefined && (value === undefined || value.startsWith('--')))
      return `no value of ${word} in ${line}`;
  }
  return undefined;
}

describe('sh samples', () => {
  it('name commands and options that exist', () => {
    const lines = pages.flatMap((page) =>
      blocks(page, 'sh').flatMap((block) => block.replaceAll('\\\n', ' ').split('\n')),
    );
    expect(lines.filter((line) => /\bredrafter \w/.test(line)).length).toBeGreaterThan(4);
    expect(lines.map(shellProblem).filter((problem) => problem !== undefined)).toEqual([]);
  });

  it.each([
    'npm run nonsense',
    'redrafter nonsense',
    'redrafter generate --modle DIR',
    'npx redrafter generate --model --json',
  ])('would be noticed (negative control): %s', (line) => {
    expect(shellProblem(line)).toBeDefined();
  });
});

/** Rows `| promise | test |` under "What is promised". */
function promises(page: string): { promise: string; test: string }[] {
  const [, section = ''] = read(page).split(/^## What is promised$/m);
  const rows = section.split(/^## /m)[0]?.match(/^\|.*\|$/gm) ?? [];
  return rows.slice(2).map((row) => {
    const [, promise = '', test = ''] = row.split(/(?<!\\)\|/).map((cell) => cell.trim());
    return { promise, test };
  });
}

/** What is wrong with the second cell of a promise: "`file`: title; title". */
function testProblem(cell: string): string | undefined {
  const match = /^`(test\/[\w./-]+\.test\.ts)`: (.+)$/.exec(cell);
  const [, file = '', titles = ''] = match ?? [];
  if (!existsSync(join(root, file)) || file === '') return `no test file in: ${cell}`;
  // A title is a string that the function of the test follows.
  const found = [...read(file).matchAll(/(['`"])((?:\\.|(?!\1).)+)\1,\s*(?:\{[^}]*\},\s*)?(?:async\s*)?\(/g)].map(
    (m) => m[2] ?? '',
  );
  const missing = titles.split('; ').filter((title) => !found.some((known) => known.includes(title)));
  return missing.length > 0 ? `${file} has no test "${missing.join('", "')}"` : undefined;
}

describe('promises', () => {
  const guides = pages.filter((page) => promises(page).length > 0);

  it('are made by every guide', () => {
    const listed = read('docs/index.md').split(/^## /m)[1] ?? '';
    const files = [...listed.matchAll(/\]\(([\w-]+\.md)\)/g)].map((match) => `docs/${match[1] ?? ''}`);
    expect(files.length).toBeGreaterThan(4);
    expect(files.filter((file) => !guides.includes(file))).toEqual([]);
  });

  it.each(guides)('%s: each names a test that exists', (page) => {
    expect(
      promises(page)
        .map(({ test }) => testProblem(test))
        .filter((problem) => problem !== undefined),
    ).toEqual([]);
  });

  it.each(['', '`test/nothing.test.ts`: x', '`test/docs.test.ts`: no test has this title'])(
    'would be noticed without one (negative control): %s',
    (cell) => {
      expect(testProblem(cell)).toBeDefined();
    },
  );
});

describe('docs/errors.md', () => {
  it('lists exactly the codes of lib/errors.ts, in that order', () => {
    const type = /export type ErrorCode =([\s\S]*?);/.exec(read('lib/errors.ts'))?.[1] ?? '';
    const codes = [...type.matchAll(/'(ERR_\w+)'/g)].map((match) => match[1]);
    const rows = [...read('docs/errors.md').matchAll(/^### (ERR_\w+)$/gm)].map((match) => match[1]);
    expect(codes.length).toBeGreaterThan(10);
    expect(rows).toEqual(codes);
  });
});

interface Acceptance {
  results: { cell: string; sampling: string; beamWidth: number; beamLength: number; tokensPerStep: number }[];
}

describe('tables of tokens per step', () => {
  it.each(pages.filter((page) => read(page).includes('| cell, sampling |')))(
    '%s: are those of bench/results',
    (page) => {
      const text = read(page);
      const data = /bench\/results\/[\w-]+-acceptance\.json/.exec(text)?.[0] ?? '';
      const { results } = JSON.parse(read(data)) as Acceptance;
      const cells = (row: string): string[] =>
        row
          .split('|')
          .slice(1, -1)
          .map((cell) => cell.trim());
      const [head = '', , ...rows] = /^\| cell, sampling \|(?:.*\n\|)*.*$/m.exec(text)?.[0].split('\n') ?? [];
      const written = rows.flatMap((row) => {
        const [name = '', ...values] = cells(row);
        return values.map((value, i) => `${name}, ${cells(head)[i + 1] ?? ''}: ${value}`);
      });
      const measured = results.map(
        (r) => `${r.cell}, ${r.sampling}, ${r.beamWidth} x ${r.beamLength}: ${r.tokensPerStep.toFixed(2)}`,
      );
      expect(written.length).toBeGreaterThan(50);
      expect(written.filter((value) => !measured.includes(value))).toEqual([]);
    },
  );
});

/** Rows of the tables of measurements that are not in the file which the paragraph before them links to. */
function strayRows(markdown: string): string[] {
  let known = new Set<string>();
  const keyOf = (cells: readonly string[]): string => cells.map((cell) => cell.trim()).join('|');
  return markdown.split('\n').filter((line) => {
    const file = /\]\(\.\.\/(bench\/results\/[\w-]+\.json)\)/.exec(line)?.[1];
    if (file !== undefined) {
      const tables = shownTables(benchReportOf(JSON.parse(read(file))));
      known = new Set(tables.flatMap(({ head, rows }) => [head, ...rows].map(keyOf)));
    }
    if (!line.startsWith('|') || line.startsWith('|--')) return false;
    return !known.has(keyOf(line.split('|').slice(1, -1)));
  });
}

describe('docs/performance.md', () => {
  const [, measured = ''] = read('docs/performance.md').split(/^## (?:Measured|The report)$/m);

  it('has the tables of its files', () => {
    expect(measured.match(/^\|/gm)?.length).toBeGreaterThan(40);
    expect(strayRows(measured)).toEqual([]);
  });

  it('would not pass with a figure that was not measured (negative control)', () => {
    const [row = ''] = /^\| drafter-gru \|.*$/m.exec(measured) ?? [];
    expect(strayRows(measured.replace(row, row.replace(/\d\.\d\d/, '9.99')))).toHaveLength(1);
  });
});
