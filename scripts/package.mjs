// Makes the npm package (npm run package): the binary of this platform, then the tarball. The last line printed is its
// path. --keep-prebuilds packs prebuilds/ as it lies, which is how a release puts the binaries of all platforms together.
// --cuda packs the CUDA library and the program that tries it, too; without, it is left out, as long as it has never run on a device.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { npm, root, run } from './tools.mjs';

const LIMIT = 50e6; // bytes unpacked, without models/
const CUDA = /redrafter_cuda(_probe)?(\.\w+)?$/;
const CUDA_LIMIT = 16e6; // of them in one file of CUDA of one platform

/** @typedef {{ path: string, size: number, mode: number }} File */
/** @typedef {{ filename: string, size: number, files: File[] }} Packed */

/** @param {string} message @returns {never} */
function stop(message) {
  console.error(`package: ${message}`);
  process.exit(1);
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

const { values } = parseArgs({
  options: {
    out: { type: 'string' },
    'keep-prebuilds': { type: 'boolean', default: false },
    cuda: { type: 'boolean', default: false },
  },
});
const out = values.out === undefined ? join(root, 'build/package') : resolve(values.out);

if (!values['keep-prebuilds']) {
  rmSync(join(root, 'prebuilds'), { recursive: true, force: true }); // nothing that was built from other sources
  if (!run(process.execPath, ['scripts/prebuildify.mjs', ...(values.cuda ? ['--cuda'] : [])])) process.exit(1);
}

// Files that went through an archive of a workflow may have lost their mode.
for (const path of readdirSync(join(root, 'prebuilds'), { recursive: true, encoding: 'utf8' })) {
  if (/redrafter_cuda_probe$/.test(path)) chmodSync(join(root, 'prebuilds', path), 0o755);
}
mkdirSync(out, { recursive: true });
const [command, args] = npm('pack', '--json', '--pack-destination', out);
const { status, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
if (status !== 0) stop(`npm pack failed\n${stderr}`);
/** @type {unknown} */
const json = JSON.parse(stdout);
const [packed] = /** @type {Packed[]} */ (json);
if (packed === undefined) stop('npm pack made nothing');

/** @type {Map<string, File[]>} */
const groups = new Map();
for (const file of packed.files) {
  const [top = '', second = ''] = file.path.split('/');
  const group = top === 'prebuilds' ? `${top}/${second}` : top;
  groups.set(group, [...(groups.get(group) ?? []), file]);
}
let rest = 0;
for (const [group, files] of groups) {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (group !== 'models') rest += size;
  console.log(`  ${group.padEnd(24)} ${String(files.length).padStart(4)}  ${megabytes(size).padStart(9)}`);
}

// What would break an installation, or every installation but this one.
for (const path of ['dist/index.js', 'dist/index.mjs', 'dist/package.json', 'dist/cli/main.js', 'CMakeLists.txt']) {
  if (!packed.files.some((file) => file.path === path)) stop(`${path} is missing`);
}
if (!packed.files.some(({ path }) => /^prebuilds\/.*\.node$/.test(path))) stop('there is no binary in prebuilds/');
for (const { path, size } of packed.files.filter(({ path }) => CUDA.test(path))) {
  if (!values.cuda) stop(`${path} is there, without --cuda`);
  console.log(`package: ${path} is ${megabytes(size)} of it`);
  if (size >= CUDA_LIMIT) stop(`${path} is ${megabytes(size)}, allowed are ${megabytes(CUDA_LIMIT)}`);
}
for (const { path } of packed.files.filter(({ path }) => /redrafter_cuda\.\w+$/.test(path))) {
  const probe = packed.files.find(
    (file) => file.path === path.replace(/\.so$/, '_probe').replace(/\.dll$/, '_probe.exe'),
  );
  if (probe === undefined) stop(`${path} is there, without the program that tries it`);
  if ((probe.mode & 0o111) === 0) stop(`${probe.path} cannot be executed`);
}
/** @type {unknown} */
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { scripts } = /** @type {{ scripts: Record<string, string> }} */ (manifest);
for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) {
  if (name in scripts) stop(`package.json has the script ${name}: nothing may run at install time`);
}
if (rest >= LIMIT) stop(`${megabytes(rest)} without models, allowed are ${megabytes(LIMIT)}`);

console.log(`package: ${megabytes(packed.size)} packed, ${megabytes(rest)} unpacked without models`);
console.log(join(out, packed.filename));
