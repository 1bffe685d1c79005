// llms.txt (https://llmstxt.org) and llms-full.txt, made of docs/index.md, the pages it lists and the declarations of
// lib/. Run as a program it writes both to the package root, for the npm package.
import { readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';

import ts from 'typescript';

import { entries, root } from './tools.mjs';

/** @typedef {{ title: string, file: string, text: string }} Page */

/** @param {string} file relative to docs/ */
function readPage(file) {
  return readFileSync(join(root, 'docs', file), 'utf8');
}

/**
 * docs/index.md: what stands before the first list of pages, and the lists by section.
 * @returns {{ intro: string, sections: { title: string, pages: Page[] }[] }}
 */
export function readIndex() {
  const [intro = '', ...rest] = readPage('index.md').split(/^## /m);
  const sections = rest.map((section) => ({
    title: section.slice(0, section.indexOf('\n')),
    pages: [...section.matchAll(/^- \[(.+?)\]\(([\w-]+\.md)\): (.+)$/gm)].map(
      ([, title = '', file = '', text = '']) => ({ title, file, text }),
    ),
  }));
  return { intro, sections: sections.filter(({ pages }) => pages.length > 0) };
}

/** A declaration without the private members of a class. @param {ts.Statement} statement */
function publicText(statement) {
  const start = statement.getFullStart();
  const hidden = ts.isClassDeclaration(statement)
    ? statement.members.filter((member) => ts.getCombinedModifierFlags(member) & ts.ModifierFlags.Private)
    : [];
  return hidden
    .reduceRight((text, { pos, end }) => text.slice(0, pos - start) + text.slice(end - start), statement.getFullText())
    .trim();
}

/**
 * The public declarations of each entry of the package with their docstrings, as TypeScript, under their public names.
 * @returns {{ name: string, code: string }[]}
 */
function declarations() {
  const config = ts.getParsedCommandLineOfConfigFile(
    join(root, 'tsconfig.build.json'),
    { emitDeclarationOnly: true },
    {
      ...ts.sys,
      onUnRecoverableConfigFileDiagnostic: (problem) => {
        throw new Error(ts.flattenDiagnosticMessageText(problem.messageText, '\n'));
      },
    },
  );
  if (config === undefined) throw new Error('cannot read tsconfig.build.json');
  const program = ts.createProgram(config.fileNames, config.options);
  /** Statements of the emitted declaration files by file (in dist/, without ending) and name. @type {Map<string, string>} */
  const emitted = new Map();
  program.emit(undefined, (path, text) => {
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
    for (const statement of source.statements) {
      if (!('name' in statement)) continue;
      const name = /** @type {ts.Identifier} */ (statement.name).text;
      emitted.set(`${relative(join(root, 'dist'), path).replace('.d.ts', '')}:${name}`, publicText(statement));
    }
  });
  return entries().map(({ name, file }) => ({ name, code: declarationsOf(program, file, emitted) }));
}

/** @param {ts.Program} program @param {string} file of lib/, without ending @param {Map<string, string>} emitted */
function declarationsOf(program, file, emitted) {
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(join(root, 'lib', `${file}.ts`));
  const symbol = source === undefined ? undefined : checker.getSymbolAtLocation(source);
  if (symbol === undefined) throw new Error(`lib/${file}.ts exports nothing`);
  const exported = checker.getExportsOfModule(symbol).map((each) => {
    const { name, declarations } = each.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(each) : each;
    const path = relative(join(root, 'lib'), declarations?.[0]?.getSourceFile().fileName ?? '');
    return { name: each.name, inside: name, text: emitted.get(`${path.replace(/\.ts$/, '')}:${name}`) };
  });
  const code = exported.map(({ name, text }) => {
    if (text === undefined) throw new Error(`no declaration of ${name}`);
    return text.replace(/^export (declare )?/m, '').replaceAll(/\{@link (.+?)\}/g, '`$1`');
  });
  return exported.reduce(
    (all, { name, inside }) => all.replaceAll(new RegExp(`\\b${inside}\\b`, 'g'), name),
    code.join('\n\n'),
  );
}

/** Both files by name. Links are relative to the package root, and to the root of the site, which has the same pages. */
export function llms() {
  const { intro, sections } = readIndex();
  const list = sections.map(
    ({ title, pages }) =>
      `## ${title}\n\n${pages.map((page) => `- [${page.title}](docs/${page.file}): ${page.text}`).join('\n')}\n`,
  );
  const full =
    '## Everything in one file\n\n- [llms-full.txt](llms-full.txt): all pages and the declarations of the API\n';
  const text = intro.replace(/\]\((?!https?:)/g, '](docs/');
  const api = declarations().map(({ name, code }) => `## ${name}\n\n\`\`\`ts\n${code}\n\`\`\`\n`);
  const pages = sections.flatMap((section) => section.pages.map(({ file }) => readPage(file).trim()));
  return {
    'llms.txt': `${text.trim()}\n\n${[...list, full].join('\n')}`,
    'llms-full.txt': `${text.trim()}\n\n${pages.join('\n\n')}\n\n# API\n\n${api.join('\n')}`,
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const [name, text] of Object.entries(llms())) writeFileSync(join(root, name), text);
}
