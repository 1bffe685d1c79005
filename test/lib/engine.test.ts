import { describe, expect, it, vi } from 'vitest';

import { Dispatcher, Engine, type TicketMessage, type Waiter } from '../../lib/engine.js';
import { CallSite, type RedrafterError } from '../../lib/errors.js';
import type { NativeEngine, NativeMessage, NativeModelInfo } from '../../lib/native.js';

/** Records what a ticket hears; ends at a message of type `last`. */
class Recorder implements Waiter {
  readonly heard: string[] = [];
  constructor(private readonly last = 'done') {}
  message(message: TicketMessage): boolean {
    this.heard.push(message.type);
    return message.type === this.last;
  }
  fail(error: RedrafterError): void {
    this.heard.push(error.code);
  }
}

const done = (ticket: number): NativeMessage => ({ type: 'done', ticket, tokens: 0, kvTokens: 0, reusedTokens: 0 });

describe('Dispatcher', () => {
  const make = (): { dispatcher: Dispatcher; busy: boolean[]; engine: string[] } => {
    const busy: boolean[] = [];
    const engine: string[] = [];
    const dispatcher = new Dispatcher(
      (message) => engine.push(message.type),
      (now) => busy.push(now),
    );
    return { dispatcher, busy, engine };
  };

  it('routes messages by ticket and forgets a ticket after its last one', () => {
    const { dispatcher } = make();
    const [a, b] = [new Recorder(), new Recorder()];
    const [ta, tb] = [dispatcher.open(a), dispatcher.open(b)];
    dispatcher.dispatch([done(tb), done(ta), done(ta), done(99)]);
    expect([a.heard, b.heard]).toEqual([['done'], ['done']]);
  });

  it('tells when work is pending', () => {
    const { dispatcher, busy } = make();
    const [ta, tb] = [dispatcher.open(new Recorder()), dispatcher.open(new Recorder())];
    dispatcher.dispatch([done(ta)]);
    expect(busy).toEqual([true]);
    dispatcher.dispatch([done(tb)]);
    dispatcher.drop(tb);
    expect(busy).toEqual([true, false]);
    dispatcher.open(new Recorder());
    expect(busy).toEqual([true, false, true]);
  });

  it('does not count tickets that rest as pending work', () => {
    const { dispatcher, busy } = make();
    const [ta, tb] = [dispatcher.open(new Recorder()), dispatcher.open(new Recorder())];
    dispatcher.rest(ta, true);
    dispatcher.rest(ta, true);
    expect(busy).toEqual([true]);
    dispatcher.rest(tb, true);
    expect(busy).toEqual([true, false]);
    dispatcher.rest(tb, false);
    dispatcher.dispatch([done(tb), done(ta)]);
    dispatcher.rest(ta, true); // it is gone
    expect(busy).toEqual([true, false, true, false]);
    dispatcher.rest(dispatcher.open(new Recorder()), true);
    dispatcher.end('ERR_DISPOSED', 'x');
    expect(busy).toEqual([true, false, true, false, true, false]);
  });

  it('ends a ticket at an error', () => {
    const { dispatcher } = make();
    const recorder = new Recorder();
    const ticket = dispatcher.open(recorder);
    dispatcher.dispatch([{ type: 'error', ticket, code: 'ERR_KV_FULL', message: 'x' }, done(ticket)]);
    expect(recorder.heard).toEqual(['ERR_KV_FULL']);
  });

  it('fails every ticket when the engine dies, once', () => {
    const { dispatcher, busy, engine } = make();
    const recorders = [new Recorder(), new Recorder()];
    recorders.forEach((recorder) => dispatcher.open(recorder));
    dispatcher.dispatch([{ type: 'failed', code: 'ERR_OOM', message: 'x' }, { type: 'closed' }]);
    for (const { heard } of recorders) expect(heard).toEqual(['ERR_OOM']);
    expect(dispatcher.dead?.code).toBe('ERR_OOM');
    expect(busy).toEqual([true, false]);
    expect(engine).toEqual(['failed', 'closed']);
  });
});

/** A native engine of plain functions; `send` delivers messages as the addon would. */
function fake(): {
  start: (on: (m: NativeMessage[]) => void) => NativeEngine;
  send: (...m: NativeMessage[]) => void;
  calls: string[];
} {
  let on: (messages: NativeMessage[]) => void = () => undefined;
  const calls: string[] = [];
  const send = (...messages: NativeMessage[]): void => {
    on(messages);
  };
  const native = new Proxy({} as NativeEngine, {
    get: (_, name) => () => {
      calls.push(String(name));
      if (name === 'close')
        setImmediate(() => {
          send({ type: 'closed' });
        });
      if (name === 'append') throw Object.assign(new Error('bad'), { code: 'ERR_INVALID_ARGUMENT' });
    },
  });
  return {
    start: (onMessages) => {
      on = onMessages;
      return native;
    },
    send,
    calls,
  };
}

const info = { vocab: 10 } as NativeModelInfo;
const ignore = (): void => undefined;

describe('Engine', () => {
  it('loads, reports progress and lets go of the event loop', async () => {
    const { start, send, calls } = fake();
    const seen: number[] = [];
    const loading = Engine.load(start, (fraction) => seen.push(fraction), undefined);
    send({ type: 'progress', bytes: 1, totalBytes: 4 }, { type: 'progress', bytes: 3, totalBytes: 4 });
    send({ type: 'ready', info });
    const { engine } = await loading;
    expect(seen).toEqual([0.25, 0.75, 1]);
    expect(calls).toEqual(['ref', 'unref']);
    const closing = engine.close();
    await engine.close();
    await closing;
    expect(calls.filter((call) => call === 'close')).toHaveLength(1);
    expect(() => {
      engine.check();
    }).toThrow('disposed');
  });

  it('closes when loading fails, is aborted, or onProgress throws', async () => {
    const failing = fake();
    const loading = Engine.load(failing.start, ignore, undefined);
    failing.send({ type: 'failed', code: 'ERR_CONFIG', message: 'x' });
    await expect(loading).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    expect(failing.calls).toContain('close');

    const aborted = fake();
    const controller = new AbortController();
    const second = Engine.load(aborted.start, ignore, controller.signal);
    controller.abort('why');
    await expect(second).rejects.toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError', cause: 'why' });

    const throwing = fake();
    const mine = new TypeError('mine');
    let calls = 0;
    const third = Engine.load(
      throwing.start,
      () => {
        calls++;
        throw mine;
      },
      undefined,
    );
    throwing.send({ type: 'progress', bytes: 1, totalBytes: 2 }, { type: 'ready', info });
    await expect(third).rejects.toBe(mine);
    expect(calls).toBe(1);
  });

  it('turns what a native call throws into a rejection with the stack of the caller', async () => {
    const { start, send } = fake();
    const loading = Engine.load(start, ignore, undefined);
    send({ type: 'ready', info });
    const { engine } = await loading;
    const work = engine.request('done', new CallSite(), (native, ticket) => {
      native.append(ticket, 0, new Int32Array(0));
    });
    const error: unknown = await work.catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message: 'bad' });
    expect((error as Error).stack).toContain('engine.test.ts');
    await engine.close();
    const submit = vi.fn();
    await expect(engine.request('done', new CallSite(), submit)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    expect(submit).not.toHaveBeenCalled();
  });
});
