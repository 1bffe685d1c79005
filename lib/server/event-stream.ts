import { HttpError } from './http-error.js';

/** Most that more may wait than the bound allows, in milliseconds: a burst is taken by a client that reads within that. */
const OVERFLOW_MS = 1000;

/**
 * Server-sent events with a bound on what waits for the client. Events that the client has not taken yet are joined
 * into one piece, which the connection takes when it can write again.
 */
export class EventStream {
  readonly readable: ReadableStream<Uint8Array>;
  private waiting = '';
  private ended = false;
  private gone = false;
  private wake: (() => void) | undefined;
  /** Run while something waits, and while too much waits. */
  private stall: NodeJS.Timeout | undefined;
  private overflow: NodeJS.Timeout | undefined;

  constructor(
    private readonly limits: { streamBuffer: number; stallTimeoutMs: number },
    /** What to do about a client that leaves too much waiting, and about one that takes nothing at all for too long. */
    private readonly on: { overflow: () => void; stall: () => void },
  ) {
    const utf8 = new TextEncoder();
    this.readable = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          if (this.waiting === '' && !this.ended) await new Promise<void>((resolve) => (this.wake = resolve));
          if (this.gone) return;
          this.calm();
          const piece = this.waiting;
          this.waiting = '';
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
    this.calm();
    this.wake?.();
  }

  private push(text: string): void {
    if (this.gone) return;
    this.waiting += text;
    this.stall ??= setTimeout(this.on.stall, this.limits.stallTimeoutMs);
    // Counted in UTF-16 units, of which each is one to three bytes.
    if (this.waiting.length > this.limits.streamBuffer) this.overflow ??= setTimeout(this.on.overflow, OVERFLOW_MS);
    this.wake?.();
    this.wake = undefined;
  }

  private calm(): void {
    clearTimeout(this.stall);
    clearTimeout(this.overflow);
    this.stall = undefined;
    this.overflow = undefined;
  }
}

/** Why a request ends whose client does not read. */
export function tooSlow(): HttpError {
  return new HttpError(503, 'client_too_slow', 'the answer was not read');
}
