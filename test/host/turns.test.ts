/** On Linux, the threads that compute ask for long turns, so that the event loop can interrupt them when it wakes. */
import { readdirSync, readFileSync } from 'node:fs';

import { expect, it } from 'vitest';

import { Model } from '../../lib/index.js';
import { writeTinyModel } from '../lib/tiny.js';

/** Nanoseconds of a turn, by thread of this process. Undefined where the kernel does not tell, or has one for all. */
function turns(): Map<string, number> | undefined {
  const found = new Map<string, number>();
  try {
    const [major = 0, minor = 0] = readFileSync('/proc/sys/kernel/osrelease', 'utf8').split('.').map(Number);
    if (major < 6 || (major === 6 && minor < 12)) return undefined;
    for (const thread of readdirSync('/proc/self/task')) {
      const turn = /^se\.slice\s*:\s*(\d+)$/m.exec(readFileSync(`/proc/self/task/${thread}/sched`, 'utf8'))?.[1];
      if (turn === undefined) return undefined;
      found.set(thread, Number(turn));
    }
  } catch {
    return undefined;
  }
  return found;
}

it.skipIf(turns() === undefined)('the threads of an engine have turns twice as long, and no other has', async () => {
  const before = turns() ?? new Map<string, number>();
  await using model = await Model.load(writeTinyModel().model, { threads: 3 });
  expect(model.info.threads).toBe(3);
  const now = turns() ?? new Map<string, number>();
  const own = Math.min(...before.values());
  const started = [...now].filter(([thread]) => !before.has(thread)).map(([, turn]) => turn);
  expect(started.filter((turn) => turn === 2 * own)).toHaveLength(3);
  for (const [thread, turn] of before) expect(now.get(thread) ?? turn).toBe(turn);
});
