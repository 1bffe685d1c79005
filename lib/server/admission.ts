import { busy, type HttpError } from './http-error.js';

/**
 * Lets a bounded number of requests run and a bounded number wait, first come, first served. That is all: which of the
 * running ones share a round is the engine's business.
 */
export class Admission {
  private active = 0;
  private readonly queue = new Set<() => void>();
  private onIdle: (() => void)[] = [];

  constructor(
    private readonly limits: { maxConcurrent: number; maxQueue: number; queueTimeoutMs: number },
    /** Why nobody is let in at present, if so. */
    private readonly closed: () => HttpError | undefined,
  ) {}

  get running(): number {
    return this.active;
  }

  get waiting(): number {
    return this.queue.size;
  }

  /** Throws what {@link Admission.enter} would now refuse with, so that a body need not be read in vain. */
  check(): void {
    const why = this.closed();
    if (why !== undefined) throw why;
    const { maxConcurrent, maxQueue } = this.limits;
    if (this.active >= maxConcurrent && this.queue.size >= maxQueue) {
      throw busy(429, 'queue_full', `${this.active} requests are running and ${this.queue.size} waiting, try later`);
    }
  }

  /**
   * Waits for a turn. Resolves to the function that ends it. Rejects with 429 when the queue is full or the wait too
   * long, and with the reason of `signal` when that fires first.
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    this.check();
    signal.throwIfAborted();
    if (this.active >= this.limits.maxConcurrent) await this.wait(signal);
    else this.active++;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.leave();
    };
  }

  /** Resolves once nothing runs or waits. */
  async idle(): Promise<void> {
    if (this.active > 0) await new Promise<void>((resolve) => this.onIdle.push(resolve));
  }

  private wait(signal: AbortSignal): Promise<void> {
    const { queueTimeoutMs } = this.limits;
    return new Promise((resolve, reject) => {
      // Leaves the queue in the same turn of the event loop, so that no turn is given to one that has gone.
      const settle = (then: () => void): void => {
        this.queue.delete(enter);
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        then();
      };
      const enter = (): void => {
        settle(resolve);
      };
      const onAbort = (): void => {
        settle(() => {
          reject(signal.reason as Error);
        });
      };
      const timer = setTimeout(() => {
        settle(() => {
          reject(busy(429, 'queue_timeout', `no turn within ${queueTimeoutMs} ms, try later`));
        });
      }, queueTimeoutMs);
      this.queue.add(enter);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  private leave(): void {
    const [next] = this.queue;
    if (next !== undefined) {
      next(); // the turn passes on, so nobody who comes now can take it
      return;
    }
    this.active--;
    if (this.active === 0) for (const resolve of this.onIdle.splice(0)) resolve();
  }
}
