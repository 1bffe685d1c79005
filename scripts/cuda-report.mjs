// What the CUDA kernels come to, from the compiler (npm run cuda:report): registers, shared memory, stack and spills of
// each kernel on each architecture, and how often the instructions occur that a fast kernel is made of.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';

import { capture, root } from './tools.mjs';

const HELP = `usage: npm run cuda:report -- [options] [FILE.cu ...]

Compiles the kernels (all of CUDA_SOURCES in CMakeLists.txt, or these files) as the build does and prints a row per kernel
and architecture. Needs nvcc, no device.

  --arch LIST       architectures, as 80,90a (default: those that the build has machine code for)
  --kernel PATTERN  only kernels whose name matches this regular expression
  --tsv             columns separated by tabs
  --json            one JSON object
  --help            this

Columns: reg registers per thread; shared bytes of static shared memory; stack, st, ld bytes of stack and of spill stores and
loads per thread; mma, ld16, async, ldsm occurrences of matrix instructions, 16-byte loads from global memory, asynchronous
copies and matrix loads: of SASS where cuobjdump is in PATH, else of PTX, which the table says.

Exit code 1 when a hot kernel (${hotNames()}) uses stack or spills, or something does not compile; 2 for wrong usage.`;

/** As in cmake/cuda.cmake, less what makes a warning an error. */
const FLAGS = ['-std=c++20', '-O3', '-fmad=false', '--expt-relaxed-constexpr'];

/**
 * @typedef {{ mma: number, ld16: number, async: number, ldsm: number }} Counts
 * @typedef {{ registers: number, shared: number, stack: number, spillStores: number, spillLoads: number }} Resources
 * @typedef {{ file: string, kernel: string, arch: string, hot: boolean } & Resources & Counts} Row
 */

/** Kernels that read weights or the KV cache, by how their names begin. */
function hotNames() {
  return 'matmul, attention, cell, product, head';
}

/** @param {string} kernel */
function isHot(kernel) {
  return new RegExp(`^(${hotNames().split(', ').join('|')})_`).test(kernel);
}

/** @type {Record<'ptx' | 'sass', Record<keyof Counts, RegExp>>} */
const INSTRUCTIONS = {
  ptx: {
    mma: /^\s*(@!?%p\d+ )?(mma\.sync|wgmma\.mma_async)\b/,
    ld16: /^\s*(@!?%p\d+ )?ld\.global(\.\w+|::\w+)*\.(v4\.[bufs]32|v2\.[bufs]64|b128)\b/,
    async: /^\s*(@!?%p\d+ )?cp\.async\.c[ag]\./,
    ldsm: /^\s*(@!?%p\d+ )?ldmatrix\./,
  },
  sass: {
    mma: /\b(HMMA|HGMMA)\b/,
    ld16: /\bLDG\.[\w.]*\b128\b/,
    async: /\bLDGSTS\b/,
    ldsm: /\bLDSM\b/,
  },
};

/** @param {string} message @param {number} [code] @returns {never} */
function stop(message, code = 1) {
  console.error(`cuda:report: ${message}`);
  process.exit(code);
}

/** A variable's list in a CMake file. @param {string} file @param {string} name */
function cmakeList(file, name) {
  const text = readFileSync(join(root, file), 'utf8').replaceAll(/#.*$/gm, '');
  const list = new RegExp(`set\\(${name}\\s([^)]*)\\)`).exec(text)?.[1];
  if (list === undefined) stop(`there is no ${name} in ${file}`);
  return list.replace(/\sCACHE[\s\S]*/, '').trim().split(/\s+/); // prettier-ignore
}

/** A kernel without return type, our namespaces and parameters: `matmul_kernel<Bf16, 8>`. @param {string} name */
function shorten(name) {
  const plain = name
    .replaceAll(/\(anonymous namespace\)::|_GLOBAL__N_\w*::|redrafter::/g, '')
    .replaceAll(/\((?:unsigned )?(?:int|bool|char|long)\)/g, '')
    .replace(/^void /, '');
  let depth = 0; // the parameters begin at the first bracket outside of template arguments
  for (let i = 0; i < plain.length; i++) {
    if (plain[i] === '<') depth++;
    if (plain[i] === '>') depth--;
    if (plain[i] === '(' && depth === 0) return plain.slice(0, i);
  }
  return plain;
}

/** @param {string[]} names mangled @returns {Map<string, string>} readable ones, where c++filt is */
function demangle(names) {
  const lines =
    capture('c++filt', [], `${names.join('\n')}\n`)
      ?.trimEnd()
      .split('\n') ?? names;
  return new Map(names.map((name, i) => [name, shorten(lines[i] ?? name)]));
}

/** What `ptxas -v` says of each kernel, by mangled name. @param {string} text @returns {Map<string, Resources>} */
function readResources(text) {
  /** @type {Map<string, Resources>} */
  const kernels = new Map();
  const entries = text.split(/Compiling entry function '/).slice(1);
  for (const entry of entries) {
    const name = entry.slice(0, entry.indexOf("'"));
    // The properties of functions that were not inlined come before or after with names of their own.
    const own = entry.slice(entry.indexOf(`Function properties for ${name}`));
    const frame = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(own);
    const used = /Used (\d+) registers/.exec(entry);
    if (frame === null || used === null) stop(`ptxas does not say what ${name} uses`);
    kernels.set(name, {
      registers: Number(used[1]),
      shared: Number(/(\d+) bytes smem/.exec(entry)?.[1] ?? 0),
      stack: Number(frame[1]),
      spillStores: Number(frame[2]),
      spillLoads: Number(frame[3]),
    });
  }
  return kernels;
}

/** The text of each kernel in an assembly listing. @param {'ptx' | 'sass'} kind @param {string} text */
function bodies(kind, text) {
  const begin = kind === 'ptx' ? /^(?:\.visible |\.weak )*\.entry (\w+)\(/gm : /^\s*Function : (\S+)$/gm;
  const starts = [...text.matchAll(begin)];
  return new Map(
    starts.map(({ 1: name = '', index }, i) => {
      const body = text.slice(index, starts[i + 1]?.index);
      return [name, kind === 'ptx' ? (body.split(/^}/m)[0] ?? '') : body];
    }),
  );
}

/** @param {'ptx' | 'sass'} kind @param {string} body @returns {Counts} */
function countInstructions(kind, body) {
  const lines = body.split('\n');
  const count = (/** @type {RegExp} */ pattern) => lines.filter((line) => pattern.test(line)).length;
  const { mma, ld16, async, ldsm } = INSTRUCTIONS[kind];
  return { mma: count(mma), ld16: count(ld16), async: count(async), ldsm: count(ldsm) };
}

const execute = promisify(execFile);

/** @param {string} file @param {string} arch @param {'ptx' | 'sass'} kind @param {string} folder @returns {Promise<Row[]>} */
async function compile(file, arch, kind, folder) {
  const own = mkdtempSync(join(folder, `${basename(file, '.cu')}-${arch}-`));
  const cubin = join(own, 'kernels.cubin');
  const args = [...FLAGS, `-I${join(root, 'native')}`, `-arch=sm_${arch}`, '-Xptxas=-v', '--keep', '--keep-dir', own];
  /** @type {{ stdout: string, stderr: string }} */
  let output;
  try {
    output = await execute('nvcc', [...args, '-cubin', '-o', cubin, file], { cwd: own, maxBuffer: 1 << 28 });
  } catch (error) {
    stop(`${file} does not compile for sm_${arch}\n${String(/** @type {{ stderr?: string }} */ (error).stderr)}`);
  }
  const resources = readResources(output.stdout + output.stderr);
  const listing =
    kind === 'ptx'
      ? readFileSync(join(own, `${basename(file, '.cu')}.ptx`), 'utf8')
      : (await execute('cuobjdump', ['-sass', cubin], { maxBuffer: 1 << 30 })).stdout;
  const texts = bodies(kind, listing);
  const names = demangle([...resources.keys()]);
  return [...resources].map(([mangled, used]) => {
    const body = texts.get(mangled);
    if (body === undefined) stop(`${mangled} is not in the ${kind} of ${file}`);
    const kernel = names.get(mangled) ?? mangled;
    const counts = countInstructions(kind, body);
    return { file: basename(file), kernel, arch: `sm_${arch}`, hot: isHot(kernel), ...used, ...counts };
  });
}

/** @param {Row[]} rows @param {boolean} tabs */
function table(rows, tabs) {
  const head = ['kernel', 'arch', 'reg', 'shared', 'stack', 'st', 'ld', 'mma', 'ld16', 'async', 'ldsm'];
  const cells = rows.map((r) =>
    [r.kernel, r.arch, r.registers, r.shared, r.stack, r.spillStores, r.spillLoads, r.mma, r.ld16, r.async, r.ldsm].map(
      String,
    ),
  );
  const all = [head, ...cells];
  if (tabs) return all.map((row) => row.join('\t'));
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  const pad = (/** @type {string} */ cell, /** @type {number} */ i) =>
    i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
  return all.map((row) => row.map(pad).join('  ').trimEnd());
}

function readOptions() {
  try {
    return parseArgs({
      options: {
        arch: { type: 'string' },
        kernel: { type: 'string' },
        tsv: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
      allowPositionals: true,
    });
  } catch (error) {
    stop(/** @type {Error} */ (error).message, 2);
  }
}

const { values, positionals } = readOptions();
if (values.help) {
  console.log(HELP);
  process.exit(0);
}
const architectures =
  values.arch?.split(',').map((arch) => arch.replace(/^sm_/, '')) ??
  cmakeList('cmake/cuda.cmake', 'REDRAFTER_CUDA_ARCHITECTURES').filter((arch) => !arch.startsWith('ptx'));
for (const arch of architectures) if (!/^\d+[af]?$/.test(arch)) stop(`"${arch}" is no architecture`, 2);
/** @type {RegExp} */
let wanted;
try {
  wanted = new RegExp(values.kernel ?? '');
} catch (error) {
  stop(/** @type {Error} */ (error).message, 2);
}
if (capture('nvcc', ['--version']) === undefined) stop('there is no nvcc in PATH');
const kind = capture('cuobjdump', ['--version']) === undefined ? 'ptx' : 'sass';
const files =
  positionals.length > 0
    ? positionals.map((file) => resolve(file))
    : cmakeList('CMakeLists.txt', 'CUDA_SOURCES').map((file) => join(root, file));

const folder = mkdtempSync(join(tmpdir(), 'redrafter-cuda-'));
process.on('exit', () => {
  rmSync(folder, { recursive: true, force: true });
});
const jobs = files.flatMap((file) => architectures.map((arch) => ({ file, arch })));
/** @type {Row[][]} */
const found = jobs.map(() => []);
let next = 0;
async function work() {
  for (let i = next++; i < jobs.length; i = next++) {
    const job = jobs[i];
    if (job !== undefined) found[i] = await compile(job.file, job.arch, kind, folder);
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, work));

const rows = found.flat().filter(({ kernel }) => wanted.test(kernel));
if (values.json) console.log(JSON.stringify({ counts: kind, kernels: rows }));
else {
  for (const line of table(rows, values.tsv)) console.log(line);
  if (!values.tsv) console.log(`${rows.length} kernels; instructions as counted in ${kind.toUpperCase()}`);
}
for (const { kernel, arch, stack, spillStores, spillLoads } of rows.filter(({ hot }) => hot)) {
  if (stack + spillStores + spillLoads === 0) continue;
  console.error(`cuda:report: ${kernel} on ${arch} is hot and has ${stack} bytes of stack, ${spillStores} + ${spillLoads} of spills`); // prettier-ignore
  process.exitCode = 1;
}
