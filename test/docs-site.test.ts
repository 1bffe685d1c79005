/** `npm run docs`: the site is built without a warning, is complete, and no link in it leads nowhere. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';

import ts from 'typescript';
import { beforeAll, describe, expect, it } from 'vitest';

import { buildDocs } from '../scripts/docs.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const site = join(root, 'build/docs-test');

/** What package.json lets users import, with the names that it exports, read by the compiler from the published types. */
function publicModules(): { module: string; names: string[] }[] {
  const text = readFileSync(join(root, 'package.json'), 'utf8');
  const { exports } = JSON.parse(text) as { exports: Record<string, string | { require: { types: string } }> };
  return Object.entries(exports).flatMap(([path, target]) => {
    if (typeof target === 'string') return [];
    const file = join(root, target.require.types);
    const program = ts.createProgram([file], { module: ts.ModuleKind.NodeNext, skipLibCheck: true });
    const source = program.getSourceFile(file);
    const symbol = source === undefined ? undefined : program.getTypeChecker().getSymbolAtLocation(source);
    const names = symbol === undefined ? [] : program.getTypeChecker().getExportsOfModule(symbol);
    return [{ module: `redrafter${path.slice(1)}`, names: names.map(({ name }) => name) }];
  });
}

/** Links of a page that lead to no file of the site, or to no element of a page. */
function brokenLinks(page: string, read: (path: string) => string): string[] {
  return [...read(page).matchAll(/\s(?:href|src)="([^"]*)"/g)]
    .map((match) => (match[1] ?? '').replaceAll('&amp;', '&'))
    .filter((link) => !/^(https?:|data:|mailto:)/.test(link))
    .filter((link) => {
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? page : join(dirname(page), decodeURI(path));
      if (!existsSync(target)) return true;
      if (anchor === undefined || anchor === '' || !target.endsWith('.html')) return false;
      return !read(target).includes(`id="${decodeURIComponent(anchor)}"`);
    })
    .map((link) => `${relative(site, page)} -> ${link}`);
}

interface NavigationItem {
  text: string;
  path?: string;
  children?: NavigationItem[];
}

/** The navigation tree, which the site carries compressed in a script. */
function navigation(): NavigationItem[] {
  const data = /"(.+)"/.exec(readFileSync(join(site, 'assets/navigation.js'), 'utf8'))?.[1] ?? '';
  return JSON.parse(inflateSync(Buffer.from(data, 'base64')).toString()) as NavigationItem[];
}

describe('the documentation site', () => {
  const modules = publicModules();
  let problems = -1;
  let pages: string[] = [];
  const cache = new Map<string, string>();
  const read = (path: string): string => {
    const text = cache.get(path) ?? readFileSync(path, 'utf8');
    cache.set(path, text);
    return text;
  };

  beforeAll(async () => {
    rmSync(site, { recursive: true, force: true });
    problems = await buildDocs(site);
    pages = readdirSync(site, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.html'))
      .map((name) => join(site, name));
  }, 180_000);

  it('is built without a warning', () => {
    expect(problems).toBe(0);
  });

  it('has a page for every public export', () => {
    expect(modules[0]?.names.length).toBeGreaterThan(20);
    for (const { module, names } of modules) {
      expect(names, module).not.toEqual([]);
      const found = pages.map((page) => basename(page, '.html'));
      expect(names.filter((name) => !found.includes(`${module.replace('/', '_')}.${name}`))).toEqual([]);
    }
  });

  it('has every document of docs/ in its navigation, guides first, then the modules in the order of package.json', () => {
    const tree = navigation();
    expect(tree.map(({ text }) => text)).toEqual(['Guides', 'Reference', 'Background']);
    expect(tree[1]?.children?.map(({ text }) => text)).toEqual(modules.map(({ module }) => module));
    const listed = tree.flatMap(({ children = [] }) => children.map(({ path = '' }) => path)).sort();
    const documents = readdirSync(join(root, 'docs'))
      .filter((name) => name.endsWith('.md') && name !== 'index.md')
      .map((name) => `documents/${name.replace('.md', '.html')}`);
    const references = modules.map(({ module }) => `modules/${module.replace('/', '_')}.html`);
    expect(listed).toEqual([...documents, ...references].sort());
  });

  it('has no link that leads nowhere', () => {
    expect(pages.length).toBeGreaterThan(30);
    expect(pages.flatMap((page) => brokenLinks(page, read))).toEqual([]);
    const planted = '<a href="documents/nothing.html"> <a href="#nothing"> <img src="media/nothing.svg">';
    expect(brokenLinks(join(site, 'index.html'), () => planted)).toHaveLength(3);
  });

  it('carries llms.txt with links to files beside it, and llms-full.txt with every page and every declaration', () => {
    const short = read(join(site, 'llms.txt'));
    expect(short).toMatch(/^# redrafter\n\n> .+/);
    const links = [...short.matchAll(/^- \[.+?\]\((.+?)\): /gm)].map((match) => match[1] ?? '');
    expect(links.filter((link) => !existsSync(join(site, link)))).toEqual([]);
    const full = read(join(site, 'llms-full.txt'));
    for (const link of links.filter((name) => name.endsWith('.md')))
      expect(full).toContain(read(join(site, link)).trim());
    for (const { module, names } of modules) {
      const [, rest = ''] = full.split(`\n## ${module}\n\n\`\`\`ts\n`);
      const code = rest.slice(0, rest.indexOf('\n```'));
      const declared = [...code.matchAll(/^(?:abstract )?(?:class|interface|type|function|const) (\w+)/gm)].map(
        (match) => match[1],
      );
      expect(declared).toEqual(names);
    }
    expect(full).not.toMatch(/^ +private |@internal/m);
  });
});
