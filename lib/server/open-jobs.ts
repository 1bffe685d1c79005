/**
 * Counts the requests that generate or wait to, for metrics and for the end of the server. Which of them run is the
 * business of the engine's queue.
 */
export class OpenJobs {
  private open = 0;
  private onIdle: (() => void)[] = [];

  get count(): number {
    return this.open;
  }

  /** Returns the function that ends it, idempotent. */
  begin(): () => void {
    this.open++;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      if (--this.open === 0) for (const resolve of this.onIdle.splice(0)) resolve();
    };
  }

  /** Resolves once there is none. */
  async idle(): Promise<void> {
    if (this.open > 0) await new Promise<void>((resolve) => this.onIdle.push(resolve));
  }
}
