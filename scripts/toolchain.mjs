// What compiling the addon needs from the system. Part of the package: `redrafter build` runs this file and reads what
// it prints. Node built-ins only.
import { fileURLToPath } from 'node:url';

import { capture, windows } from './tools.mjs';

/** @typedef {{ tool: string, advice: string }} MissingTool what is needed, what there is, and how to install it */

const COMPILER = 'a C++20 compiler (GCC >= 11 or Clang >= 14)';

/** @param {string} debian @param {string} mac @param {string} [alpine] */
function advise(debian, mac, alpine = debian) {
  if (process.platform === 'darwin') return mac;
  return `sudo apt-get install ${debian} (Debian, Ubuntu), apk add ${alpine} (Alpine)`;
}

/**
 * @param {string} version
 * @param {[number, number]} least
 */
function atLeast(version, [major, minor]) {
  const [a = 0, b = 0] = version.split('.').map(Number);
  return a > major || (a === major && b >= minor);
}

/**
 * The first tool that is missing or too old.
 * @param {boolean} tryCompiler whether the compiler is also tried on a few lines of C++20
 * @returns {MissingTool | undefined}
 */
export function missingTool(tryCompiler) {
  const { node } = process.versions;
  if (!atLeast(node, [20, 17])) {
    return { tool: `Node.js >= 20.17, this is ${node}`, advice: 'see https://nodejs.org/en/download' };
  }
  const cmake = /version (\d+\.\d+)/.exec(capture('cmake', ['--version']) ?? '')?.[1];
  if (cmake === undefined || !atLeast(cmake, [3, 20])) {
    return {
      tool: `CMake >= 3.20, ${cmake === undefined ? 'there is none' : `found ${cmake}`}`,
      advice: windows ? 'https://cmake.org/download' : advise('cmake', 'brew install cmake'),
    };
  }
  if (windows) return undefined; // CMake finds Visual Studio by itself, outside of PATH
  if (capture('ninja', ['--version']) === undefined && capture('make', ['--version']) === undefined) {
    return { tool: 'make or ninja, there is neither', advice: advise('make', 'xcode-select --install') };
  }
  const advice = advise('g++', 'xcode-select --install');
  const compilers = process.env.CXX === undefined ? ['c++', 'g++', 'clang++'] : [process.env.CXX];
  const compiler = compilers.find((name) => capture(name, ['--version']) !== undefined);
  if (compiler === undefined) return { tool: `${COMPILER}, found none of ${compilers.join(', ')}`, advice };
  const probe = '#include <bit>\n#include <concepts>\n#include <span>\nint main() { return std::popcount(0u); }\n';
  if (tryCompiler && capture(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], probe) === undefined) {
    return { tool: `${COMPILER}, ${compiler} is older or incomplete`, advice };
  }
  return undefined;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(JSON.stringify(missingTool(true) ?? null));
