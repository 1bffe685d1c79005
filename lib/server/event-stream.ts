import { HttpError } from './http-error.js';

/**
 * Server-sent events, and when to make more of them. Events that the client has not taken yet are joined into one piece,
 * which the connection takes when it can write again.
 */
export class EventStream {
  readonly readable: ReadableStream<Uint8Array>;
  private waiting = '';
  private ended = false;
  private gone = false;
  private wake: (() => void) | undefined;
  /** Who waits for room, and whether there is nothing to wait for any more. */
  private readonly resume: (() => void)[] = [];
  private released = false;
  /** Runs while something waits. */
  private stall: NodeJS.Timeout | undefined;

  constructor(
    private readonly limits: { streamBuffer: number; stallTimeoutMs: number },
    /** What to do about a client that takes nothing at all for too long. */
    private readonly onStall: () => void,
  ) {
    const utf8 = new TextEncoder();
    this.readable = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          if (this.waiting === '' && !this.ended) await new Promise<void>((resolve) => (this.wake = resolve));
          if (this.gone) return;
          clearTimeout(this.stall);
          this.stall = undefined;
          const piece = this.waiting;
          this.waiting = '';
          this.goOn();
          if (piece !== '') controller.enqueue(utf8.encode(piece));
          if (!this.ended) return;
          // What is enqueued goes out before the end does.
          this.gone = true;
          controller.close();
        },
        cancel: () => {
          this.abandon();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** Resolves when there is room: the client has taken so much that no more than the bound waits for it. */
  async room(): Promise<void> {
    if (this.waiting.length <= this.limits.streamBuffer || this.released || this.gone) return;
    await new Promise<void>((resolve) => this.resume.push(resolve));
  }

  /** Whoever waits for room goes on: the request ends, whether or not its client reads. */
  release(): void {
    this.released = true;
    this.goOn();
  }

  private goOn(): void {
    for (const resume of this.resume.splice(0)) resume();
  }

  /** Sends a JSON event. */
  send(data: object): void {
    this.push(`data: ${JSON.stringify(data)}\n\n`);
  }

  /** Ends the stream as one that succeeded, or with an error event. */
  end(error?: object): void {
    this.ended = true;
    this.push(error === undefined ? 'data: [DONE]\n\n' : `data: ${JSON.stringify(error)}\n\n`);
  }

  /** Drops what waits. */
  private abandon(): void {
    this.gone = true;
    this.waiting = '';
    clearTimeout(this.stall);
    this.wake?.();
    this.goOn();
  }

  private push(text: string): void {
    if (this.gone) return;
    this.waiting += text;
    this.stall ??= setTimeout(this.onStall, this.limits.stallTimeoutMs);
    this.wake?.();
    this.wake = undefined;
  }
}

/** Why a request ends whose client does not read. */
export function tooSlow(): HttpError {
  return new HttpError(503, 'client_too_slow', 'the answer was not read');
}
