// Resident memory, when the garbage is gone and the cache has been used once.
import { setTimeout as wait } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
/** @type {unknown} */
const gc = runInNewContext('gc');
const collect = /** @type {() => void} */ (gc);

/** Resident bytes of the process. Collected twice: what is found dead first may hold native memory. */
export async function settledMemory() {
  for (let i = 0; i < 2; i++) {
    collect();
    await wait(20);
  }
  return process.memoryUsage().rss;
}

/**
 * Uses once what is there anyway, as pages count as resident only from their first use on, which would look like a leak of
 * whoever comes to use them: every block of the KV cache, and the young generation of the JavaScript heap, which grows
 * to its full size at some point of any run.
 * @param {import('redrafter').Model} model
 */
export async function touchMemory(model) {
  const sessions = [];
  for (let { freeBlocks, blockTokens } = model.kvUsage(); freeBlocks > 0; { freeBlocks } = model.kvUsage()) {
    const session = await model.createSession();
    sessions.push(session);
    await session.append(new Int32Array(Math.min(freeBlocks * blockTokens, model.info.contextTokens)));
  }
  await Promise.all(sessions.map((session) => session.dispose()));
  const objects = [];
  for (let i = 0; i < 200_000; i++) objects.push(Array.from({ length: 16 }, () => i));
}
