/** What is being done, on standard error: one line that is rewritten on a terminal, else a line for each trial. */
import { performance } from 'node:perf_hooks';

interface Output {
  isTTY?: boolean;
  write(text: string): unknown;
}

const clock = (ms: number): string => {
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
};

export class Progress {
  private suite = '';
  private total = 0;
  private begun = 0;
  private started = 0;
  private open = false;

  constructor(private readonly output: Output) {}

  /** A suite of so many trials begins; 0 where that is not known. */
  start(suite: string, total: number): void {
    this.suite = suite;
    this.total = total;
    this.begun = 0;
    this.started = performance.now();
  }

  /** A trial begins, so the one before has ended. */
  begin(what: string): void {
    const spent = performance.now() - this.started;
    const left = this.begun > 0 && this.total > 0 ? `, ${clock((spent / this.begun) * (this.total - this.begun))} left` : ''; // prettier-ignore
    this.begun++;
    const count = this.total > 0 ? ` ${this.begun}/${this.total}` : '';
    const line = `${this.suite}${count}: ${what}, ${clock(spent)}${left}`;
    this.output.write(this.output.isTTY === true ? `\r\x1b[K${line}` : `${line}\n`);
    this.open = this.output.isTTY === true;
  }

  /** Takes the line away. */
  clear(): void {
    if (this.open) this.output.write('\r\x1b[K');
    this.open = false;
  }
}
