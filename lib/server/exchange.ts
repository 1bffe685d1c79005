import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { tooSlow } from './event-stream.js';
import { HttpError } from './http-error.js';
import type { RequestLog } from './options.js';

/** One request and its answer, from the header to the end of the connection's part in it. */
export class Exchange {
  readonly log: RequestLog;
  /** What goes on after the header of the answer was sent. */
  streaming: Promise<void> = Promise.resolve();
  private readonly started = performance.now();
  private readonly controller = new AbortController();
  private readonly closed: Promise<void>;

  /** `stallTimeoutMs`: most that the end of the answer waits for a client that does not read. */
  constructor(
    incoming: IncomingMessage,
    private readonly outgoing: ServerResponse,
    stallTimeoutMs: number,
  ) {
    const { method = '', socket } = incoming;
    const known = ['GET', 'HEAD', 'POST', 'OPTIONS', 'PUT', 'PATCH', 'DELETE'].includes(method);
    this.log = {
      id: randomUUID(),
      time: new Date().toISOString(),
      method: known ? method : 'other',
      route: 'other',
      status: 0,
      ms: 0,
    };
    this.closed = new Promise((resolve) => {
      const onClose = (): void => {
        socket.off('close', onClose);
        outgoing.off('close', onClose);
        if (!outgoing.writableFinished) this.abort(new HttpError(499, 'client_closed', 'the client went away'));
        resolve();
      };
      outgoing.on('close', onClose);
      // While an answer waits for the one before it on its connection, nothing tells it that the connection closes.
      socket.on('close', onClose);
      socket.setMaxListeners(0); // one for each request that was sent without waiting for answers
    });
    outgoing.once('prefinish', () => {
      outgoing.setTimeout(stallTimeoutMs, () => {
        this.abort(tooSlow());
        this.destroy();
      });
    });
  }

  /** Fires with an HttpError as reason when the request is to end early. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  abort(reason: HttpError): void {
    this.controller.abort(reason);
  }

  /** Ends the connection without a word: the client does not read. */
  destroy(): void {
    this.outgoing.destroy();
  }

  /** Resolves to what is to be logged, when everything about the request has ended. */
  async end(): Promise<RequestLog> {
    await this.closed;
    await this.streaming;
    const { log, outgoing } = this;
    log.status = outgoing.headersSent ? outgoing.statusCode : 499;
    log.ms = Math.round(performance.now() - this.started);
    const { reason } = this.signal as { reason?: unknown };
    if (reason instanceof HttpError) log.code ??= reason.code;
    return log;
  }
}
