/** The import rules of docs/architecture.md, and the limit on file length, checked over the sources. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Files below a folder, relative to the package root. */
function filesIn(folder: string, pattern: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length).replaceAll('\\', '/'))
    .filter((path) => !path.startsWith('test/fixtures/') && !path.includes('/node_modules/'));
}

/** What a C++ file includes: `"..."` as it is, `<...>` with the brackets. */
function includesOf(source: string): string[] {
  return [...source.matchAll(/^\s*#\s*include\s*(?:"([^"]+)"|(<[^>]+>))/gm)].map(
    ([, own, system]) => own ?? system ?? '',
  );
}

/** What a TypeScript file imports, by any of the ways there are. */
function importsOf(source: string): string[] {
  return [...source.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*)(['"])([^'"]+)\1/g)].map(
    (match) => match[2] ?? '',
  );
}

const NAPI = /^<?(napi|node_api|js_native_api|uv|v8|node)([.\-_/>]|$)/;
const CUDA = /^<?(cuda|cuda_[a-z0-9_]+|cublas|nvrtc|cooperative_groups|mma)(\.h|\.hpp|\/|_)|\.cuh>?$|(^|\/)device\.cuh/;
const LAYERS = ['addon', 'engine', 'spec', 'kv', 'model', 'probe', 'ops', 'io', 'base'] as const;
type Layer = (typeof LAYERS)[number];

interface Rule {
  /** Layers it may include from. */
  uses: readonly Layer[];
  /** Further includes it must not have. */
  never: readonly RegExp[];
  /** Words its code must not contain. */
  words?: RegExp;
}

const RULES: Record<Layer, Rule> = {
  addon: { uses: ['addon', 'engine', 'io', 'base'], never: [CUDA] },
  engine: {
    uses: ['engine', 'spec', 'kv', 'model', 'io', 'ops', 'base'],
    never: [NAPI, CUDA, /families\//],
    words: /\b[a-z]\w*_(cpu|cuda)\b/,
  },
  spec: {
    uses: ['spec', 'kv', 'model', 'io', 'ops', 'base'],
    never: [NAPI, CUDA, /families\//],
    words: /\b[a-z]\w*_(cpu|cuda)\b/,
  },
  kv: { uses: ['kv', 'ops', 'base'], never: [NAPI, CUDA, /families\//], words: /\b[a-z]\w*_(cpu|cuda)\b/ },
  model: { uses: ['model', 'ops', 'io', 'base'], never: [NAPI, CUDA] },
  probe: { uses: ['probe', 'ops', 'base'], never: [NAPI, CUDA], words: /\b[a-z]\w*_(cpu|cuda)\b/ },
  ops: { uses: ['ops', 'base'], never: [NAPI] },
  io: { uses: ['io', 'base'], never: [NAPI, CUDA] },
  base: { uses: ['base'], never: [NAPI] },
};

/** Headers of ops/ that serve all ops; every other header there belongs to one op. */
const OPS_SHARED = new Set(['ops', 'top', 'panel', 'panel_simd', 'product_simd', 'matmul_quant', 'quant_simd', 'lanes_simd', 'math_simd', 'cuda', 'cuda_entry', 'companion', 'companion_library', 'probe_report', 'throwing']); // prettier-ignore

/** The only files that know of the emulator of the tests, in `#if defined(REDRAFTER_SIMT)`. */
const EMULATED = new Set(['native/base/device.cuh', 'native/base/ptx.cuh']);

/** Comments and strings out of the way. */
function code(source: string): string {
  return source.replaceAll(/\/\/.*$/gm, '').replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/"(\\.|[^"\\\n])*"/g, '""'); // prettier-ignore
}

/** The breaches of a native source file. */
function nativeBreaches(path: string, source: string): string[] {
  const layer = path.split('/')[1] as Layer;
  const rule = RULES[layer];
  const breaches: string[] = [];
  for (const include of includesOf(source)) {
    const from = LAYERS.find((other) => include.startsWith(`${other}/`));
    if (from !== undefined && !rule.uses.includes(from)) breaches.push(`${path} includes ${include}`);
    if (rule.never.some((pattern) => pattern.test(include))) breaches.push(`${path} includes ${include}`);
    if (CUDA.test(include) && !/\.cuh?$/.test(path)) breaches.push(`${path} includes ${include}`);
  }
  const emulator = EMULATED.has(path) ? withoutEmulator(source) : source;
  if (includesOf(emulator).some((include) => include.startsWith('testing/'))) breaches.push(`${path} includes tests`);
  if (!EMULATED.has(path) && source.includes('REDRAFTER_SIMT')) breaches.push(`${path} names the emulator`);
  const word = rule.words?.exec(code(source))?.[0];
  if (word !== undefined) breaches.push(`${path} names ${word}`);
  return breaches;
}

/** `ops/embed.h`, `ops/embed_simd.cc`: `embed`. */
function stem(path: string): string {
  return path.replace(/^.*\//, '').replace(/(_simd)?\.\w+$/, '');
}

/** Files of ops/ that include what belongs to another op. */
function opBreaches(files: ReadonlyMap<string, string>): string[] {
  const isOp = (include: string): boolean => /^ops\/\w+\.h$/.test(include) && !OPS_SHARED.has(include.slice(4, -2));
  /** The headers of ops that a file sees, directly or through a .cuh. */
  const opsOf = (path: string): string[] =>
    includesOf(files.get(path) ?? '').flatMap((include) =>
      include.endsWith('.cuh') ? opsOf(`native/${include}`) : isOp(include) ? [include] : [],
    );
  return [...files].flatMap(([path, source]) => {
    if (includesOf(source).some((include) => /\.(cu|cc)$/.test(include))) return [`${path} includes a source file`];
    if (/\.cuh?$/.test(path)) {
      const ops = new Set(opsOf(path));
      return ops.size > 1 ? [`${path} includes ${[...ops].join(' and ')}`] : [];
    }
    if (OPS_SHARED.has(stem(path)) || /(panel|math)_simd/.test(path)) return [];
    return includesOf(source)
      .filter((include) => isOp(include) && stem(include) !== stem(path))
      .map((include) => `${path} includes ${include}`);
  });
}

/** What `#if defined(REDRAFTER_SIMT)` leaves to the other compiler. */
function withoutEmulator(source: string): string {
  return source.replaceAll(/#if defined\(REDRAFTER_SIMT\)[\s\S]*?#(else|endif)/g, '');
}

/** The one file that takes types from the AI SDK, an optional peer that is not there at run time. */
const AI_SDK_TYPES = { path: 'lib/ai-sdk/spec.ts', name: '@ai-sdk/provider' };

/** The breaches of a file of lib/. */
function libBreaches(path: string, source: string, dependencies: readonly string[]): string[] {
  return importsOf(source)
    .filter((name) => {
      if (name === 'node-gyp-build' || name.endsWith('.node')) return path !== 'lib/native.ts';
      if (name.startsWith('.')) {
        const outer = ['server', 'cli'].find((folder) => new RegExp(`^(\\.\\.?/)+${folder}/`).test(name));
        if (outer !== undefined && !path.startsWith('lib/cli/')) return true;
        return !/^(\.\.?\/)+[\w./-]+\.(js|json)$/.test(name) || name.includes('test/');
      }
      if (path === AI_SDK_TYPES.path && name === AI_SDK_TYPES.name)
        return /\b(import|export) (?!type)/.test(code(source));
      const own = dependencies.some((dependency) => name === dependency || name.startsWith(`${dependency}/`));
      return !name.startsWith('node:') && !own;
    })
    .map((name) => `${path} imports ${name}`);
}

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
const names = Object.keys(dependencies);
const nativeFiles = filesIn('native', /\.(h|cc|cu|cuh)$/).filter((path) => !path.startsWith('native/testing/'));

describe('layers', () => {
  it('native code includes only what lies below it', () => {
    expect(nativeFiles.length).toBeGreaterThan(20);
    expect(nativeFiles.flatMap((path) => nativeBreaches(path, read(path)))).toEqual([]);
  });

  it('every native file lies in a layer', () => {
    expect(nativeFiles.filter((path) => !LAYERS.includes(path.split('/')[1] as Layer))).toEqual([]);
  });

  it('lib/ imports Node, its own files and named dependencies, and loads the addon in one place', () => {
    const files = filesIn('lib', /\.ts$/);
    expect(files.flatMap((path) => libBreaches(path, read(path), names))).toEqual([]);
    expect(files.filter((path) => /dlopen|node-gyp-build/.test(read(path)))).toEqual(['lib/native.ts']);
  });

  it('catches planted breaches', () => {
    const planted: [path: string, source: string][] = [
      ['native/engine/x.cc', '#include <napi.h>'],
      ['native/engine/x.cc', '#include <cuda_runtime.h>'],
      ['native/engine/x.cc', '#include "model/families/llama.h"'],
      ['native/engine/x.cc', 'matmul_cpu(params);'],
      ['native/spec/x.cc', '#include "engine/engine.h"'],
      ['native/spec/x.cc', '  auto f = norm_cuda;'],
      ['native/kv/x.cc', '#include "spec/tree.h"'],
      ['native/model/x.cc', '#include "spec/round.h"'],
      ['native/probe/x.cc', '#include "model/weights.h"'],
      ['native/ops/x.cc', '#include "probe/self_test.h"'],
      ['native/model/x.cc', '#include "addon/convert.h"'],
      ['native/ops/x.cc', '#include "model/forward.h"'],
      ['native/ops/x.cc', '#include <cuda_runtime.h>'],
      ['native/ops/x.cc', '#include "base/device.cuh"'],
      ['native/io/x.cc', '#include "ops/ops.h"'],
      ['native/base/x.h', '#include "io/file.h"'],
      ['native/base/x.h', '# include <node_api.h>'],
      ['native/addon/x.cc', '#include "ops/matmul.h"'],
      ['native/addon/x.cc', '#include "model/weights.h"'],
      ['native/base/x.h', '#include <cuda_runtime.h>'],
      ['native/base/x.h', '#include "base/device.cuh"'],
      ['native/ops/x.h', '#include "ops/strip.cuh"'],
      ['native/model/x.cu', '#include <cuda_fp16.h>'],
      ['native/ops/x.cu', '#include "testing/simt/simt.h"'],
      ['native/ops/x.cu', '#if defined(REDRAFTER_SIMT)\n#endif'],
      ['native/base/device.cuh', '#include "testing/simt/simt.h"\n#if defined(REDRAFTER_SIMT)\n#endif'],
    ];
    for (const [path, source] of planted) expect(nativeBreaches(path, source), source).not.toEqual([]);
    const imports = ["from './build/x.node'", "require('../build/Release/redrafter.node')", "from 'node-gyp-build'", "from 'lodash'", "import('../test/kit/x.js')", "from './server/server.js'", "from './cli/output.js'"]; // prettier-ignore
    for (const source of imports) expect(libBreaches('lib/x.ts', source, names), source).not.toEqual([]);
    const { path: typesOnly, name: peer } = AI_SDK_TYPES;
    expect(libBreaches('lib/x.ts', `import type { X } from '${peer}'`, names)).not.toEqual([]);
    expect(libBreaches(typesOnly, `export { X } from '${peer}'`, names)).not.toEqual([]);
    expect(libBreaches(typesOnly, `export type { X } from '${peer}'`, names)).toEqual([]);
    const fine: [path: string, source: string][] = [
      ['native/ops/x.cu', '#include <cuda_runtime.h>'],
      ['native/base/x.cuh', '#include <cuda_bf16.h>'],
      ['native/base/device.cuh', '#if defined(REDRAFTER_SIMT)\n#include "testing/simt/simt.h"\n#endif'],
      ['native/engine/x.cc', '// matmul_cpu is the oracle\nlog("norm_cuda");'],
      ['native/addon/x.cc', '#include <napi.h>\n#include "engine/engine.h"'],
    ];
    for (const [path, source] of fine) expect(nativeBreaches(path, source), source).toEqual([]);
    expect(libBreaches('lib/x.ts', "from 'node:fs'; from './y.js'; from 'commander'", names)).toEqual([]);
  });
});

describe('ops', () => {
  const files = new Map(nativeFiles.filter((path) => path.startsWith('native/ops/')).map((path) => [path, read(path)]));

  it('include no file of another op', () => {
    expect(opBreaches(files)).toEqual([]);
  });

  it('which is seen', () => {
    const breaches = (path: string, source: string): string[] => opBreaches(new Map([...files, [path, source]]));
    expect(breaches('native/ops/embed.cc', '#include "ops/norm.h"')).not.toEqual([]);
    expect(breaches('native/ops/embed_simd.cc', '#include "ops/embed.h"')).toEqual([]);
    // Kernels: one op's header, also through what they share; never another's kernels.
    expect(breaches('native/ops/x.cu', '#include "ops/embed.h"\n#include "ops/norm.h"')).not.toEqual([]);
    expect(breaches('native/ops/x.cu', '#include "ops/embed.h"\n#include "ops/embed.h"')).toEqual([]);
    expect(breaches('native/ops/x.cu', '#include "ops/cuda.cu"')).not.toEqual([]);
    const shared = new Map([...files, ['native/ops/y.cuh', '#include "ops/norm.h"']]);
    expect(opBreaches(new Map([...shared, ['native/ops/x.cu', '#include "ops/y.cuh"']]))).toEqual([]);
    const both = '#include "ops/y.cuh"\n#include "ops/embed.h"';
    expect(opBreaches(new Map([...shared, ['native/ops/x.cu', both]]))).not.toEqual([]);
  });
});

describe('files', () => {
  const HARD_LIMIT = 600;
  const lines = (source: string): number => source.split('\n').length - 1;

  it(`have at most ${HARD_LIMIT} lines`, () => {
    const sources = ['lib', 'native', 'test', 'scripts', 'train', 'bench', 'examples'].flatMap((folder) =>
      filesIn(folder, /\.(ts|mjs|h|cc|cu|cuh|py)$/),
    );
    expect(sources.filter((path) => lines(read(path)) > HARD_LIMIT)).toEqual([]);
    expect(lines('x\n'.repeat(HARD_LIMIT + 1))).toBeGreaterThan(HARD_LIMIT);
  });

  it('of the addon have under 800 lines in all', () => {
    const addon = nativeFiles.filter((path) => path.startsWith('native/addon/'));
    expect(addon.reduce((sum, path) => sum + lines(read(path)), 0)).toBeLessThan(800);
  });
});
