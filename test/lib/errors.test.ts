import { describe, expect, it } from 'vitest';

import { aborted, CallSite, fromThrown, nativeError, RedrafterError } from '../../lib/errors.js';
import * as api from '../../lib/index.js';

describe('RedrafterError', () => {
  it('has a code, a name and a remedy', () => {
    const error = new RedrafterError('ERR_BUSY', 'busy');
    expect(error).toBeInstanceOf(Error);
    expect([error.code, error.name, error.message]).toEqual(['ERR_BUSY', 'StateError', 'busy']);
    expect(error.remedy).toContain('fork');
    expect(new RedrafterError('ERR_FILE', 'x', { remedy: 'y' }).remedy).toBe('y');
  });

  it('has the class of its code, however it was made', () => {
    const classes = [
      [api.InvalidArgumentError, 'ERR_INVALID_ARGUMENT'],
      [api.FileError, 'ERR_FILE', 'ERR_MODEL_FORMAT', 'ERR_CONFIG', 'ERR_DRAFTER', 'ERR_SESSION_FILE', 'ERR_SESSION_MODEL'], // prettier-ignore
      [api.TextError, 'ERR_TOKENIZER', 'ERR_TEMPLATE'],
      [api.CapacityError, 'ERR_CONTEXT', 'ERR_KV_FULL', 'ERR_OOM'],
      [api.StateError, 'ERR_BUSY', 'ERR_DISPOSED'],
      [api.AbortError, 'ERR_ABORTED'],
      [api.PlatformError, 'ERR_BACKEND', 'ERR_NATIVE'],
      [api.InternalError, 'ERR_NUMERIC', 'ERR_CUDA', 'ERR_INTERNAL'],
    ] as const;
    for (const [type, ...codes] of classes) {
      for (const code of codes) {
        for (const error of [
          new RedrafterError(code, 'x'),
          nativeError(code, 'x'),
          fromThrown(nativeError(code, 'x')),
        ]) {
          expect(error).toBeInstanceOf(type);
          expect(error).toBeInstanceOf(RedrafterError);
          expect([error.name, error.code]).toEqual([type.name, code]);
          expect(error.remedy.length).toBeGreaterThan(10);
          for (const [other] of classes) if (other !== type) expect(error).not.toBeInstanceOf(other);
        }
      }
    }
  });

  it('looks like other aborts', () => {
    const controller = new AbortController();
    controller.abort(new Error('user left'));
    const error = aborted(controller.signal);
    expect([error.name, error.code]).toEqual(['AbortError', 'ERR_ABORTED']);
    expect(error.cause).toBe(controller.signal.reason);
  });

  it('converts what native code reports', () => {
    expect(nativeError('ERR_OOM', 'x').code).toBe('ERR_OOM');
    expect(nativeError('toString', 'x')).toMatchObject({ code: 'ERR_INTERNAL', message: 'x (native code toString)' });
    expect(fromThrown(Object.assign(new Error('x'), { code: 'ERR_FILE' })).code).toBe('ERR_FILE');
    expect(fromThrown(new TypeError('x'))).toMatchObject({ code: 'ERR_INTERNAL', message: 'x' });
    expect(fromThrown('x').message).toBe('x');
    const same = new RedrafterError('ERR_BUSY', 'x');
    expect(fromThrown(same)).toBe(same);
  });

  it('keeps the stack of the caller over an asynchronous hop', async () => {
    function publicFunction(): Promise<never> {
      const site = new CallSite();
      return new Promise((_, reject) => {
        setImmediate(() => {
          reject(site.mark(new RedrafterError('ERR_OOM', 'later')));
        });
      });
    }
    const error: unknown = await publicFunction().catch((e: unknown) => e);
    const stack = (error as Error).stack ?? '';
    expect(stack.split('\n')[0]).toBe('CapacityError [ERR_OOM]: later');
    expect(stack).toContain('publicFunction');
  });
});
