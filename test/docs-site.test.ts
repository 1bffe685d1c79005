/** `npm run docs`: the site is built without a warning, is complete, and no link in it leads nowhere. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';

import ts from 'typescript';
import { beforeAll, describe, expect, it } from 'vitest';

import { buildDocs } from '../scripts/docs.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const site = join(root, 'build/docs-test');

/** Names that lib/index.ts exports, read by the compiler. */
function publicNames(): string[] {
  const file = join(root, 'lib/index.ts');
  const program = ts.createProgram([file], { module: ts.ModuleKind.NodeNext, skipLibCheck: true });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(file);
  const symbol = source === undefined ? undefined : checker.getSymbolAtLocation(source);
  return symbol === undefined ? [] : checker.getExportsOfModule(symbol).map(({ name }) => name);
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
    const names = publicNames();
    expect(names.length).toBeGreaterThan(20);
    const found = pages.map((page) => /redrafter\.(\w+)\.html$/.exec(page)?.[1]);
    expect(names.filter((name) => !found.includes(name))).toEqual([]);
  });

  it('has every document of docs/ in its navigation, guides first', () => {
    const tree = navigation();
    expect(tree.map(({ text }) => text)).toEqual(['Guides', 'Reference', 'Background']);
    const listed = tree.flatMap(({ children = [] }) => children.map(({ path = '' }) => path)).sort();
    const documents = readdirSync(join(root, 'docs'))
      .filter((name) => name.endsWith('.md') && name !== 'index.md')
      .map((name) => `documents/${name.replace('.md', '.html')}`);
    expect(listed).toEqual([...documents, 'modules/redrafter.html'].sort());
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
    const declared = [...full.matchAll(/^(?:abstract )?(?:class|interface|type|function|const) (\w+)/gm)].map(
      (match) => match[1],
    );
    expect(publicNames().filter((name) => !declared.includes(name))).toEqual([]);
    expect(full).not.toMatch(/^ +private |@internal/m);
  });
});
