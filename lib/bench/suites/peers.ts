/** Other engines beside this one on the same weights: bench/peers, which is in clones only. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../package-root.js';
import type { Bar } from '../bars.js';
import { runProgram } from '../children.js';
import type { Bench } from '../ways.js';
import type { NotAvailable } from '../report.js';

/** What bench/peers reports: rows of its own columns. */
export interface PeersSuite {
  rows: Record<string, string | number | boolean | null>[];
  notes: string[];
}

const MODULE = join(packageRoot, 'bench/peers/index.mjs');
const PROGRAM = join(packageRoot, 'bench/run-peers.mjs');

export async function runPeers(bench: Bench): Promise<{ suite: PeersSuite | NotAvailable; bars: Bar[] }> {
  if (!existsSync(MODULE) || !existsSync(PROGRAM)) {
    return { suite: { notAvailable: 'it needs bench/peers, which is in clones of the repository only' }, bars: [] };
  }
  const { settings, model, drafters, progress, signal } = bench;
  progress.start('peers', 0);
  progress.begin('measuring');
  const options = {
    ...{ model: model.path, drafter: drafters[0]?.path, ...settings.load, quick: settings.quick },
    ...{ tokens: settings.tokens, turns: settings.turns },
  };
  const output = await runProgram(process.execPath, [PROGRAM, JSON.stringify(options)], signal, (line) => {
    progress.begin(line);
  });
  const {
    rows,
    notes = [],
    bars = [],
  } = JSON.parse(output.trim().split('\n').at(-1) ?? '') as {
    rows: PeersSuite['rows'];
    notes?: string[];
    bars?: Bar[];
  };
  return { suite: { rows, notes }, bars };
}
