/**
 * What `device: 'auto'` takes, from the API and the command line, in processes of their own that find a CUDA library which
 * works: the emulator in the place of a driver (native/testing/simt_companion.cc), so models really decode on the kernels.
 */
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

import { root } from '../../scripts/tools.mjs';
import { estimateMemory, type BackendReason, type BackendStatus, type ModelInfo } from '../../lib/index.js';
import { emulated, plantBeside, plantEmulator, plantScript, report } from '../kit/companion.js';
import { exits, INDEX, scriptRunner } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const tiny = writeTinyModel();
const script = scriptRunner(tiny);
const folder = emulated ? plantBeside(plantEmulator) : '';
const NAMED = { REDRAFTER_PREBUILD: folder };

const BODY = `
  const { estimateMemory, getBackends } = await import(${JSON.stringify(INDEX)});
  const tell = (value) => console.log(JSON.stringify(value));
  const open = (options) => Model.load(paths.model, { drafter: paths.drafter, contextTokens: 256, kvTokens: 256, ...options });
  const failure = (promise) => promise.then(() => 'it resolved', ({ code, message }) => ({ code, message }));
`;

async function json<T>(body: string, env: NodeJS.ProcessEnv = {}): Promise<T> {
  const { code, stdout, stderr } = await script(BODY + body, { env: { ...NAMED, ...env } });
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as T;
}

interface Found {
  info: Pick<ModelInfo, 'device' | 'level' | 'deviceReason' | 'dtype'>;
  backends: BackendStatus[];
  named: unknown;
}

/** A load with auto, one with cuda, and the backends. */
const found = (env: NodeJS.ProcessEnv = {}, options = '{}'): Promise<Found> =>
  json<Found>(
    `const m = await open(${options}); const { device, level, deviceReason, dtype } = m.info;
     tell({ info: { device, level, deviceReason, dtype }, backends: getBackends(), named: await failure(open({ ...${options}, device: 'cuda' })) });
     await m.dispose();`,
    env,
  );

const selected = ({ backends }: Found): string | undefined => backends.find((each) => each.selected)?.device;
const cuda = ({ backends }: Found): BackendStatus | undefined => backends.find((each) => each.device === 'cuda');

describe.runIf(emulated)('auto', () => {
  it('takes a CUDA device that works, and a model decodes on it, the same with drafting on and off', async () => {
    const all = await json<{ info: ModelInfo; ids: number[][]; cpu: ModelInfo; backends: BackendStatus[] }>(`
      const m = await open();
      const decode = async (options) => {
        const session = await m.createSession();
        const { tokenIds } = await session.generate([5, 6, 7, 8, 9], { maxTokens: 40, ignoreEos: true, ...options }).result();
        await session.dispose();
        return [...tokenIds];
      };
      const draws = { temperature: 0.8, seed: 3 };
      const ids = [await decode({ drafting: false }), await decode({ beamWidth: 3 }), await decode({ drafting: false, ...draws }), await decode(draws)];
      const cpu = await open({ device: 'cpu' });
      tell({ info: m.info, ids, cpu: cpu.info, backends: getBackends() });
      await m.dispose(); await cpu.dispose();`);
    expect(all.info).toMatchObject({ device: 'cuda', level: 'sm_90', dtype: 'bf16', threads: 1, deviceReason: null });
    expect(all.ids.map((each) => each.length)).toEqual([40, 40, 40, 40]);
    expect(all.ids[1]).toEqual(all.ids[0]);
    expect(all.ids[3]).toEqual(all.ids[2]);
    expect(all.ids[2]).not.toEqual(all.ids[0]);
    expect(all.cpu).toMatchObject({ device: 'cpu', deviceReason: null });
    expect(all.backends.filter((each) => each.selected)).toEqual([
      { device: 'cuda', backend: 'cuda', level: null, available: true, selected: true, reason: null },
    ]);
  });

  it('takes the CPU where little memory is free, and says why, while cuda is ERR_OOM with the numbers', async () => {
    const none = await found({ REDRAFTER_SIMT_FREE_BYTES: String(60 << 20) });
    expect(none.info).toMatchObject({ device: 'cpu', dtype: 'f32' });
    expect(none.info.deviceReason?.code).toBe('TOO_LITTLE_MEMORY');
    const message = none.info.deviceReason?.message ?? '?';
    const [, needed] = /^the model takes (\d+) MiB of device memory, 60 of 1024 MiB are free$/.exec(message) ?? [];
    expect(none.named).toEqual({
      code: 'ERR_OOM',
      message: `${message}; load with a smaller kvTokens, contextTokens or prefillChunk, or with device "cpu"`,
    });
    expect(cuda(none)).toMatchObject({ available: true, selected: true, reason: null }); // the device works
    // As much as it takes is enough, and a byte less is not.
    const options = '{ contextTokens: 256, kvTokens: 256, drafter: paths.drafter }';
    const [bytes] = await json<number[]>(
      `tell([(await estimateMemory(paths.model, { ...${options}, device: 'cuda' })).totalBytes]);`,
    );
    expect(Math.ceil((bytes ?? 0) / 2 ** 20)).toBe(Number(needed));
    for (const [free, device] of [
      [bytes ?? 0, 'cuda'],
      [(bytes ?? 0) - 1, 'cpu'],
    ] as const) {
      const { info } = await found({ REDRAFTER_SIMT_FREE_BYTES: String(free) });
      expect(info.device).toBe(device);
    }
  });

  it('is estimated as it loads', async () => {
    const options = { contextTokens: 256, kvTokens: 256, drafter: tiny.drafter };
    const body = `const options = ${JSON.stringify(options)};
      const automatic = await estimateMemory(paths.model, options);
      const m = await open();
      const { kvUsedBytes, ...memory } = m.memoryUsage();
      tell({ automatic, memory, there: await estimateMemory(paths.model, { ...options, device: 'cuda' }) }); await m.dispose();`;
    const room = await json<Record<string, unknown>>(body);
    expect([room['automatic'], room['memory']]).toEqual([room['there'], room['there']]);
    const none = await json<Record<string, unknown>>(body, { REDRAFTER_SIMT_FREE_BYTES: '1000' });
    expect(none['there']).toEqual(room['there']);
    expect(none['memory']).toEqual(none['automatic']);
    expect(none['automatic']).toEqual(await estimateMemory(tiny.model, { ...options, device: 'cpu' }));
  });

  it('takes the CPU where only that keeps to a memory budget', async () => {
    const all = await found({}, '{ memoryBudgetBytes: 60 * 2 ** 20 }'); // less than what a stream of CUDA takes
    expect(all.info).toMatchObject({ device: 'cpu', deviceReason: { code: 'TOO_LITTLE_MEMORY' } });
    const { message } = all.info.deviceReason as BackendReason;
    expect(message).toMatch(/^memoryBudgetBytes is 62914560, but the model needs \d+: /);
    expect(all.named).toEqual({ code: 'ERR_OOM', message });
  });

  it('takes the CPU for a dtype that CUDA does not have', async () => {
    for (const drafterDtype of ['f32', 'q8_0'] as const) {
      const { info } = await found({}, JSON.stringify({ drafterDtype }));
      expect(info).toMatchObject({ device: 'cpu', deviceReason: { code: 'UNSUPPORTED_DTYPE' } });
    }
    const all = await found({}, `{ dtype: 'f32' }`);
    expect(all.info).toMatchObject({ device: 'cpu', dtype: 'f32', deviceReason: { code: 'UNSUPPORTED_DTYPE' } });
    expect(all.named).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });

  const reasons: [name: string, env: NodeJS.ProcessEnv, code: string][] = [
    ['crashes', { REDRAFTER_SIMT_FAULT: 'segfault' }, 'COMPANION_CRASHED'],
    ['computes wrongly', { REDRAFTER_SIMT_FAULT: 'no-sibling-mask' }, 'SELF_TEST_FAILED'],
    ['shows no device', { CUDA_VISIBLE_DEVICES: '' }, 'NO_DEVICE'],
  ];
  it.each(reasons)('takes the CPU where CUDA %s, and everything gives the same reason', async (_, env, code) => {
    const all = await found(env);
    const reason = cuda(all)?.reason as BackendReason;
    expect(reason.code).toBe(code);
    expect(all.info.device).toBe('cpu');
    expect(all.info.deviceReason).toEqual(reason);
    expect(selected(all)).toBe(`cpu:${all.info.level}`);
    expect(all.named).toEqual({ code: 'ERR_BACKEND', message: `device "cuda" is not available: ${reason.message}` });
    const { stdout } = await redrafter(['info'], env);
    const line = stdout.split('\n').find((each) => each.startsWith('  cuda '));
    expect(line?.replace(/ +/g, ' ')).toBe(` cuda not available: ${reason.message} (${code})`);
    const args = ['generate', '--model', tiny.model, '--prompt-ids', '1,2', '--max-tokens', '2'];
    const told = `on the CPU, not on CUDA: ${reason.message} (${code})\n`;
    expect((await redrafter(args, env)).stderr.includes(told)).toBe(code !== 'NO_DEVICE');
    expect((await redrafter([...args, '--device', 'cpu'], env)).stderr).not.toContain('CUDA');
  });

  const redrafter = (args: string[], env: NodeJS.ProcessEnv): Promise<{ stdout: string; stderr: string }> =>
    promisify(execFile)(process.execPath, [join(root, 'dist/cli/main.js'), ...args], {
      env: { ...process.env, ...NAMED, ...env },
    });

  it('says in redrafter info that it takes CUDA', async () => {
    expect((await redrafter(['info'], {})).stdout).toMatch(/^ {2}cuda +available, taken by auto$/m);
  });

  it('asks once for all threads, and workers get the same', async () => {
    const answer = report([{ name: 'An emulated device' }]).trim();
    let [log, worker] = ['', ''];
    const counted = plantBeside((library, probe) => {
      plantEmulator(library);
      [log, worker] = [`${probe}.log`, `${probe}.mjs`];
      plantScript(probe, `echo x >> '${log}'; sleep 0.2; echo '${answer}'`);
      const program = `import { getBackends } from ${JSON.stringify(INDEX)};
        import { parentPort } from 'node:worker_threads';
        parentPort.postMessage(getBackends().find((each) => each.selected).device);`;
      writeFileSync(worker, program);
    });
    const body = `
      const { Worker } = await import('node:worker_threads');
      const workers = Array.from({ length: 4 }, () => new Worker(${JSON.stringify(worker)}, { execArgv: [] }));
      const loads = [open(), open()];
      const heard = await Promise.all(workers.map((each) => new Promise((resolve, reject) => each.once('message', resolve).once('error', reject))));
      const models = await Promise.all(loads);
      tell([...heard, ...models.map((model) => model.info.device)]);
      for (const model of models) await model.dispose();`;
    const all = await json<string[]>(body, { REDRAFTER_PREBUILD: counted });
    expect(all).toEqual(Array.from({ length: 6 }, () => 'cuda'));
    expect(readFileSync(log, 'utf8')).toBe('x\n');
  });

  it('hears the program also while signals arrive, and where the system waits for children by itself', async () => {
    const interrupted = `
      const { spawn } = await import('node:child_process');
      let signals = 0;
      process.on('SIGWINCH', () => signals++);
      const kill = spawn('sh', ['-c', 'while kill -WINCH ' + process.pid + '; do sleep 0.002; done'], { stdio: 'ignore' });
      await wait(50);
      const device = getBackends().find((each) => each.selected).device;
      await wait(50);
      kill.kill('SIGKILL');
      tell({ device, signals: signals > 5 });`;
    expect(await json(interrupted)).toEqual({ device: 'cuda', signals: true });
    const ask = `import(${JSON.stringify(INDEX)}).then(({ getBackends }) => console.log(getBackends().find((each) => each.selected).device))`;
    const args = ['-c', `trap '' CHLD PIPE; exec '${process.execPath}' -e "$0"`, ask];
    const { stdout } = await promisify(execFile)('sh', args, { env: { ...process.env, ...NAMED } });
    expect(stdout).toBe('cuda\n');
  });

  it('lets the process end while the program runs', async () => {
    const slow = plantBeside((library, probe) => {
      plantEmulator(library);
      plantScript(probe, 'exec sleep 15');
    });
    const body = `${BODY} open(); setTimeout(() => process.exit(7), 100);`;
    const began = performance.now();
    expect(await script(body, { env: { REDRAFTER_PREBUILD: slow } })).toEqual(exits(7));
    expect(performance.now() - began).toBeLessThan(12_000);
  });
});
