/**
 * The CUDA library as an addon finds it beside itself: the one that was built, none, a damaged one, one of another build,
 * and one without CUDA inside (native/testing/fake_companion.cc) that tells of any driver and devices.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { root } from '../../scripts/tools.mjs';
import { version } from '../../lib/index.js';
import type { NativeModule } from '../../lib/native.js';
import { temporaryDirectory } from '../kit/checkpoint.js';

const require = createRequire(import.meta.url);
const FILE = process.platform === 'win32' ? 'redrafter_cuda.dll' : 'redrafter_cuda.so';
const built = join(root, 'build/Release', FILE);

interface Status {
  code: string | null;
  message: string;
}

interface Companion {
  status(device: number): Status;
  call(device: number, name: string): string;
}

interface Addons {
  addon: NativeModule;
  companion: Companion;
}

/** Copies of the addons in a folder of their own, with `plant` putting a library beside them. */
function beside(plant: (path: string) => void): Addons {
  const folder = temporaryDirectory('companion');
  copyFileSync(join(root, 'build/Release/redrafter.node'), join(folder, 'redrafter.node'));
  copyFileSync(join(root, 'build/testing/redrafter_testing.node'), join(folder, 'redrafter_testing.node'));
  plant(join(folder, FILE));
  const { companion } = require(join(folder, 'redrafter_testing.node')) as { companion: Companion };
  return { addon: require(join(folder, 'redrafter.node')) as NativeModule, companion };
}

const fakes = new Map<string, Addons>();

/** With a library that has `defines` of fake_companion.cc; compiled once. */
function fake(...defines: string[]): Addons {
  const key = defines.join(' ');
  const compile = (path: string): void => {
    const flags = ['-std=c++20', '-shared', '-fPIC', `-I${join(root, 'native')}`, '-o', path];
    const source = join(root, 'native/testing/fake_companion.cc');
    const all = [`REDRAFTER_VERSION="${version()}"`, ...defines].map((define) => `-D${define}`);
    execFileSync(process.env.CXX ?? 'c++', [...flags, ...all, source]);
  };
  const addons = fakes.get(key) ?? beside(compile);
  fakes.set(key, addons);
  return addons;
}

/** What getBackends tells of CUDA, having checked that a load says the same. */
function reason({ addon }: Addons): NonNullable<ReturnType<NativeModule['getBackends']>[number]['reason']> {
  const all = addon.getBackends();
  expect(all.find(({ selected }) => selected)?.backend).toBe('cpu');
  const cuda = all.find(({ backend }) => backend === 'cuda');
  expect(cuda).toMatchObject({ device: 'cuda', level: null, available: false, selected: false });
  if (cuda?.reason === undefined || cuda.reason === null) throw new Error('there is no reason');
  expect(cuda.reason.message).toMatch(/models cannot be loaded on CUDA yet$/);
  return cuda.reason;
}

const thrown = (action: () => unknown): unknown => {
  try {
    return action();
  } catch (error) {
    return error;
  }
};

describe('the CUDA library', () => {
  it('is not missed', () => {
    const none = beside(() => undefined);
    expect(reason(none)).toEqual({
      code: 'NOT_BUILT',
      message: `there is no CUDA library (${FILE}) beside the addon; and models cannot be loaded on CUDA yet`,
    });
    expect(thrown(() => none.companion.call(0, 'norm'))).toMatchObject({
      code: 'ERR_BACKEND',
      message: `CUDA device 0 is not available: there is no CUDA library (${FILE}) beside the addon`,
    });
  });

  const damages: [name: string, plant: (path: string) => void][] = [
    ['text', (path) => { writeFileSync(path, 'not a library'); }], // prettier-ignore
    ['an empty file', (path) => { writeFileSync(path, ''); }], // prettier-ignore
    ['another system', (path) => { writeFileSync(path, Buffer.from('MZ'.padEnd(4096, '\0'))); }], // prettier-ignore
  ];
  if (existsSync(built)) {
    damages.push([
      'a download that ended early',
      (path) => {
        copyFileSync(built, path);
        truncateSync(path, 3000);
      },
    ]);
    damages.push([
      'without its last byte',
      (path) => {
        copyFileSync(built, path);
        truncateSync(path, statSync(built).size - 1);
      },
    ]);
  }
  for (const [name, plant] of damages) {
    it(`that is damaged is a reason, not a crash: ${name}`, () => {
      const found = reason(beside(plant));
      expect(found.code).toBe('COMPANION_FAILED');
      expect(found.message).toMatch(/^the CUDA library cannot be opened: .*redrafter_cuda/);
    });
  }

  it('that is no file of ours is a reason', () => {
    const other = beside((path) => { copyFileSync(join(root, 'build/Release/redrafter.node'), path); }); // prettier-ignore
    expect(reason(other).code).toBe('COMPANION_MISMATCH');
  });
});

describe.skipIf(!existsSync(built))('the CUDA library that was built', () => {
  let addons: Addons;
  beforeAll(() => {
    addons = beside((path) => { symlinkSync(built, path); }); // prettier-ignore
  });

  it('is opened, and finds what there is of driver and devices', () => {
    const { code, message } = addons.companion.status(0);
    if (existsSync('/proc/driver/nvidia/version')) {
      expect([null, 'DRIVER_TOO_OLD', 'NO_DEVICE', 'UNSUPPORTED_DEVICE']).toContain(code);
    } else {
      expect([code, message]).toEqual(['NO_DRIVER', 'there is no NVIDIA driver']);
    }
    expect(reason(addons).code).toBe(code ?? 'NO_ENGINE');
  });

  it.runIf(process.platform === 'linux')('needs no other library than those of C', () => {
    const dynamic = execFileSync('readelf', ['-d', built], { encoding: 'utf8' });
    const needed = [...dynamic.matchAll(/NEEDED.*\[(.*)\]/g)].map((match) => match[1]);
    expect(needed).toContain('libc.so.6');
    expect(needed.filter((name) => !/^(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s))\.so/.test(name ?? ''))).toEqual([]);
    const symbols = execFileSync('readelf', ['-W', '--dyn-syms', built], { encoding: 'utf8' });
    const exported = symbols.split('\n').filter((line) => /(GLOBAL|WEAK) +DEFAULT +\d+/.test(line));
    expect(exported.map((line) => line.trim().split(/\s+/).at(-1))).toEqual(['redrafter_cuda_entry']);
  });

  it('says nothing of itself in the addon: that one needs no CUDA', () => {
    const addon = readFileSync(join(root, 'build/Release/redrafter.node'), 'latin1');
    expect(/libcuda|libcudart/.exec(addon)).toBeNull();
  });
});

describe.skipIf(process.platform === 'win32')('what the CUDA library finds', () => {
  const cases: [code: string, message: string, defines: string[]][] = [
    ['COMPANION_MISMATCH', 'the CUDA library beside the addon belongs to another build of redrafter', ['FAKE_STAMP=cuda_stamp()+1']], // prettier-ignore
    ['NO_DRIVER', 'there is no NVIDIA driver', ['FAKE_DRIVER=0', 'FAKE_COUNT=0', 'FAKE_ERROR="x"']],
    ['DRIVER_TOO_OLD', 'the NVIDIA driver knows CUDA 12.4, this build needs one that knows CUDA 13.0', ['FAKE_DRIVER=12040', 'FAKE_COUNT=0', 'FAKE_ERROR="x"']], // prettier-ignore
    ['NO_DEVICE', 'there is no CUDA device: x', ['FAKE_COUNT=0', 'FAKE_ERROR="x"']],
  ];
  for (const [code, message, defines] of cases) {
    it(`is told: ${code}`, () => {
      const addons = fake(...defines);
      expect(addons.companion.status(0)).toEqual({ code, message });
      expect(reason(addons)).toEqual({ code, message: `${message}; and models cannot be loaded on CUDA yet` });
      expect(thrown(() => addons.companion.call(0, 'norm'))).toMatchObject({ code: 'ERR_BACKEND' });
    });
  }

  it('is told of each device', () => {
    const addons = fake();
    expect(addons.companion.status(0)).toEqual({ code: null, message: 'Device 0' });
    expect(addons.companion.status(1)).toEqual({
      code: 'UNSUPPORTED_DEVICE',
      message: 'Device 1 has compute capability 7.5, 8.0 or newer is needed',
    });
    expect(addons.companion.status(2)).toEqual({
      code: 'NO_DEVICE',
      message: 'there is no CUDA device 2; the last one is 1',
    });
    expect(reason(addons)).toEqual({
      code: 'NO_ENGINE',
      message: 'Device 0 can run the kernels, but models cannot be loaded on CUDA yet',
    });
    expect(fake('FAKE_COUNT=40').companion.status(16).code).toBe('NO_DEVICE');
  });
});

describe.skipIf(process.platform === 'win32')('the backend made of a table that cannot throw', () => {
  it('throws what a call left in the stream, with the op', () => {
    const { companion } = fake('FAKE_COUNT=3');
    for (const device of [0, 2, 0]) {
      expect(thrown(() => companion.call(device, 'norm'))).toMatchObject({
        code: 'ERR_CUDA',
        message: `CUDA failed in norm: a fault on device ${device} (norm_kernel)`,
      });
    }
    expect(companion.call(2, 'upload')).toBe('sm_90');
  });

  it('throws where there is no memory, with how much there is', () => {
    const { companion } = fake('FAKE_COUNT=3');
    expect(thrown(() => companion.call(0, 'allocate'))).toMatchObject({
      code: 'ERR_OOM',
      message: 'cannot allocate 1000 bytes of device memory; 5 of 81920 MiB are free',
    });
    expect(thrown(() => companion.call(0, 'openStream'))).toMatchObject({
      code: 'ERR_OOM',
      message: 'cannot allocate what a stream needs of device memory; 5 of 81920 MiB are free',
    });
  });

  it('throws for an op that has no kernel', () => {
    const { companion } = fake('FAKE_COUNT=3');
    expect(thrown(() => companion.call(0, 'rope'))).toMatchObject({
      code: 'ERR_BACKEND',
      message: 'this backend has no op "rope"',
    });
  });
});
