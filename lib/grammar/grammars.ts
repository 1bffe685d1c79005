import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { aborted, nativeError, RedrafterError } from '../errors.js';
import type { NativeEngine } from '../native.js';
import { packageRoot } from '../package-root.js';
import type { FromWorker, ToWorker, WorkerData } from './messages.js';

/** A grammar that is not compiled by then never will be, as far as anybody can wait for it. */
const COMPILE_LIMIT_MS = 60_000;

/** A request that has a matcher, or waits for one. */
interface Entry {
  /** Until the matcher is there. */
  opened: ((error?: RedrafterError) => void) | undefined;
  lost: (error: RedrafterError) => void;
}

/** Lets threads end whose owners were collected. */
const collected = new FinalizationRegistry<Worker>((worker) => void worker.terminate());

/** Those that somebody waits for: a promise does not keep alive what will settle it. */
const waiting = new Set<Grammars>();

/**
 * The grammars of one engine: a thread that is made when the first one is asked for. It makes masks for the engine by itself;
 * nothing of that comes by here.
 */
export class Grammars {
  private worker: Worker | undefined;
  private readonly entries = new Map<number, Entry>();
  private last = 0;
  private disposed = false;

  constructor(
    private readonly native: NativeEngine,
    private readonly model: { directory: string; vocab: number },
  ) {}

  /**
   * Makes a matcher, whose text may end with the ids of `endings`; resolves to its number. `lost` is called if its thread ends
   * later on. Rejects with ERR_GRAMMAR, ERR_TOKENIZER, ERR_GRAMMAR_WORKER, ERR_DISPOSED, ERR_ABORTED.
   */
  async open(
    grammar: string,
    endings: Int32Array,
    signal: AbortSignal,
    lost: (error: RedrafterError) => void,
  ): Promise<number> {
    if (this.disposed) throw new RedrafterError('ERR_DISPOSED', 'the model was disposed of');
    if (signal.aborted) throw aborted(signal);
    const worker = (this.worker ??= this.start());
    const matcher = (this.last = this.last === 2 ** 31 - 1 ? 1 : this.last + 1);
    const limit = setTimeout(() => {
      this.lose(worker, `a grammar was not compiled in ${COMPILE_LIMIT_MS / 1000} s`);
    }, COMPILE_LIMIT_MS);
    let onAbort: () => void = () => undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const opened = (error?: RedrafterError): void => {
          if (error === undefined) resolve();
          else reject(error);
        };
        onAbort = () => {
          this.close(matcher);
          reject(aborted(signal));
        };
        signal.addEventListener('abort', onAbort, { once: true });
        this.entries.set(matcher, { opened, lost });
        this.tell({ type: 'open', matcher, grammar, endings });
      });
      return matcher;
    } finally {
      clearTimeout(limit);
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** The request of a matcher has ended. */
  close(matcher: number): void {
    if (!this.entries.delete(matcher)) return;
    this.tell({ type: 'close', matcher });
  }

  /** Ends the thread; requests that wait for a matcher fail with ERR_DISPOSED. */
  dispose(): void {
    this.disposed = true;
    const { worker } = this;
    if (worker !== undefined) this.end(worker, new RedrafterError('ERR_DISPOSED', 'the model was disposed of'));
  }

  private start(): Worker {
    const data: WorkerData = { ...this.model, exchange: this.native.maskExchange() };
    // Sources run in tests; threads always run what was built.
    const worker = new Worker(join(packageRoot, 'dist', 'grammar', 'worker.js'), { workerData: data });
    const self = new WeakRef(this);
    collected.register(this, worker, worker);
    worker.unref();
    worker.on('message', (message: FromWorker) => self.deref()?.receive(message));
    worker.on('error', (error) => self.deref()?.lose(worker, error.message));
    worker.on('exit', () => self.deref()?.lose(worker, 'it ended'));
    return worker;
  }

  private tell(message: ToWorker): void {
    this.worker?.postMessage(message);
    this.hold();
  }

  /** Whether somebody waits for the thread: then it keeps the process alive. */
  private hold(): void {
    if ([...this.entries.values()].some(({ opened }) => opened !== undefined)) {
      waiting.add(this);
      this.worker?.ref();
    } else {
      waiting.delete(this);
      this.worker?.unref();
    }
  }

  private receive(message: FromWorker): void {
    const entry = this.entries.get(message.matcher);
    if (entry === undefined) return; // closed meanwhile, and the thread knows by now
    const { opened } = entry;
    entry.opened = undefined;
    if (message.type === 'open') opened?.();
    else {
      this.entries.delete(message.matcher);
      opened?.(nativeError(message.code, message.message));
    }
    this.hold();
  }

  private lose(worker: Worker, why: string): void {
    if (worker !== this.worker) return;
    const text = `the thread that carries out grammars failed: ${why}`;
    this.native.failMasks(text);
    this.end(worker, new RedrafterError('ERR_GRAMMAR_WORKER', text));
  }

  private end(worker: Worker, error: RedrafterError): void {
    this.worker = undefined;
    worker.unref();
    collected.unregister(worker);
    void worker.terminate();
    const entries = [...this.entries.values()];
    this.entries.clear();
    this.hold();
    for (const { opened, lost } of entries) (opened ?? lost)(error);
  }
}
