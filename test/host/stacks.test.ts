/** Where an error comes from: whatever fails, and however late, its stack shows the caller and not only internals. */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { estimateMemory, inspect, Model, RedrafterError, type Session } from '../../lib/index.js';
import { bundled } from '../kit/bundled.js';
import { writeTinyModel } from '../lib/tiny.js';

const paths = writeTinyModel();
const nowhere = join(paths.model, 'nothing', 'there');
const LONG = { maxTokens: 2000, ignoreEos: true };

// The bundled model takes long enough that work is still running when it is ended.
let model: Model;
beforeAll(async () => {
  model = await Model.load(bundled, { threads: 1, kvTokens: 1024, prefillChunk: 1 });
});
afterAll(() => model.dispose());

/** Work that fails, with its code. `theCaller` is the frame that must be seen. */
const FAILURES: Record<string, [code: string, (session: Session) => Promise<unknown>]> = {
  'Model.load, a check': [
    'ERR_INVALID_ARGUMENT',
    async function theCaller() {
      await Model.load('');
    },
  ],
  'Model.load, an option': [
    'ERR_INVALID_ARGUMENT',
    async function theCaller() {
      await Model.load('x', { threads: 0 });
    },
  ],
  'Model.load, native code': [
    'ERR_FILE',
    async function theCaller() {
      await Model.load(nowhere);
    },
  ],
  'Model.load, a signal': [
    'ERR_ABORTED',
    async function theCaller() {
      await Model.load(paths.model, { signal: AbortSignal.abort() });
    },
  ],
  estimateMemory: [
    'ERR_FILE',
    async function theCaller() {
      await estimateMemory(nowhere);
    },
  ],
  inspect: [
    'ERR_FILE',
    async function theCaller() {
      await inspect(nowhere);
    },
  ],
  createSession: [
    'ERR_DISPOSED',
    async function theCaller() {
      const other = await Model.load(paths.model, { threads: 1, kvTokens: 64 });
      void other.dispose();
      await other.createSession();
    },
  ],
  restoreSession: [
    'ERR_FILE',
    async function theCaller() {
      await model.restoreSession(nowhere);
    },
  ],
  'append, a check': [
    'ERR_INVALID_ARGUMENT',
    async function theCaller(session) {
      await session.append([-1]);
    },
  ],
  'append, native code': [
    'ERR_KV_FULL',
    async function theCaller(session) {
      await session.append(Array<number>(2000).fill(1));
    },
  ],
  'append, its end': [
    'ERR_DISPOSED',
    async function theCaller(session) {
      const work = session.append(Array<number>(500).fill(1));
      void session.dispose();
      await work;
    },
  ],
  save: [
    'ERR_FILE',
    async function theCaller(session) {
      await session.save(nowhere);
    },
  ],
  rewind: [
    'ERR_INVALID_ARGUMENT',
    async function theCaller(session) {
      await session.rewind(1);
    },
  ],
  'fork, a check': [
    'ERR_BUSY',
    async function theCaller(session) {
      session.generate([1], { maxTokens: 200, ignoreEos: true });
      await session.fork();
    },
  ],
  'generate, a check': [
    'ERR_INVALID_ARGUMENT',
    async function theCaller(session) {
      await session.generate([-1]).result();
    },
  ],
  'result(), native code': [
    'ERR_KV_FULL',
    async function theCaller(session) {
      await session.generate([1], LONG).result();
    },
  ],
  'result(), a signal': [
    'ERR_ABORTED',
    async function theCaller(session) {
      const controller = new AbortController();
      const run = session.generate([1], { maxTokens: 500, ignoreEos: true, signal: controller.signal });
      controller.abort();
      await run.result();
    },
  ],
  'result(), disposal': [
    'ERR_DISPOSED',
    async function theCaller(session) {
      const run = session.generate([1], { maxTokens: 500, ignoreEos: true });
      void session.dispose();
      await run.result();
    },
  ],
  'iteration, native code': [
    'ERR_KV_FULL',
    async function theCaller(session) {
      for await (const chunk of session.generate([1], LONG)) expect(chunk).toBeDefined();
    },
  ],
  'iteration, a signal': [
    'ERR_ABORTED',
    async function theCaller(session) {
      const controller = new AbortController();
      const options = { maxTokens: 500, ignoreEos: true, signal: controller.signal };
      for await (const chunk of session.generate([1], options)) {
        expect(chunk).toBeDefined();
        controller.abort();
      }
    },
  ],
};

it.each(Object.keys(FAILURES))('%s', async (name) => {
  const [code, work] = FAILURES[name] ?? ['', () => Promise.resolve()];
  const session = await model.createSession();
  const error: unknown = await work(session).then(
    () => 'nothing was thrown',
    (thrown: unknown) => thrown,
  );
  await session.dispose();
  expect(error).toBeInstanceOf(RedrafterError);
  const { code: got, stack = '', message, name: kind } = error as RedrafterError;
  expect({ code: got, message }).toEqual({ code, message: expect.stringMatching(/.{5}/) as string });
  expect(stack.startsWith(kind)).toBe(true);
  expect(stack).toContain('theCaller');
  expect(stack).toContain('stacks.test.ts');
});
