/** Other engines beside this one on the same weights: bench/peers, which is in clones only. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../package-root.js';
import type { Bar } from '../bars.js';
import { runProgram } from '../children.js';
import type { Settings } from '../options.js';
import { type PeersReport, type PeersSuite, peersSuite } from '../peers-report.js';
import type { NotAvailable } from '../report.js';
import type { Bench } from '../ways.js';

const MODULE = join(packageRoot, 'bench/peers/index.mjs');
const PROGRAM = join(packageRoot, 'bench/run-peers.mjs');

export async function runPeers(bench: Bench): Promise<{ suite: PeersSuite | NotAvailable; bars: Bar[] }> {
  if (!existsSync(MODULE) || !existsSync(PROGRAM)) {
    return { suite: { notAvailable: 'it needs bench/peers, which is in clones of the repository only' }, bars: [] };
  }
  const { settings, progress, signal } = bench;
  progress.start('peers', 0);
  progress.begin('starting');
  const output = await runProgram(process.execPath, [PROGRAM, JSON.stringify(optionsOf(settings))], signal, (line) => {
    progress.begin(line);
  });
  const report = JSON.parse(output.trim().split('\n').at(-1) ?? '') as PeersReport;
  // A quick run says nothing about speed and little about memory: only what is counted has bars.
  const bars = settings.quick ? report.bars.filter(({ goal }) => /^\d+$/.test(goal)) : report.bars;
  return { suite: peersSuite({ ...report, bars }), bars };
}

/** What bench/peers takes; it has its own defaults, and widens by itself. */
function optionsOf({ model, drafters, widen, load, promptFiles, quick, tokens, turns }: Settings): object {
  const few = { tokens, turns, count: 1, idsTokens: tokens, batches: [2] };
  return {
    model: model.path,
    drafter: drafters[0]?.path,
    factor: quick ? 1 : widen,
    threads: load.threads,
    prompts: promptFiles?.[0],
    quick,
    ...(load.dtype === undefined || load.dtype === 'auto' ? {} : { dtypes: [load.dtype] }),
    ...(quick ? few : {}),
  };
}
