import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

import { cpuFeatures, getBackends, type BackendStatus, Model } from '../../lib/index.js';
import { writeTinyModel } from './tiny.js';

const tiny = writeTinyModel();

describe('getBackends', () => {
  it('tells of every backend whether it can be used, and why not as data', () => {
    const all = getBackends();
    for (const status of all) {
      expect(Object.keys(status)).toEqual(['device', 'backend', 'level', 'available', 'selected', 'reason']);
      const { device, backend, level, available, reason } = status;
      expect(device).toBe(level === null ? backend : `${backend}:${level}`);
      expect(reason === null).toBe(available);
      if (reason !== null) expect(reason.message).toMatch(/\w/);
    }
    expect(new Set(all.map(({ device }) => device)).size).toBe(all.length);
    expect(all.find(({ device }) => device === 'cpu:base')).toMatchObject({ available: true, reason: null });
    expect(all.map(({ device }) => device)).not.toContain('cpu:oracle');
    // Why exactly depends on the machine: test/native/companion.test.ts.
    const cuda = all.find(({ backend }) => backend === 'cuda');
    expect(cuda).toMatchObject({ device: 'cuda', level: null, selected: cuda?.available });
  });

  it.runIf(process.arch === 'x64')('agrees with the processor', () => {
    const missing = (level: string): boolean =>
      getBackends().find((status) => status.level === level)?.reason?.code === 'NO_CPU_FEATURE';
    const has = cpuFeatures();
    expect(missing('avx512vnni')).toBe(missing('avx512') || !has.includes('avx512vnni'));
    expect(missing('avx512')).toBe(!['avx512f', 'avx512bw', 'avx512vl', 'avx512dq'].every((f) => has.includes(f)));
    expect(missing('avx2')).toBe(!['avx2', 'fma'].every((f) => has.includes(f)));
  });

  it('says what auto takes, and a load with each device does what it says', async () => {
    const selected = getBackends().filter((status) => status.selected);
    expect(selected).toHaveLength(1);
    expect(selected[0]?.available).toBe(true);
    await using automatic = await Model.load(tiny.model, { threads: 1 });
    expect(automatic.info.device).toBe(selected[0]?.backend);
    if (selected[0]?.backend === 'cpu') expect(automatic.info.level).toBe(selected[0].level);
    expect(automatic.info.deviceReason).toEqual(getBackends().find(({ device }) => device === 'cuda')?.reason);
    for (const { device, backend, level, available, reason } of getBackends()) {
      const load = Model.load(tiny.model, { threads: 1, device: device as 'cpu' });
      if (available) {
        const model = await load;
        expect([model.info.device, model.info.deviceReason]).toEqual([backend, null]);
        if (backend === 'cpu') expect(model.info.level).toBe(level);
        await model.dispose();
      } else {
        const message = `device "${device}" is not available: ${reason?.message ?? '?'}`;
        await expect(load).rejects.toMatchObject({ code: 'ERR_BACKEND', message });
      }
    }
  });

  it('hides devices where the environment does, and no level of the CPU', async () => {
    const index = new URL('../../dist/index.mjs', import.meta.url).href;
    const body = `import { getBackends } from ${JSON.stringify(index)}; console.log(JSON.stringify(getBackends()));`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', body], {
      env: { ...process.env, CUDA_VISIBLE_DEVICES: '' },
    });
    const cpu = (all: BackendStatus[]): unknown[] =>
      all.filter(({ backend }) => backend === 'cpu').map(({ device, reason }) => ({ device, reason }));
    const hidden = JSON.parse(stdout) as BackendStatus[];
    expect(cpu(hidden)).toEqual(cpu(getBackends()));
    expect(hidden.find(({ backend }) => backend === 'cuda')?.available).toBe(false);
  });
});
