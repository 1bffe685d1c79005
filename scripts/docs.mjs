// Builds the documentation into build/docs: guides and API reference by TypeDoc, llms.txt and llms-full.txt beside them.
// A warning (an undocumented export, a link that leads nowhere) is a failure. docs/index.md is the start page, and
// its lists decide which pages there are, in which group and order.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { Application, Converter, JSX, normalizePath, ReflectionKind, RendererEvent } from 'typedoc';

import { llms, readIndex } from './llms.mjs';
import { entries, root } from './tools.mjs';

/** @import { CommentDisplayPart, ContainerReflection, DocumentReflection, FileId, ProjectReflection, Reflection } from 'typedoc' */

/** The first heading of a page. @param {CommentDisplayPart[]} content */
function headingOf(content) {
  const heading = /^\s*# (.+)\n/.exec(content[0]?.text ?? '')?.[1];
  if (heading === undefined) throw new Error('a page must begin with its heading');
  return heading;
}

/** Names as prose writes them (`Model`, `Model.load`, `session.append`) and what they mean. @param {ProjectReflection} project */
function publicNames(project) {
  /** @type {Map<string, Reflection>} */
  const names = new Map();
  const { Class, Interface, Function, TypeAlias } = ReflectionKind;
  for (const target of [Class, Interface, Function, TypeAlias].flatMap((kind) => project.getReflectionsByKind(kind))) {
    names.set(target.name, target);
    if (!target.kindOf(Class) || !target.isDeclaration()) continue;
    for (const member of target.children ?? []) {
      const owner = member.flags.isStatic ? target.name : target.name.charAt(0).toLowerCase() + target.name.slice(1);
      names.set(`${owner}.${member.name}`, member);
    }
  }
  return names;
}

/** Turns code in prose that is a public name, with or without (), into a link. @param {CommentDisplayPart[]} content @param {Map<string, Reflection>} names */
function linkCode(content, names) {
  content.forEach((part, i) => {
    const name = part.kind === 'code' ? /^`([\w.]+)(\(\))?`$/.exec(part.text)?.[1] : undefined;
    const target = name === undefined ? undefined : names.get(name);
    if (target !== undefined) {
      content[i] = { kind: 'inline-tag', tag: '@linkcode', text: part.text.slice(1, -1), target };
    }
  });
}

/** Turns codes of errors into links to their section of the page that is `target`. @param {CommentDisplayPart[]} content @param {Set<string>} codes @param {FileId} target */
function linkErrors(content, codes, target) {
  for (const part of content.splice(0)) {
    if (part.kind !== 'text' && part.kind !== 'code') {
      content.push(part);
      continue;
    }
    for (const text of part.kind === 'code' ? [part.text] : part.text.split(/\b(ERR_[A-Z_]+)\b/)) {
      const code = text.replace(/^`(.*)`$/, '$1');
      if (codes.has(code)) {
        content.push({ kind: 'text', text: `[${text}](` });
        content.push({ kind: 'relative-link', text: 'errors.md', target, targetAnchor: code.toLowerCase() });
        content.push({ kind: 'text', text: ')' });
      } else content.push({ ...part, text });
    }
  }
}

/** Puts what a page lists into the order of `names`. @param {ContainerReflection} page @param {string[]} names */
function order(page, names) {
  for (const { children } of page.groups ?? []) {
    children.sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name));
  }
}

/** Words of a source without its comments, in which every name stands first where it is exported. @param {string} source */
function wordsOf(source) {
  const text = readFileSync(source, 'utf8').replaceAll(/\/\*.*?\*\//gs, '');
  return [...text.matchAll(/\w+/g)].map(([word]) => word);
}

/**
 * Builds the site into `out`; resolves to the number of warnings and errors, which TypeDoc has printed.
 * @param {string} out
 */
export async function buildDocs(out) {
  const { sections } = readIndex();
  const groups = new Map(sections.flatMap(({ title, pages }) => pages.map(({ file }) => [file, title])));
  const modules = entries().map(({ name, file }) => ({ name, source: join(root, 'lib', `${file}.ts`) }));
  const app = await Application.bootstrap({
    name: 'redrafter',
    entryPoints: modules.map(({ source }) => source),
    tsconfig: join(root, 'tsconfig.build.json'),
    basePath: root,
    out,
    readme: join(root, 'docs/index.md'),
    projectDocuments: [...groups.keys()].map((file) => join(root, 'docs', file)),
    customCss: join(root, 'docs/style.css'),
    excludeExternals: true, // what errors inherit from Error is Node's to document
    excludeInternal: true,
    excludePrivate: true,
    disableSources: true, // a package has no address of its sources to link to
    hideGenerator: true,
    sort: ['documents-first', 'source-order'],
    groupOrder: ['Guides', 'Reference', '*'],
    navigation: { includeGroups: true },
    visibilityFilters: {},
    validation: { notExported: true, invalidLink: true, invalidPath: true, rewrittenLink: true, notDocumented: true },
    logLevel: 'Warn',
  });
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_, /** @type {DocumentReflection} */ page) => {
    page.name = basename(page.name);
    page.frontmatter.group = groups.get(`${page.name}.md`);
  });
  app.renderer.on(RendererEvent.BEGIN, ({ project }) => {
    const start = project.readme ?? [];
    const pages = project.documents ?? [];
    for (const page of pages) page.name = headingOf(page.content); // the address is made of the file name already
    if (start[0] !== undefined) start[0].text = start[0].text.replace(`# ${headingOf(start)}\n`, ''); // the theme has it
    // Modules come in the order of package.json; classes, functions and types in that of their module.
    order(project, modules.map(({ name }) => name)); // prettier-ignore
    for (const module of project.children ?? []) {
      const { source } = modules.find(({ name }) => name === module.name) ?? {};
      if (source === undefined) throw new Error(`${module.name} is not the name of an entry in package.json`);
      order(module, wordsOf(source));
    }
    const comments = Object.values(project.reflections).map(({ comment }) => comment?.summary ?? []);
    const names = publicNames(project);
    const errors = pages.find((page) => page.name === 'Errors')?.content ?? [];
    const headings = errors.map(({ text }) => text).join('').matchAll(/^### (ERR_\w+)$/gm); // prettier-ignore
    const codes = new Set([...headings].map((match) => match[1] ?? ''));
    const { target } = project.files.registerAbsolute(normalizePath(join(root, 'docs/errors.md')));
    for (const content of [start, ...comments, ...pages.map((page) => page.content)]) {
      linkCode(content, names);
      if (content !== errors) linkErrors(content, codes, target);
    }
  });
  // The navigation remembers which groups are open; a first visit finds the guides open.
  const open =
    "for (const key of ['Guides', 'Reference', 'Reference$redrafter']) localStorage[`tsd-accordion-${key}`] ??= 'true';";
  app.renderer.hooks.on('head.end', () =>
    JSX.createElement('script', null, JSX.createElement(JSX.Raw, { html: open })),
  );
  const project = await app.convert();
  if (project !== undefined) {
    app.validate(project);
    await app.generateDocs(project, out);
  }
  for (const [name, text] of Object.entries(llms())) writeFileSync(join(out, name), text);
  mkdirSync(join(out, 'docs'), { recursive: true });
  for (const name of readdirSync(join(root, 'docs'))) {
    if (/\.(md|svg)$/.test(name)) copyFileSync(join(root, 'docs', name), join(out, 'docs', name));
  }
  return app.logger.warningCount + app.logger.errorCount;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const problems = await buildDocs(join(root, 'build/docs'));
  console.log(problems === 0 ? 'docs: build/docs/index.html' : `docs: ${problems} problems, see above`);
  process.exitCode = problems === 0 ? 0 : 1;
}
