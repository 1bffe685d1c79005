#!/usr/bin/env node
// prebuildify calls this in the place of node-gyp; only the architecture matters to CMake, as Node-API binaries do
// not depend on the Node version. The test bindings are left out: what is built is what ships.
import { rmSync } from 'node:fs';
import { join } from 'node:path';

import { root, runTool } from './tools.mjs';

const arch = process.argv.find((arg) => arg.startsWith('--arch='))?.slice('--arch='.length) ?? process.arch;
rmSync(join(root, 'build'), { recursive: true, force: true });
const args = ['build', '-B', 'Release', '-a', arch, '--CDREDRAFTER_TESTING=OFF', '--CDREDRAFTER_STATIC_RUNTIME=ON'];
process.exitCode = runTool('cmake-js/bin/cmake-js', args) ? 0 : 1;
