/**
 * What an addon makes of a CUDA library that crashes, hangs, talks or computes wrongly, and of the program that tries it
 * when that is missing or gives no answer: always a reason, and this process lives. The library is the emulator
 * (native/testing/simt_companion.cc), which fails as the environment says.
 */
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

import { describe, expect, it } from 'vitest';

import { beside, type Companion, emulated, type Plant, plantAnswer, plantEmulator, plantScript, PROBE, report } from '../kit/companion.js'; // prettier-ignore

type Status = ReturnType<Companion['status']>;

/** What is found with a fault; the environment is as it was afterwards. */
function withFault(fault: string, plant: Plant = plantEmulator, patience?: number): Status {
  const addons = beside(plant);
  process.env['REDRAFTER_SIMT_FAULT'] = fault;
  const { LD_PRELOAD } = process.env;
  delete process.env['LD_PRELOAD']; // of a sanitizer, which would make an exit code of a signal
  try {
    if (patience !== undefined) addons.companion.limitProbe(patience);
    return addons.companion.status(0);
  } finally {
    delete process.env['REDRAFTER_SIMT_FAULT'];
    if (LD_PRELOAD !== undefined) process.env['LD_PRELOAD'] = LD_PRELOAD;
  }
}

/** Children of this process, zombies among them. */
function children(): number {
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((id) => {
      try {
        return Number(
          readFileSync(`/proc/${id}/stat`, 'utf8')
            .replace(/^.*\) /s, '')
            .split(' ')[1],
        );
      } catch {
        return 0; // ended meanwhile
      }
    });
  return parents.filter((parent) => parent === process.pid).length;
}

const TRIAL = `the trial of the CUDA library (${PROBE})`;

describe.runIf(emulated)('a CUDA library that fails', () => {
  const crashes: [fault: string, how: string][] = [
    ['abort', 'signal 6 (SIGABRT)'],
    ['segfault', 'signal 11 (SIGSEGV)'],
    ['exit', 'exit code 3'],
  ];
  it.each(crashes)('by %s is a reason', (fault, how) => {
    expect(withFault(fault)).toEqual({ code: 'COMPANION_CRASHED', message: `${TRIAL} ended with ${how}` });
  });

  it('by hanging is a reason after a while, and leaves no process behind', () => {
    const before = children();
    const began = performance.now();
    const found = withFault('hang', plantEmulator, 300);
    expect(found).toEqual({ code: 'COMPANION_HANGS', message: `${TRIAL} did not end within 0.3 s` });
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(children()).toBe(before);
  });

  // What is wrong with each: native/testing/simt/planted_ops.h.
  const wrong: [fault: string, message: RegExp][] = [
    ['split-by-rows', /matmul in bf16 of 8 rows, which are also part of 40: value \d+ is \S+, expected \S+ exactly$/],
    ['atomic-sum', /matmul in bf16 of 8 rows, which are also part of 40: /],
    ['leak', /matmul in bf16 of 8 rows beside a row of NaN: value \d+ is -?nan, /],
    ['overrun', /matmul: something was written behind its result$/],
    ['workspace-overrun', /(attention in bf16|counters of the stream)/],
    ['counter-left', /1 counters of the stream are not zero behind the ops$/],
    ['no-sibling-mask', /attention in bf16: value \d+ is \S+, expected \S+ within \S+$/],
    ['no-nan-guard', /attention in bf16: value \d+ is -?nan, /],
    ['last-wins', /sample: value 0 is 700, expected 300 exactly$/],
    ['mask-ignored', /masked head_top in bf16 of 3 rows: id \d+ is \d+, which no bit allows$/],
    ['mask-of-first', /masked head_top in bf16 of 3 rows/],
    ['mask-by-head-row', /masked head_top in bf16 of 3 rows: id \d+ is \d+, which no bit allows$/],
    ['masked-in-sum', /masked head_top in bf16 of 3 rows \(log-sum-exp\): value 0 /],
    ['sample-mask-ignored', /masked sample: value 0 is 300, expected \d+ exactly$/],
    ['no-op', /this backend has no op "sample"$/],
  ];
  it.each(wrong)('by computing wrongly (%s) is a reason that says where', (fault, message) => {
    const found = withFault(fault);
    expect(found.code).toBe('SELF_TEST_FAILED');
    expect(found.message).toMatch(/^An emulated device fails the self-test: /);
    expect(found.message).toMatch(message);
  });

  it.each(['', 'fixed-split', 'no-fault-matmul', 'no-fault-attention', 'talk'])('control: not by "%s"', (fault) => {
    expect(withFault(fault)).toEqual({ code: null, message: '' });
  });

  it('control: without the self-test a wrong one would be taken', () => {
    const answer = report([{ name: 'An emulated device' }]);
    const believed = (library: string, probe: string): void => {
      plantEmulator(library);
      plantAnswer(probe, answer);
    };
    expect(withFault('last-wins', believed)).toEqual({ code: null, message: '' });
  });
});

describe.runIf(emulated && process.platform === 'linux')('the program that tries the CUDA library', () => {
  const DEVICE = { name: 'An emulated device' };
  const plants: [name: string, plant: (probe: string) => void, code: string, message: RegExp][] = [
    ['missing', rmSync, 'COMPANION_FAILED', /cannot be started: No such file/],
    ['no program', (probe) => { writeFileSync(probe, 'not a program'); }, 'COMPANION_FAILED', /cannot be started: |no answer that can be read$/], // prettier-ignore
    ['not executable', (probe) => { chmodSync(probe, 0o644); }, 'COMPANION_FAILED', /cannot be started: Permission denied$/], // prettier-ignore
    [
      'silent',
      (probe) => {
        plantScript(probe, 'exit 0');
      },
      'COMPANION_FAILED',
      /gave no answer that can be read$/,
    ],
    ['talking nonsense', (probe) => { plantAnswer(probe, 'hello\n'); }, 'COMPANION_FAILED', /no answer that can be read$/], // prettier-ignore
    ['ending too early', (probe) => { plantAnswer(probe, report([DEVICE]).slice(0, -3)); }, 'COMPANION_FAILED', /no answer that can be read$/], // prettier-ignore
    ['saying more', (probe) => { plantAnswer(probe, report([DEVICE]) + report([DEVICE])); }, 'COMPANION_FAILED', /no answer that can be read$/], // prettier-ignore
    ['naming no device', (probe) => { plantAnswer(probe, report([])); }, 'COMPANION_FAILED', /no answer that can be read$/], // prettier-ignore
    ['naming 17 devices', (probe) => { plantAnswer(probe, report(Array.from({ length: 17 }, () => DEVICE))); }, 'COMPANION_FAILED', /no answer that can be read$/], // prettier-ignore
    ['giving an unknown code', (probe) => { plantAnswer(probe, report([{ ...DEVICE, code: 'NOT_BUILT' }])); }, 'COMPANION_FAILED', /no answer that can be read$/], // prettier-ignore
    ['of another build', (probe) => { plantAnswer(probe, report([DEVICE], '1')); }, 'COMPANION_MISMATCH', /belongs to another build of redrafter$/], // prettier-ignore
    [
      'endless',
      (probe) => {
        plantScript(probe, 'yes');
      },
      'COMPANION_CRASHED',
      /ended with too much output$/,
    ],
    ['answering, then crashing', (probe) => { plantScript(probe, `echo '${report([DEVICE]).trim()}'; kill -BUS $$`); }, 'COMPANION_CRASHED', /signal 7 \(SIGBUS\)$/], // prettier-ignore
    ['answering, then hanging', (probe) => { plantScript(probe, `echo '${report([DEVICE]).trim()}'; exec sleep 60`); }, 'COMPANION_HANGS', /within 1 s$/], // prettier-ignore
    ['deaf to gentle signals', (probe) => { plantScript(probe, `trap '' TERM INT; exec >&-; while :; do sleep 0.1; done`); }, 'COMPANION_HANGS', /within 1 s$/], // prettier-ignore
  ];
  it.each(plants)('that is %s is a reason', (_, plant, code, message) => {
    const before = children();
    const planted = (library: string, probe: string): void => {
      plantEmulator(library);
      plant(probe);
    };
    const found = withFault('', planted, code === 'COMPANION_HANGS' ? 1000 : 30_000);
    expect(found.code).toBe(code);
    expect(found.message).toMatch(message);
    expect(children()).toBe(before);
  });

  it('control: the same answer, whole, is taken', () => {
    const planted = (library: string, probe: string): void => {
      plantEmulator(library);
      plantAnswer(probe, report([{ name: 'A "name" with \\ and ü' }]));
    };
    expect(withFault('', planted)).toEqual({ code: null, message: '' });
  });

  it('runs once, with no other descriptor than the standard ones, and leaves none', () => {
    const open = (): string[] => readdirSync('/proc/self/fd');
    let log = '';
    const addons = beside((library, probe) => {
      plantEmulator(library);
      log = `${probe}.log`;
      // The shell has the script open, too, and `ls` the folder it reads.
      plantScript(probe, `ls -l /proc/self/fd >> '${log}'; readlink /proc/$$/fd/0 /proc/$$/fd/2 >> '${log}'; exit 4`);
    });
    const before = open();
    for (let i = 0; i < 3; i++) expect(addons.companion.status(0).code).toBe('COMPANION_CRASHED');
    expect(open()).toEqual(before);
    const seen = readFileSync(log, 'utf8');
    expect(seen.match(/^\/dev\/null$/gm)).toHaveLength(2);
    const numbers = [...seen.matchAll(/ (\d+) -> (.*)$/gm)].filter(([, , to]) => !/\/fd$|\.log$/.test(to ?? ''));
    expect(numbers.map(([, number]) => number).filter((number) => Number(number) < 3)).toEqual(['0', '2']);
    expect(existsSync(log)).toBe(true);
  });
});
