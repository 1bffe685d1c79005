/** Says why the addon could not be loaded, from what Node and the system's loader said. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { RedrafterError } from './errors.js';
import { isClone, packageRoot } from './package-root.js';

/** What is known of the system when loading fails; passed in by tests. */
export interface System {
  /** As in process.platform and process.arch: `linux-x64`. */
  platform: string;
  /** Version of the running glibc; undefined elsewhere (musl, macOS, Windows). */
  glibc: string | undefined;
  /** The binaries in prebuilds/, as `linux-x64 (glibc)`. */
  prebuilds: readonly string[];
  clone: boolean;
  /** Whether package.json lies where it belongs; a bundler that copies the library elsewhere leaves it behind. */
  complete: boolean;
}

interface Explanation {
  message: string;
  /** What helps; undefined where compiling does. */
  remedy?: string;
}

/** The first pattern that matches decides. The texts are those of glibc, musl, macOS, Windows, and Node itself. */
const EXPLANATIONS: [pattern: RegExp, explain: (match: RegExpExecArray, system: System) => Explanation][] = [
  [
    /No native build was found/,
    ({ input }, { platform, glibc, prebuilds, clone }) => {
      if (clone) return { message: 'it is not built yet' };
      // What was looked for, which environment variables can change; else what this system is.
      const wanted = /platform=(\S+) arch=(\S+)/.exec(input);
      const target = wanted === null ? platform : `${wanted[1] ?? ''}-${wanted[2] ?? ''}`;
      const libc = /libc=(\S+)/.exec(input)?.[1] ?? (glibc === undefined ? 'musl' : 'glibc');
      const has = prebuilds.length === 0 ? 'none' : prebuilds.join(', ');
      const wantedLibc = target.startsWith('linux') ? ` (${libc})` : '';
      return { message: `there is no prebuilt binary for ${target}${wantedLibc}; this package has ${has}` };
    },
  ],
  [
    /version [`'"]?(GLIBC_[\d.]+)'? not found/,
    ([, version = ''], { glibc }) => ({
      message: `it needs ${version.replace('_', ' ')} or newer, this system has ${glibc ?? 'another C library'}`,
    }),
  ],
  [
    /version [`'"]?((?:GLIBCXX|CXXABI)_[\d.]+)'? not found/,
    ([, version = '']) => ({ message: `it needs a newer C++ runtime (libstdc++ with ${version})` }),
  ],
  [
    /libstdc\+\+\.so/,
    () => ({
      message: 'the C++ runtime is not installed',
      remedy: 'install libstdc++ (`apk add libstdc++`, `apt-get install libstdc++6`)',
    }),
  ],
  [
    /ld-linux|libc\.so\.6|libc\.musl|ld-musl|Error relocating/,
    (_, { glibc }) => ({
      message: `it is for another C library; this system has ${glibc === undefined ? 'musl' : `glibc ${glibc}`}`,
    }),
  ],
  [
    /invalid ELF|wrong ELF|file too short|Exec format|mach-o|incompatible architecture|not a valid Win32/i,
    (_, { platform }) => ({ message: `the file is damaged, or for another system than ${platform}` }),
  ],
];

const MOVED: Explanation = {
  message: 'the library was moved away from its package',
  remedy: 'if the program is bundled, mark redrafter as external and ship it in node_modules',
};

/** By the code of Node's own errors. */
const NODE_ERRORS: Record<string, Explanation> = {
  ERR_DLOPEN_DISABLED: {
    message: 'this process may not load native addons',
    remedy: 'start Node without --no-addons; with the permission model, add --allow-addons',
  },
  MODULE_NOT_FOUND: {
    message: 'a dependency of redrafter is not installed',
    remedy: 'run `npm install`',
  },
};

/** The ERR_NATIVE error for what loading the addon threw. */
export function loadError(thrown: unknown, system: System = thisSystem()): RedrafterError {
  const said = thrown instanceof Error ? thrown.message : String(thrown);
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
  const { message, remedy } = system.complete ? (NODE_ERRORS[code] ?? explain(said, system)) : MOVED;
  const compile = system.clone ? 'run `npm run build`' : 'compile it here with `npx redrafter build`';
  return new RedrafterError('ERR_NATIVE', `the native addon cannot be loaded: ${message}`, {
    cause: thrown,
    remedy: remedy ?? `${compile} (needs CMake >= 3.20 and a C++20 compiler)`,
  });
}

function explain(said: string, system: System): Explanation {
  for (const [pattern, explanation] of EXPLANATIONS) {
    const match = pattern.exec(said);
    if (match !== null) return explanation(match, system);
  }
  return { message: said.split('\n')[0] ?? '' };
}

function thisSystem(): System {
  return {
    platform: `${process.platform}-${process.arch}`,
    glibc: glibcVersion(),
    prebuilds: listPrebuilds(),
    clone: isClone(),
    complete: existsSync(join(packageRoot, 'package.json')),
  };
}

function glibcVersion(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime;
}

/** prebuilds/linux-x64/redrafter.glibc.node is `linux-x64 (glibc)`. */
function listPrebuilds(): string[] {
  const root = join(packageRoot, 'prebuilds');
  try {
    return readdirSync(root).flatMap((platform) =>
      readdirSync(join(root, platform)).flatMap((file) => {
        if (!file.endsWith('.node')) return []; // the CUDA library
        const libc = /\.(glibc|musl)\./.exec(file)?.[1];
        return platform.startsWith('linux') && libc !== undefined ? `${platform} (${libc})` : platform;
      }),
    );
  } catch {
    return []; // none at all
  }
}
