// Builds the documentation into build/docs: guides and API reference by TypeDoc, llms.txt and llms-full.txt beside them.
// A warning (an undocumented export, a link that leads nowhere) is a failure. docs/index.md is the start page, and
// its lists decide which pages there are, in which group and order.
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { Application, Converter, ReflectionKind, RendererEvent } from 'typedoc';

import { llms, readIndex } from './llms.mjs';
import { root } from './tools.mjs';

/** @import { CommentDisplayPart, DocumentReflection, ProjectReflection, Reflection } from 'typedoc' */

/** Removes the heading of a page, which the theme shows itself, and returns it. @param {CommentDisplayPart[]} content */
function takeHeading(content) {
  const [first] = content;
  const match = /^\s*# (.+)\n/.exec(first?.text ?? '');
  if (first === undefined || match === null) throw new Error('a page must begin with its heading');
  first.text = first.text.slice(match[0].length);
  return match[1] ?? '';
}

/** Names as prose writes them (`Model`, `Model.load`, `session.append`) and what they mean. @param {ProjectReflection} project */
function publicNames(project) {
  /** @type {Map<string, Reflection>} */
  const names = new Map();
  const kinds = ReflectionKind.Class | ReflectionKind.Interface | ReflectionKind.Function | ReflectionKind.TypeAlias;
  for (const target of project.getReflectionsByKind(kinds)) {
    names.set(target.name, target);
    if (!target.kindOf(ReflectionKind.Class) || !target.isDeclaration()) continue;
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

/**
 * Builds the site into `out`; resolves to the number of warnings and errors, which TypeDoc has printed.
 * @param {string} out
 */
export async function buildDocs(out) {
  const { sections } = readIndex();
  const groups = new Map(sections.flatMap(({ title, pages }) => pages.map(({ file }) => [file, title])));
  const app = await Application.bootstrap({
    name: 'redrafter',
    entryPoints: [join(root, 'lib/index.ts')],
    tsconfig: join(root, 'tsconfig.build.json'),
    basePath: root,
    out,
    readme: join(root, 'docs/index.md'),
    projectDocuments: [...groups.keys()].map((file) => join(root, 'docs', file)),
    customCss: join(root, 'docs/style.css'),
    excludeInternal: true,
    excludePrivate: true,
    disableSources: true, // a package has no address of its sources to link to
    hideGenerator: true,
    sort: ['documents-first', 'alphabetical-ignoring-documents'],
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
    const names = publicNames(project);
    for (const page of project.documents ?? []) {
      page.name = takeHeading(page.content); // the address is made of the file name already
      linkCode(page.content, names);
    }
    takeHeading(project.readme ?? []);
    linkCode(project.readme ?? [], names);
  });
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
