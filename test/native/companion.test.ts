/**
 * The CUDA library as an addon finds it beside itself: the one that was built, none, a damaged one, one of another build,
 * and one without CUDA inside (native/testing/fake_companion.cc) that tells of any driver and devices. What comes of a
 * library or device that fails is companion-probe.test.ts, what of one that works companion-auto.test.ts.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { root } from '../../scripts/tools.mjs';
import type { NativeEngineOptions, NativeModule } from '../../lib/native.js';
import { temporaryDirectory, writeTinyLlama } from '../kit/checkpoint.js';
import { type Addons, beside, builtLibrary as built, fake, LIBRARY as FILE, trusted } from '../kit/companion.js';

/** What getBackends tells of CUDA that cannot be used. */
function reason({ addon }: Addons): NonNullable<ReturnType<NativeModule['getBackends']>[number]['reason']> {
  const all = addon.getBackends();
  expect(all.find(({ selected }) => selected)?.backend).toBe('cpu');
  const cuda = all.find(({ backend }) => backend === 'cuda');
  expect(cuda).toMatchObject({ device: 'cuda', level: null, available: false, selected: false });
  if (cuda?.reason === undefined || cuda.reason === null) throw new Error('there is no reason');
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
      message: `there is no CUDA library (${FILE}) beside the addon`,
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
    expect(reason(other).code).toBe('COMPANION_FAILED'); // a program that is not Node.js lacks what it needs
    if (process.platform === 'win32') return;
    const empty = ['-shared', '-fPIC', '-x', 'c++', '/dev/null', '-o'];
    const strange = beside((path) => { execFileSync(process.env.CXX ?? 'c++', [...empty, path]); }); // prettier-ignore
    expect(reason(strange).code).toBe('COMPANION_MISMATCH');
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
    if (code !== null) expect(reason(addons)).toEqual({ code, message });
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
      expect(reason(addons)).toEqual({ code, message });
      expect(thrown(() => addons.companion.call(0, 'norm'))).toMatchObject({ code: 'ERR_BACKEND' });
    });
  }

  it('is told of each device', () => {
    const addons = fake();
    const tried = {
      code: 'TOO_LITTLE_MEMORY',
      message:
        'Device 0 fails the self-test: cannot allocate what a stream needs of device memory; 5 of 81920 MiB are free',
    };
    expect(addons.companion.status(0)).toEqual(tried);
    expect(addons.companion.status(1)).toEqual({
      code: 'UNSUPPORTED_DEVICE',
      message: 'Device 1 has compute capability 7.5, 8.0 or newer is needed',
    });
    expect(addons.companion.status(2)).toEqual({
      code: 'NO_DEVICE',
      message: 'there is no CUDA device 2; the last one is 1',
    });
    expect(reason(addons)).toEqual(tried);
    expect(fake('FAKE_COUNT=40').companion.status(16).code).toBe('NO_DEVICE');
  });

  it('is believed when it is said to be good', () => {
    const { addon, companion } = trusted(3);
    expect(companion.status(0)).toEqual({ code: null, message: '' });
    expect(companion.status(3).code).toBe('NO_DEVICE');
    const all = addon.getBackends();
    expect(all.find(({ backend }) => backend === 'cuda')).toEqual({
      ...{ device: 'cuda', backend: 'cuda', level: null, available: true, selected: true, reason: null },
    });
    expect(all.filter(({ selected }) => selected)).toHaveLength(1);
  });
});

describe.skipIf(process.platform === 'win32')('a load', () => {
  const model = join(temporaryDirectory('companion-model'), 'model');
  beforeAll(() => {
    const shape = { vocab: 32, hidden: 16, layers: 1, heads: 1, kvHeads: 1, headDim: 16, ffn: 16, maxPositions: 64 };
    writeTinyLlama(model, shape, 1);
  });
  const options = (device: string, dtype = 'auto'): NativeEngineOptions => ({
    ...{ model, drafter: null, device, dtype, drafterDtype: 'auto', threads: 1 },
    ...{ contextTokens: 0, kvTokens: 0, prefillChunk: 0, prefixCacheBytes: -1, memoryBudgetBytes: 0 },
    ...{ maxActiveRequests: 0, maxQueuedRequests: 0, maxQueuedTokens: 0 },
  });
  const failure = ({ addon }: Addons, device: string, dtype?: string): Promise<[string, string]> =>
    new Promise((resolve) => {
      const engine = new addon.Engine(options(device, dtype), (messages) => {
        for (const message of messages) {
          if (message.type === 'failed') resolve([message.code, message.message]);
          if (message.type === 'ready') resolve(['none', message.info.device]);
        }
        engine.close();
      });
    });

  it('goes to the device that was asked for, or says why it cannot', async () => {
    const addons = trusted(3);
    for (const device of ['cuda', 'cuda:2']) {
      expect(await failure(addons, device)).toEqual([
        'ERR_OOM',
        'cannot allocate what a stream needs of device memory; 5 of 81920 MiB are free',
      ]);
    }
    expect(await failure(addons, 'cpu')).toEqual(['none', 'cpu']);
    expect(await failure(addons, 'cuda:1')).toEqual([
      'ERR_BACKEND',
      'device "cuda:1" is not available: Device 1 is old',
    ]);
    expect(await failure(addons, 'cuda:3')).toEqual([
      'ERR_BACKEND',
      'device "cuda:3" is not available: there is no CUDA device 3; the last one is 2',
    ]);
    expect((await failure(addons, 'cuda', 'f32'))[0]).toBe('ERR_INVALID_ARGUMENT');
  });

  it('can be estimated without memory, what a stream takes counted', async () => {
    const { addon } = trusted(3);
    const here = await addon.estimateMemory(options('cpu', 'bf16'));
    const there = await addon.estimateMemory(options('cuda'));
    expect(there.workspaceBytes).toBe(here.workspaceBytes + 1000);
    expect(there.weightBytes).toBe(here.weightBytes);
  });

  it('knows no emulated device', async () => {
    expect(await failure(fake(), 'cuda:host')).toEqual([
      'ERR_INVALID_ARGUMENT',
      'unknown device "cuda:host"; expected auto, cpu, cuda or cuda:N',
    ]);
  });
});

describe.skipIf(process.platform === 'win32')('the backend made of a table that cannot throw', () => {
  it('throws what a call left in the stream, with the op', () => {
    const { companion } = trusted(3);
    for (const device of [0, 2, 0]) {
      expect(thrown(() => companion.call(device, 'norm'))).toMatchObject({
        code: 'ERR_CUDA',
        message: `CUDA failed in norm: a fault on device ${device} (norm_kernel)`,
      });
    }
    expect(companion.call(2, 'upload')).toBe('sm_90');
  });

  it('throws where there is no memory, with how much there is', () => {
    const { companion } = trusted(3);
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
    const { companion } = trusted(3);
    expect(thrown(() => companion.call(0, 'rope'))).toMatchObject({
      code: 'ERR_BACKEND',
      message: 'this backend has no op "rope"',
    });
  });
});
