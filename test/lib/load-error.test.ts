/** What loaders say on systems that a test cannot be, and what redrafter makes of it. */
import { describe, expect, it } from 'vitest';

import { loadError, type System } from '../../lib/load-error.js';

const glibc: System = {
  platform: 'linux-x64',
  glibc: '2.31',
  prebuilds: ['linux-x64 (glibc)'],
  clone: false,
  complete: true,
};
const musl: System = { ...glibc, glibc: undefined, prebuilds: ['linux-x64 (glibc)', 'linux-x64 (musl)'] };
const mac: System = { ...glibc, platform: 'darwin-x64', glibc: undefined };
const windows: System = { ...glibc, platform: 'win32-arm64', glibc: undefined };
const file = '/app/node_modules/redrafter/prebuilds/linux-x64/redrafter.glibc.node';

const cases: [said: string, system: System, message: string][] = [
  ['No native build was found for platform=linux arch=arm64 runtime=node abi=115 uv=1 armv=8 libc=glibc node=20.17.0\n    loaded from: /app\n', glibc, 'there is no prebuilt binary for linux-arm64 (glibc); this package has linux-x64 (glibc)'],
  ['No native build was found for platform=linux arch=x64 runtime=electron abi=130 uv=1 libc=musl node=22.0.0', { ...musl, prebuilds: [] }, 'there is no prebuilt binary for linux-x64 (musl); this package has none'],
  ['No native build was found for platform=darwin arch=x64 runtime=node abi=115 uv=1 libc=glibc node=20.17.0', mac, 'there is no prebuilt binary for darwin-x64; this package has linux-x64 (glibc)'],
  ['No native build was found for platform=linux arch=x64', { ...glibc, clone: true }, 'it is not built yet'],
  [`/lib/x86_64-linux-gnu/libc.so.6: version \`GLIBC_2.34' not found (required by ${file})`, glibc, 'it needs GLIBC 2.34 or newer, this system has 2.31'],
  [`/lib/x86_64-linux-gnu/libstdc++.so.6: version \`GLIBCXX_3.4.30' not found (required by ${file})`, glibc, 'it needs a newer C++ runtime (libstdc++ with GLIBCXX_3.4.30)'],
  [`libstdc++.so.6: cannot open shared object file: No such file or directory`, glibc, 'the C++ runtime is not installed'],
  [`Error loading shared library libstdc++.so.6: No such file or directory (needed by ${file})`, musl, 'the C++ runtime is not installed'],
  [`Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by ${file})`, musl, 'it is for another C library; this system has musl'],
  [`Error relocating ${file}: __memcpy_chk: symbol not found`, musl, 'it is for another C library; this system has musl'],
  ['libc.musl-x86_64.so.1: cannot open shared object file: No such file or directory', glibc, 'it is for another C library; this system has glibc 2.31'],
  [`${file}: invalid ELF header`, glibc, 'the file is damaged, or for another system than linux-x64'],
  [`${file}: wrong ELF class: ELFCLASS32`, glibc, 'the file is damaged, or for another system than linux-x64'],
  [`dlopen(${file}, 0x0001): tried: '${file}' (mach-o file, but is an incompatible architecture (have 'arm64', need 'x86_64'))`, mac, 'the file is damaged, or for another system than darwin-x64'],
  [`\\\\?\\C:\\app\\redrafter.node is not a valid Win32 application.`, windows, 'the file is damaged, or for another system than win32-arm64'],
  ['Module did not self-register\nmore', glibc, 'Module did not self-register'],
]; // prettier-ignore

describe('an addon that does not load', () => {
  it.each(cases.map(([said, system, message]) => ({ said, system, message })))(
    '$message',
    ({ said, system, message }) => {
      const cause = new Error(said);
      const error = loadError(cause, system);
      expect(error).toMatchObject({
        code: 'ERR_NATIVE',
        message: `the native addon cannot be loaded: ${message}`,
        cause,
      });
      expect(error.remedy).toMatch(system.clone ? /npm run build/ : /npx redrafter build|install libstdc\+\+/);
    },
  );

  it('goes by the code where Node gives one', () => {
    const refused = (code: string): string | undefined =>
      loadError(Object.assign(new Error('x'), { code }), glibc).remedy;
    expect(refused('ERR_DLOPEN_DISABLED')).toContain('--no-addons');
    expect(refused('MODULE_NOT_FOUND')).toContain('npm install');
    expect(refused('ERR_DLOPEN_FAILED')).toContain('npx redrafter build');
  });

  it('says that bundling moved the library', () => {
    const error = loadError(new Error('No native build was found'), { ...glibc, complete: false });
    expect([error.message, error.remedy]).toEqual([expect.stringContaining('moved away'), expect.stringContaining('external')]); // prettier-ignore
  });

  it('says something of whatever is thrown', () => {
    expect(loadError('words', glibc).message).toContain('words');
  });
});
