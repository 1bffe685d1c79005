/**
 * Copies of the addons in folders of their own, with a CUDA library and the program that tries it beside them: the built
 * ones, damaged ones, fakes (native/testing/fake_companion.cc), the emulator in the place of a driver
 * (native/testing/simt_companion.cc), or a script in the place of the program.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { root } from '../../scripts/tools.mjs';
import { version } from '../../lib/index.js';
import type { BackendReasonCode, NativeModule } from '../../lib/native.js';
import { temporaryDirectory } from './checkpoint.js';

const require = createRequire(import.meta.url);
const windows = process.platform === 'win32';
export const LIBRARY = windows ? 'redrafter_cuda.dll' : 'redrafter_cuda.so';
export const PROBE = windows ? 'redrafter_cuda_probe.exe' : 'redrafter_cuda_probe';

// As those of all other tests: perhaps with sanitizers, or of another compiler; but not of another system.
const own = process.env['REDRAFTER_FOREIGN_NODE'] === undefined ? process.env : {};
const addonPath = join(own['REDRAFTER_PREBUILD'] ?? root, 'build/Release/redrafter.node');
const testingPath = own['REDRAFTER_TESTING_ADDON'] ?? join(root, 'build/testing/redrafter_testing.node');

export const builtLibrary = join(root, 'build/Release', LIBRARY);
const builtProbe = join(root, 'build/Release', PROBE);
const emulator = join(root, 'build/testing/redrafter_simt_companion.so');
/** Whether the tests were built with the emulator. */
export const emulated = existsSync(emulator);

export interface Companion {
  status(device: number): { code: BackendReasonCode | null; message: string };
  call(device: number, name: string): string;
  limitProbe(milliseconds: number): void;
}

export interface Addons {
  addon: NativeModule;
  /** Of the addon with the bindings of tests, which looks for itself. */
  companion: Companion;
  testing: NativeModule;
}

/** Puts files where a library and the program that tries it lie; that one, as built, is there before. */
export type Plant = (library: string, probe: string) => void;

/**
 * A folder as node-gyp-build takes it for REDRAFTER_PREBUILD, with the addons and what is planted beside them.
 */
export function plantBeside(plant: Plant): string {
  const folder = temporaryDirectory('companion');
  const release = join(folder, 'build/Release');
  mkdirSync(release, { recursive: true });
  copyFileSync(addonPath, join(release, 'redrafter.node'));
  copyFileSync(testingPath, join(release, 'redrafter_testing.node'));
  copyFileSync(builtProbe, join(release, PROBE));
  plant(join(release, LIBRARY), join(release, PROBE));
  return folder;
}

export function load(folder: string): Addons {
  const release = join(folder, 'build/Release');
  const testing = require(join(release, 'redrafter_testing.node')) as { companion: Companion; addon: NativeModule };
  const addon = require(join(release, 'redrafter.node')) as NativeModule;
  return { addon, companion: testing.companion, testing: testing.addon };
}

export const beside = (plant: Plant): Addons => load(plantBeside(plant));

/** Compiles fake_companion.cc with `defines`. */
function compile(path: string, defines: string[]): void {
  const flags = ['-std=c++20', '-shared', '-fPIC', `-I${join(root, 'native')}`, '-o', path];
  const source = join(root, 'native/testing/fake_companion.cc');
  const all = [`REDRAFTER_VERSION="${version()}"`, ...defines].map((define) => `-D${define}`);
  execFileSync(process.env.CXX ?? 'c++', [...flags, ...all, source]);
}

const fakes = new Map<string, Addons>();

function once(key: string, make: () => Addons): Addons {
  const addons = fakes.get(key) ?? make();
  fakes.set(key, addons);
  return addons;
}

/** With a fake library and the program as it is. */
export function fake(...defines: string[]): Addons {
  return once(defines.join(' '), () =>
    beside((library) => {
      compile(library, defines);
    }),
  );
}

interface Device {
  code?: BackendReasonCode;
  message?: string;
  name: string;
}

/** What the program prints when it finds these devices. */
export function report(devices: Device[], stamp?: string): string {
  const empty = plantBeside(() => undefined);
  const none = execFileSync(join(empty, 'build/Release', PROBE), { encoding: 'utf8' });
  const own = (JSON.parse(none) as { stamp: string }).stamp;
  const all = devices.map(({ code = null, message = '', name }) => ({ code, message, name, level: 'sm_90' }));
  return `${JSON.stringify({ stamp: stamp ?? own, code: null, message: '', devices: all })}\n`;
}

/** Puts a shell script in the place of the program. */
export function plantScript(probe: string, script: string): void {
  writeFileSync(probe, `#!/bin/sh\n${script}\n`);
  chmodSync(probe, 0o755);
}

/** Puts a script that prints this in the place of the program. */
export function plantAnswer(probe: string, answer: string): void {
  writeFileSync(join(dirname(probe), 'answer'), answer);
  plantScript(probe, `cat '${join(dirname(probe), 'answer')}'`);
}

/** With a fake library whose device 0 and those from 2 on are said to be good, which they are not. */
export function trusted(count: number): Addons {
  const old = { code: 'UNSUPPORTED_DEVICE', message: 'Device 1 is old', name: 'Device 1' } as const;
  const devices = Array.from({ length: count }, (_, i) => (i === 1 ? old : { name: `Device ${i}` }));
  return once(`trusted ${count}`, () =>
    beside((library, probe) => {
      compile(library, [`FAKE_COUNT=${count}`]);
      plantAnswer(probe, report(devices));
    }),
  );
}

/** Puts the emulator in the place of the library. */
export function plantEmulator(library: string): void {
  copyFileSync(emulator, library);
}
