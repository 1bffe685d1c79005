// Builds the binary of this platform into prebuilds/ (npm run prebuildify). With --max-glibc=2.28 it fails if the
// binary asks for more, so that a release cannot raise what it needs without notice. With --cuda the CUDA library and the
// program that tries it go beside it, and it fails if they were not built.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { root, runTool, windows } from './tools.mjs';

/** @param {string} message @returns {never} */
function stop(message) {
  console.error(`prebuild: ${message}`);
  process.exit(1);
}

/** @param {string} a @param {string} b */
function compareVersions(a, b) {
  const [x, y] = [a.split('.').map(Number), b.split('.').map(Number)];
  const longest = x.length > y.length ? x : y;
  return longest.map((_, i) => (x[i] ?? 0) - (y[i] ?? 0)).find((difference) => difference !== 0) ?? 0;
}

/** The newest version of a symbol set that a Linux binary asks for (GLIBC_2.34: 2.34). @param {string} text @param {string} set */
function newestVersion(text, set) {
  const versions = [...text.matchAll(new RegExp(`\\b${set}_(\\d+(?:\\.\\d+)+)`, 'g'))].map((match) => match[1] ?? '');
  return versions.sort(compareVersions).at(-1);
}

const limit = process.argv.find((arg) => arg.startsWith('--max-glibc='))?.slice('--max-glibc='.length);
const platform = `${process.platform}-${process.arch}`;
rmSync(join(root, 'prebuilds', platform), { recursive: true, force: true });
mkdirSync(join(root, 'build/prebuild'), { recursive: true });
const gyp = `"${process.execPath}" "${join(root, 'scripts/prebuild-gyp.mjs')}"`; // a command line: hence --shell
const options = ['--napi', '--strip', '--tag-libc', '--name=redrafter', '--cwd=build/prebuild', '--out=.', '--shell'];
if (!runTool('prebuildify/bin.js', [...options, '--node-gyp', gyp], { quiet: true })) stop('failed, see above');
if (process.argv.includes('--cuda')) {
  for (const file of windows
    ? ['redrafter_cuda.dll', 'redrafter_cuda_probe.exe']
    : ['redrafter_cuda.so', 'redrafter_cuda_probe']) {
    const built = join(root, 'build/Release', file);
    if (!existsSync(built)) stop('the CUDA library was not built, `npm run build` says why');
    copyFileSync(built, join(root, 'prebuilds', platform, file)); // the mode, too
  }
}

for (const file of readdirSync(join(root, 'prebuilds', platform))) {
  const text = readFileSync(join(root, 'prebuilds', platform, file), 'latin1');
  const [glibc, libstdcxx] = [newestVersion(text, 'GLIBC'), newestVersion(text, 'GLIBCXX')];
  const needs = [glibc && `glibc ${glibc}`, libstdcxx && `libstdc++ with GLIBCXX_${libstdcxx}`].filter(Boolean);
  console.log(`prebuild: prebuilds/${platform}/${file}${needs.length > 0 ? ` needs ${needs.join(', ')}` : ''}`);
  if (limit !== undefined && (glibc === undefined || compareVersions(glibc, limit) > 0)) {
    stop(`${file} needs glibc ${glibc ?? '(unknown)'}, allowed is ${limit}`);
  }
}
