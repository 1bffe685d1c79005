/** The model and drafters of a benchmark widened into a temporary folder, and whether they still write the same. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { widen } from '../widen/widen.js';
import type { Bar } from './bars.js';
import { equal } from './bars.js';
import type { Named } from './options.js';
import { type Bench, plainWay, promptsFor, trialOf } from './ways.js';

export interface Widened {
  model: Named;
  drafters: Named[];
  remove: () => void;
}

/** Widens all by the same factor. The folder lies in that for temporary files (TMPDIR). */
export async function widenAll(model: Named, drafters: readonly Named[], factor: number): Promise<Widened> {
  const directory = mkdtempSync(join(tmpdir(), 'redrafter-wide-'));
  const remove = (): void => {
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const one = async ({ name, path }: Named, folder: string): Promise<Named> => {
      const out = join(directory, folder);
      await widen(path, factor, out);
      return { name: `${name}, widened ${factor} times`, path: out };
    };
    const wide: Widened = { model: await one(model, 'model'), drafters: [], remove };
    for (const [i, drafter] of drafters.entries()) {
      const { path } = await one(drafter, `drafter-${i}`);
      wide.drafters.push({ name: drafter.name, path });
    }
    return wide;
  } catch (error) {
    remove();
    throw error;
  }
}

/**
 * Whether the widened model continues prompts as the small one does, greedily. Logits differ by the rounding of sums, so with
 * 16-bit weights a continuation could part where two tokens are equally probable; with f32 weights it should never.
 */
export async function compareWithSmall(bench: Bench): Promise<Bar> {
  const prompts = promptsFor(bench);
  const plain = plainWay(0);
  bench.progress.start('widened', 2);
  bench.progress.begin('widened');
  const wide = await trialOf(bench, plain, prompts);
  bench.progress.begin('as it was');
  const small = await trialOf({ ...bench, first: wide }, plain, prompts, bench.settings.model);
  const differing = small.ids.filter((id, i) => wide.ids[i] !== id).length;
  return equal(`of ${prompts.length} continuations by the widened model, those that differ from the small one's`, differing, 0); // prettier-ignore
}
