// prebuildify starts this in the place of node-gyp, in build/prebuild, and takes build/Release/*.node from there. The
// addon is linked from the objects that the clone already has, with the C++ runtime inside (redrafter_portable in
// CMakeLists.txt): nothing in it depends on the Node version or on the test bindings.
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { root, runTool } from './tools.mjs';

const arch = process.argv.find((arg) => arg.startsWith('--arch='))?.slice('--arch='.length) ?? process.arch;
if (arch !== process.arch) {
  console.error(`prebuild: a binary for ${arch} must be built on ${arch}, this Node is ${process.arch}`);
  process.exit(1);
}
if (!runTool('cmake-js/bin/cmake-js', ['build', '-B', 'Release', '-T', 'redrafter_portable', '-l', 'error']))
  process.exit(1);
const output = 'build/Release';
rmSync(output, { recursive: true, force: true });
mkdirSync(output, { recursive: true });
copyFileSync(join(root, 'build/portable/redrafter.node'), join(output, 'redrafter.node'));
