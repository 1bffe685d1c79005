/**
 * How fast memory can be read, by as many threads as the engine has: each looks for a byte that is not there (memchr of the
 * C library, vector instructions) in memory of its own, more in all than caches hold.
 */
import { freemem } from 'node:os';
import { performance } from 'node:perf_hooks';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

/** Of all threads together. */
const TOTAL_BYTES = 512 << 20;
const SPANS = 5;
const SPAN_MS = 150;

interface Task {
  bytes: number;
  /** Counts the threads that are ready, and lets all begin at once. */
  gate: Int32Array;
  threads: number;
}

function read({ bytes, gate, threads }: Task): number[] {
  const memory = Buffer.alloc(bytes, 1);
  memory.indexOf(0);
  if (Atomics.add(gate, 0, 1) + 1 === threads) Atomics.notify(gate, 0);
  else for (let seen = Atomics.load(gate, 0); seen < threads; seen = Atomics.load(gate, 0)) Atomics.wait(gate, 0, seen);
  return Array.from({ length: SPANS }, () => {
    const start = performance.now();
    let [done, seconds] = [0, 0];
    while (seconds * 1000 < SPAN_MS) {
      done += memory.length + memory.indexOf(0) + 1; // -1: it is not there
      seconds = (performance.now() - start) / 1000;
    }
    return done / seconds;
  });
}

/** Bytes per second: the best of several spans, as others only make it slower. */
export async function readBandwidth(threads: number): Promise<number> {
  const bytes = Math.floor(Math.min(TOTAL_BYTES, freemem() / 4) / threads);
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const rates = await Promise.all(
    Array.from(
      { length: threads },
      () =>
        new Promise<number[]>((resolve, reject) => {
          const worker = new Worker(__filename, { workerData: { bytes, gate, threads } satisfies Task });
          worker.once('message', resolve).once('error', reject);
        }),
    ),
  );
  const spans = Array.from({ length: SPANS }, (_, i) => rates.reduce((sum, own) => sum + (own[i] ?? 0), 0));
  return Math.round(Math.max(...spans));
}

if (!isMainThread && parentPort !== null && 'gate' in Object(workerData)) parentPort.postMessage(read(workerData as Task)); // prettier-ignore
