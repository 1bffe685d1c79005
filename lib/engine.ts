import { aborted, type CallSite, fromThrown, nativeError, RedrafterError } from './errors.js';
import type { NativeEngine, NativeMessage, NativeModelInfo, NativeUsage } from './native.js';

/** A message about one ticket. */
export type TicketMessage = Extract<NativeMessage, { ticket: number }>;

/** Receives the messages of one ticket. */
export interface Waiter {
  /** Handles a message; returns true when it was the last one of the ticket. */
  message(message: TicketMessage): boolean;
  /** The ticket ended by an error; nothing follows. */
  fail(error: RedrafterError): void;
}

/**
 * Routes messages to the waiters of their tickets. Knows nothing of the native object, so it can be tested with
 * plain messages.
 */
export class Dispatcher {
  private readonly waiters = new Map<number, Waiter>();
  /** Open tickets of which nothing will be heard unless the caller does something. */
  private readonly resting = new Set<number>();
  private lastTicket = 0;
  /** Set once no more work is possible. */
  private ended: RedrafterError | undefined;

  constructor(
    /** Hears of messages that have no ticket. */
    private readonly onEngine: (message: Exclude<NativeMessage, TicketMessage>) => void,
    /** Called when the number of open tickets that do not rest becomes zero or leaves it. */
    private readonly onBusy: (busy: boolean) => void,
  ) {}

  /** Why no more work is possible, if so. */
  get dead(): RedrafterError | undefined {
    return this.ended;
  }

  /** Registers a waiter and returns its ticket. */
  open(waiter: Waiter): number {
    const ticket = ++this.lastTicket;
    this.change(() => this.waiters.set(ticket, waiter));
    return ticket;
  }

  /** Whether an open ticket waits for its caller; then it is no pending work. */
  rest(ticket: number, resting: boolean): void {
    if (!this.waiters.has(ticket)) return;
    this.change(() => (resting ? this.resting.add(ticket) : this.resting.delete(ticket)));
  }

  /** Forgets a ticket; later messages for it are dropped. */
  drop(ticket: number): void {
    this.change(() => {
      this.waiters.delete(ticket);
      this.resting.delete(ticket);
    });
  }

  private change(edit: () => void): void {
    const before = this.waiters.size > this.resting.size;
    edit();
    const now = this.waiters.size > this.resting.size;
    if (now !== before) this.onBusy(now);
  }

  /** Ends every open ticket, and all later work, with errors of this code. */
  end(code: string, message: string): void {
    this.ended ??= nativeError(code, message);
    const open = [...this.waiters.values()];
    this.change(() => {
      this.waiters.clear();
      this.resting.clear();
    });
    for (const waiter of open) waiter.fail(nativeError(code, message));
  }

  dispatch(messages: readonly NativeMessage[]): void {
    for (const message of messages) {
      if (!('ticket' in message)) {
        if (message.type === 'failed') this.end(message.code, message.message);
        if (message.type === 'closed') this.end('ERR_DISPOSED', 'the model was disposed of');
        this.onEngine(message);
        continue;
      }
      const waiter = this.waiters.get(message.ticket);
      if (waiter === undefined) continue;
      if (message.type === 'error') {
        this.drop(message.ticket);
        waiter.fail(nativeError(message.code, message.message));
      } else if (waiter.message(message)) {
        this.drop(message.ticket);
      }
    }
  }
}

/** Hears the answer to work that nobody waits for. */
const NOBODY: Waiter = {
  message: () => true,
  fail: () => undefined,
};

/** Starts the native engine and calls `onMessages` with what it reports. */
export type StartEngine = (onMessages: (messages: NativeMessage[]) => void) => NativeEngine;

/** Engines with pending work: they are not collected, reachable or not. */
const working = new Set<Engine>();

/** Ends the thread of an engine that was collected without having been closed. */
const collected = new FinalizationRegistry<NativeEngine>((native) => {
  native.close();
});

/** What native code holds on to. Made here because a function made in the constructor would also hold `this`. */
function deliverTo(engine: WeakRef<Engine>): (messages: NativeMessage[]) => void {
  return (messages) => engine.deref()?.receive(messages);
}

/**
 * One native engine: loading, tickets, and the end of it. Pending work keeps the process alive and the engine from
 * being collected; an idle engine does neither, and when it is collected its thread ends and its memory is freed.
 */
export class Engine {
  readonly native: NativeEngine;
  private readonly dispatcher: Dispatcher;
  private readonly closed: Promise<void>;
  private resolveClosed!: () => void;
  private closing = false;
  private lastSession = 0;
  /** Closes sessions that were collected without having been disposed of. */
  private readonly abandoned = new FinalizationRegistry<number>((session) => {
    if (this.closing || this.dispatcher.dead !== undefined) return;
    this.submit(NOBODY, (native, ticket) => {
      native.closeSession(ticket, session);
    });
  });

  private constructor(start: StartEngine, onEngine: (message: Exclude<NativeMessage, TicketMessage>) => void) {
    this.closed = new Promise((resolve) => {
      this.resolveClosed = resolve;
    });
    this.dispatcher = new Dispatcher(
      (message) => {
        if (message.type === 'closed') this.resolveClosed();
        onEngine(message);
      },
      (busy) => {
        this.hold(busy || this.closing);
      },
    );
    this.native = start(deliverTo(new WeakRef(this)));
    collected.register(this, this.native);
    this.hold(true);
  }

  /** Whether the process stays alive and this engine in memory. */
  private hold(yes: boolean): void {
    if (yes) {
      working.add(this);
      this.native.ref();
    } else {
      working.delete(this);
      this.native.unref();
    }
  }

  /** Takes what native code reports. @internal */
  receive(messages: readonly NativeMessage[]): void {
    this.dispatcher.dispatch(messages);
  }

  /**
   * Starts an engine and waits until its model is loaded. Rejects with the code that loading failed with, or with
   * what `onProgress` threw; the engine is then closed.
   */
  static async load(
    start: StartEngine,
    onProgress: (fraction: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<{ engine: Engine; info: NativeModelInfo }> {
    let settle!: { resolve: (info: NativeModelInfo) => void; reject: (error: unknown) => void };
    const ready = new Promise<NativeModelInfo>((resolve, reject) => {
      settle = { resolve, reject };
    });
    let failed = false;
    const fail = (error: unknown): void => {
      failed = true;
      settle.reject(error);
    };
    const report = (fraction: number): void => {
      if (failed) return; // the engine is being closed, and nobody waits for it to load
      try {
        onProgress(fraction);
      } catch (error) {
        fail(error);
      }
    };
    const engine = new Engine(start, (message) => {
      if (message.type === 'ready') {
        report(1);
        settle.resolve(message.info);
      } else if (message.type === 'failed') fail(nativeError(message.code, message.message));
      else if (message.type === 'closed') fail(new RedrafterError('ERR_DISPOSED', 'the engine was closed'));
      else report(message.totalBytes > 0 ? message.bytes / message.totalBytes : 1);
    });
    const onAbort = (): void => {
      fail(new RedrafterError('ERR_ABORTED', 'loading was aborted', { cause: signal?.reason as unknown }));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    try {
      const info = await ready;
      engine.hold(false);
      return { engine, info };
    } catch (error) {
      await engine.close();
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Throws when no more work can be submitted. */
  check(): void {
    if (this.closing) throw new RedrafterError('ERR_DISPOSED', 'the model was disposed of');
    const dead = this.dispatcher.dead;
    if (dead !== undefined) throw nativeError(dead.code, dead.message);
  }

  /** Use of the KV cache, by `session` in particular, and of the queue, as of the last round. Throws ERR_DISPOSED. */
  usage(session = 0): NativeUsage {
    try {
      return this.native.usage(session);
    } catch (error) {
      throw fromThrown(error);
    }
  }

  /** A number for a new session. */
  nextSession(): number {
    return ++this.lastSession;
  }

  /** Closes session `number` when `session`, the object that stands for it, is collected. */
  watch(session: object, number: number): void {
    this.abandoned.register(session, number, session);
  }

  /** The session was closed by other means. */
  unwatch(session: object): void {
    this.abandoned.unregister(session);
  }

  /** Submits work under a new ticket. Throws what the native call throws. */
  submit(waiter: Waiter, call: (native: NativeEngine, ticket: number) => void): number {
    this.check();
    const ticket = this.dispatcher.open(waiter);
    try {
      call(this.native, ticket);
    } catch (error) {
      this.dispatcher.drop(ticket);
      throw fromThrown(error);
    }
    return ticket;
  }

  /** Whether the work of a ticket waits for its caller: then it neither keeps the process alive nor the engine. */
  rest(ticket: number, resting: boolean): void {
    this.dispatcher.rest(ticket, resting);
  }

  /**
   * Submits work that is answered by one message; `site` becomes the stack of its errors. When `signal` fires the
   * work is abandoned within one round, and the promise rejects with ERR_ABORTED.
   */
  request<T extends TicketMessage['type']>(
    type: T,
    site: CallSite,
    call: (native: NativeEngine, ticket: number) => void,
    signal?: AbortSignal,
  ): Promise<Extract<TicketMessage, { type: T }>> {
    let ticket = 0;
    const onAbort = (): void => {
      this.native.abort(ticket, -1);
    };
    const answered = new Promise<Extract<TicketMessage, { type: T }>>((resolve, reject) => {
      const waiter: Waiter = {
        message(message) {
          if (message.type !== type) return false;
          resolve(message as Extract<TicketMessage, { type: T }>);
          return true;
        },
        fail(error) {
          reject(site.mark(signal?.aborted === true ? aborted(signal) : error));
        },
      };
      try {
        ticket = this.submit(waiter, call);
      } catch (error) {
        reject(site.mark(fromThrown(error)));
      }
    });
    if (signal === undefined) return answered;
    signal.addEventListener('abort', onAbort, { once: true });
    return answered.finally(() => {
      signal.removeEventListener('abort', onAbort);
    });
  }

  /** Ends the engine; open tickets fail with ERR_DISPOSED. Resolves when its thread has ended. Idempotent. */
  close(): Promise<void> {
    if (!this.closing) {
      this.closing = true;
      this.hold(true);
      this.native.close();
      void this.closed.then(() => {
        this.hold(false);
      });
    }
    return this.closed;
  }
}
