/**
 * The model process of examples/electron, the same file under child_process (both serializations) and worker_threads.
 * Electron itself is not run here.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ModelClient } from '../../examples/electron/model/model-client.mjs';
import { childProcessPort, utilityProcessPort, type ModelPort } from '../../examples/electron/model/port.mjs';
import { ModelProcessError, WINDOW, type RemoteChunk } from '../../examples/electron/model/protocol.mjs';
import { Supervisor, type State, type SupervisorOptions } from '../../examples/electron/model/supervisor.mjs';
import { Model, type GenerationResult, type Tokenizer } from '../../lib/index.js';
import { at } from '../kit/arrays.js';
import { bundled, prompts, trainedDrafters } from '../kit/bundled.js';
import { InstalledApp } from './model-processes.js';

const app = new InstalledApp();
const options = { drafter: trainedDrafters.gru, threads: 1, device: 'cpu' } as const;
const sampled = { maxTokens: 120, temperature: 0.8, seed: 7, beamWidth: 1, beamLength: 4 } as const;
/** Goes on until something ends it: wide beams make its rounds slow, so that the end of the context is far away. */
const endless = { maxTokens: 3000, ignoreEos: true, beamWidth: 32, beamLength: 8 } as const;
const [first, second] = [at(prompts, 0).text, at(prompts, 9).text];

/** What this process computes itself. */
let expected: GenerationResult[];
let tokenizer: Tokenizer;

/** The code that a promise rejects with. */
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'resolved',
    (error: unknown) => (error instanceof ModelProcessError ? error.code : `not typed: ${String(error)}`),
  );

/** Everything an iteration gives, and how it ended. */
async function collect(
  source: AsyncIterable<RemoteChunk>,
  onChunk: (chunk: RemoteChunk) => void = () => undefined,
): Promise<{ chunks: RemoteChunk[]; error?: unknown }> {
  const chunks: RemoteChunk[] = [];
  try {
    for await (const chunk of source) {
      chunks.push(chunk);
      onChunk(chunk);
    }
    return { chunks };
  } catch (error) {
    return { chunks, error };
  }
}

beforeAll(async () => {
  await using model = await Model.load(bundled, options);
  if (model.tokenizer === null) throw new Error('the bundled model has a tokenizer');
  ({ tokenizer } = model);
  expected = [];
  for (const prompt of [first, second]) {
    const session = await model.createSession();
    expected.push(await session.generate(prompt, sampled).result());
  }
});
afterAll(() => app.remove());

const hosts: [name: string, start: () => ModelPort][] = [
  ['child_process, json', () => app.process()],
  ['child_process, advanced serialization', () => app.process({ serialization: 'advanced' })],
  ['worker_threads', () => app.worker()],
  ["a channel with the shape of utilityProcess's", () => app.likeUtilityProcess()],
];

describe.each(hosts)('the model process under %s', (_, start) => {
  let port: ModelPort;
  let client: ModelClient;
  beforeAll(() => {
    port = start();
    client = new ModelClient(port);
  });

  it('refuses to generate before it has a model', async () => {
    expect(await codeOf(client.generate(first).result())).toBe('ERR_NOT_LOADED');
    expect(await client.stats()).toMatchObject({ model: null, kv: null, running: 0 });
  });

  it('passes on why a model cannot be loaded, with the remedy, and can load another', async () => {
    expect(await codeOf(client.load('/no/such/model'))).toBe('ERR_FILE');
    expect(await codeOf(client.load(bundled, { threads: -1 }))).toBe('ERR_INVALID_ARGUMENT');
    expect(await codeOf(client.load(bundled, { signal: AbortSignal.abort() }))).toBe('ERR_ABORTED');
  });

  it('loads, once', async () => {
    const info = await client.load(bundled, options);
    expect(info).toMatchObject({ family: 'llama', device: 'cpu', drafter: { cell: 'gru' } });
    expect(await codeOf(client.load(bundled, options))).toBe('ERR_ALREADY_LOADED');
  });

  it('streams the ids and text of an in-process run, two at once, with drafted runs marked', async () => {
    const generations = [first, second].map((prompt) => client.generate(prompt, sampled));
    const streams = await Promise.all(generations.map((generation) => collect(generation)));
    for (const [i, { chunks, error }] of streams.entries()) {
      const { tokenIds, text, finishReason } = at(expected, i);
      const result = await at(generations, i).result();
      expect(error).toBeUndefined();
      expect(result).toMatchObject({ tokenIds, text, finishReason, seed: '7' });
      expect(result.stats.tokensPerStep).toBeGreaterThan(1);
      expect(chunks.flatMap((chunk) => chunk.tokenIds)).toEqual(tokenIds);
      expect(chunks.map((chunk) => chunk.text).join('')).toBe(text);
      const runs = chunks.flatMap((chunk) => chunk.runs);
      expect(runs.map((run) => run.text).join('')).toBe(text);
      expect(new Set(runs.map((run) => run.drafted))).toEqual(new Set([true, false]));
      const pieces = tokenizer.detokenizer(tokenizer.encode([first, second][i] ?? '').at(-1));
      const drafted = chunks.flatMap(({ tokenIds: ids, accepted }) => {
        const texts = ids.map((id) => pieces.push(id));
        return texts.slice(0, accepted);
      });
      expect(runs.flatMap((run) => (run.drafted ? [run.text] : [])).join('')).toBe(drafted.join(''));
    }
  });

  it('carries large seeds, token ids and stop strings', async () => {
    const seed = String(2n ** 63n + 1n);
    const input = [...at(expected, 0).tokenIds];
    const once = await client.generate(input, { maxTokens: 30, temperature: 1, seed }).result();
    const twice = await client.generate(input, { maxTokens: 30, temperature: 1, seed }).result();
    expect(once).toMatchObject({ seed, tokenIds: twice.tokenIds });
    const stop = at(expected, 0).text.slice(20, 24);
    const generation = client.generate(first, { ...sampled, stop });
    const { chunks } = await collect(generation);
    const { text, finishReason } = await generation.result();
    expect(finishReason).toBe('stop');
    expect(text).toBe(at(expected, 0).text.slice(0, at(expected, 0).text.indexOf(stop)));
    expect(chunks.flatMap(({ runs }) => runs.map((run) => run.text)).join('')).toBe(text);
  });

  it('ends a generation in mid-stream by abort, and by leaving the loop', async () => {
    const aborted = client.generate(first, endless);
    const seen: number[] = [];
    for await (const { tokenIds } of aborted) {
      seen.push(...tokenIds);
      if (seen.length > 20) client.abort(aborted.id);
    }
    const result = await aborted.result();
    expect(result.finishReason).toBe('abort');
    expect(result.tokenIds).toEqual(seen);
    expect(seen.length).toBeLessThan(endless.maxTokens);

    const left = client.generate(first, endless);
    for await (const chunk of left) if (chunk.text !== '') break;
    expect((await left.result()).finishReason).toBe('abort');
    const { running, kv, memory, totals } = await client.stats();
    expect([running, kv?.usedBytes, kv?.sessions, memory?.kvUsedBytes]).toEqual([0, 0, 0, 0]);
    expect(totals?.tokens).toBeGreaterThan(result.tokenIds.length);
  });

  it('passes on what the engine refuses', async () => {
    expect(await codeOf(client.generate(first, { maxTokens: 0 }).result())).toBe('ERR_INVALID_ARGUMENT');
    expect(await codeOf(client.generate(first, { maxToken: 5 } as object).result())).toBe('ERR_INVALID_ARGUMENT');
    expect(await codeOf(client.generate(first, { seed: 'seven' }).result())).toBe('ERR_INVALID_ARGUMENT');
    expect(await codeOf(client.generate([]).result())).toBe('ERR_INVALID_ARGUMENT');
    const { error } = await collect(client.generate(first, { temperature: -1 }));
    expect(error).toBeInstanceOf(ModelProcessError);
  });

  it('gathers chunks while the consumer is slow, in order and without loss', async () => {
    let messages = 0;
    let answers = 0;
    port.onMessage((message) => {
      const { type, chunks } = message as { type: string; chunks?: unknown[] };
      if (type !== 'chunks') return;
      messages++;
      answers += chunks?.length ?? 0;
    });
    const generation = client.generate(first, sampled);
    const result = await generation.result(); // nothing is consumed before the end
    expect(messages).toBeLessThanOrEqual(WINDOW + 1);
    expect(answers).toBeGreaterThan(messages);
    const { chunks } = await collect(generation);
    expect(chunks.flatMap(({ tokenIds }) => tokenIds)).toEqual(result.tokenIds);
    expect(result.tokenIds).toEqual(at(expected, 0).tokenIds);
  });

  it('sends on as the consumer takes', async () => {
    let messages = 0;
    port.onMessage((message) => {
      if ((message as { type: string }).type === 'chunks') messages++;
    });
    const generation = client.generate(first, endless);
    await collect(generation, () => {
      if (messages > 2 * WINDOW) generation.abort();
    });
    expect((await generation.result()).finishReason).toBe('abort');
  });

  it('answers malformed messages with a typed error, and goes on', async () => {
    const answers: { type: string; id: number | null; error?: { code: string } }[] = [];
    port.onMessage((message) => answers.push(message as (typeof answers)[0]));
    const running = client.generate(first, sampled);
    const { id } = running;
    const bad: [message: unknown, id: number | null][] = [
      ['generate', null],
      [[1, 2], null],
      [{ type: 'generate', input: 'x' }, null],
      [{ type: 'generate', id: -1, input: 'x' }, null],
      [{ type: 'generate', id: 1e300, input: 'x' }, null],
      [{ type: 'generate', id: 900_001, input: 7 }, 900_001],
      [{ type: 'generate', id: 900_002, input: 'x', options: [] }, 900_002],
      [{ type: 'load', id: 900_003, model: null }, 900_003],
      [{ type: 'constructor', id: 900_004 }, 900_004],
      [{ type: 'generate', id, input: 'x' }, null], // in use: an error with its id would end the running one
      [{ type: 'nonsense', id }, null],
    ];
    for (const [message] of bad) port.send(message);
    port.send({ type: 'abort', id: 900_005 });
    port.send({ type: 'ack', id: 900_005 });
    expect((await running.result()).tokenIds).toEqual(at(expected, 0).tokenIds);
    await client.stats();
    const errors = answers.filter(({ type }) => type === 'error');
    expect(errors.map((answer) => answer.error?.code)).toEqual(bad.map(() => 'ERR_PROTOCOL'));
    expect(errors.map((answer) => answer.id)).toEqual(bad.map(([, expectedId]) => expectedId));
  });

  it('unloads in mid-generation, and loads again', async () => {
    const generation = client.generate(first, endless);
    for await (const { text } of generation) {
      if (text === '') continue;
      await client.unload();
      break;
    }
    expect((await generation.result()).finishReason).toBe('abort');
    expect(await client.stats()).toMatchObject({ model: null, running: 0 });
    await client.load(bundled, options);
    expect((await client.generate(second, sampled).result()).tokenIds).toEqual(at(expected, 1).tokenIds);
  });

  it('rejects everything pending when it is ended in mid-generation', async () => {
    const generation = client.generate(first, endless);
    const { error } = await collect(generation, () => {
      port.kill();
    });
    expect(error).toMatchObject({ code: 'ERR_PROCESS_GONE', remedy: expect.any(String) as string });
    expect(await codeOf(generation.result())).toBe('ERR_PROCESS_GONE');
    expect(await codeOf(client.stats())).toBe('ERR_PROCESS_GONE');
    expect(await codeOf(client.generate(first).result())).toBe('ERR_PROCESS_GONE');
    const again = new ModelClient(start());
    await again.load(bundled, options);
    expect((await again.generate(first, sampled).result()).tokenIds).toEqual(at(expected, 0).tokenIds);
  });
});

describe('loading a large model', () => {
  it('reports progress, can be aborted, and can be repeated', async () => {
    const large = app.largeModel();
    const client = new ModelClient(app.process());
    const abortAtFirstProgress = (): Promise<string> => {
      const controller = new AbortController();
      const onProgress = (): void => {
        controller.abort();
      };
      return codeOf(client.load(large, { signal: controller.signal, onProgress }));
    };
    // On a busy machine the abort may come when the model is loaded already.
    let outcome = await abortAtFirstProgress();
    for (let i = 0; outcome === 'resolved' && i < 5; i++) {
      await client.unload();
      outcome = await abortAtFirstProgress();
    }
    expect(outcome).toBe('ERR_ABORTED');
    const fractions: number[] = [];
    await client.load(large, { onProgress: (fraction) => fractions.push(fraction) });
    expect(fractions.length).toBeGreaterThan(0);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions.every((fraction) => fraction > 0 && fraction <= 1)).toBe(true);
    const result = await client.generate([1, 2], { maxTokens: 3, ignoreEos: true }).result();
    expect(result).toMatchObject({ tokenIds: [0, 0, 0], text: '' });
  });
});

/** A supervisor over real processes, and a way to wait for its states. */
function supervise(given: Partial<SupervisorOptions>): {
  supervisor: Supervisor;
  states: State[];
  until: (name: State['name']) => Promise<void>;
} {
  const states: State[] = [];
  let changed: () => void = () => undefined;
  const supervisor = new Supervisor({
    start: () => app.process(),
    model: bundled,
    options,
    onState: (state) => {
      states.push(state);
      changed();
    },
    delayMs: () => 10,
    ...given,
  });
  const until = async (name: State['name']): Promise<void> => {
    while (supervisor.state.name !== name) await new Promise<void>((resolve) => (changed = resolve));
  };
  return { supervisor, states, until };
}

describe('the app', () => {
  it('takes the process along when it goes, even in mid-generation', async () => {
    const child = app.fork();
    const ended = new Promise((resolve) =>
      child.once('exit', (...how) => {
        resolve(how);
      }),
    );
    const client = new ModelClient(childProcessPort(child));
    await client.load(bundled, options);
    let seen = 0;
    const onChunk = (): void => {
      if (++seen === 5) child.disconnect();
    };
    const stream = collect(client.generate(first, endless), onChunk);
    expect(await ended).toEqual([0, null]);
    expect((await stream).error).toMatchObject({ code: 'ERR_PROCESS_GONE' });
  });

  it('may end a process that has ended already, and is not told so yet', () => {
    const pid = 2 ** 30 + 1; // none that a system gives
    const port = utilityProcessPort({ pid, postMessage: () => undefined, kill: () => true, on: () => undefined });
    expect(() => {
      port.kill();
    }).not.toThrow();
  });

  it('does not believe a process that talks nonsense', async () => {
    const port = app.impostor('process.on("message", ({ id }) => process.send({ type: "chunks", id, chunks: "x" }))');
    const ended = new Promise((resolve) => {
      port.onExit(resolve);
    });
    const client = new ModelClient(port);
    expect(await codeOf(client.stats())).toBe('ERR_PROTOCOL');
    expect(await ended).toBe('signal SIGKILL');
  });

  it('does not load again what cannot be loaded', async () => {
    const { supervisor, states, until } = supervise({ model: '/no/such/model' });
    supervisor.start();
    await until('failed');
    expect(states.map(({ name }) => name)).toEqual(['loading', 'failed']);
    expect(states.at(-1)).toMatchObject({ error: { code: 'ERR_FILE' } });
  });

  it('gives up on a process that ends again and again', async () => {
    const start = (): ModelPort => app.impostor('process.exit(3)');
    const { supervisor, states, until } = supervise({ start, maxAttempts: 2 });
    supervisor.start();
    await until('failed');
    expect(states.map(({ name }) => name)).toEqual([
      'loading',
      'restarting',
      'loading',
      'restarting',
      'loading',
      'failed',
    ]);
    expect(states.at(-1)).toMatchObject({ error: { code: 'ERR_PROCESS_GONE' } });
  });

  it.each(['SIGKILL', 'SIGUSR2', 'SIGSEGV'] as const)('lives on when its model process ends by %s', async (signal) => {
    const { supervisor, states, until } = supervise({});
    expect(() => supervisor.client).toThrow(ModelProcessError);
    supervisor.start();
    await until('ready');
    const generation = supervisor.client.generate(first, endless);
    const idle = supervisor.client.generate(second, endless).result();
    const { error } = await collect(generation, () => {
      const { state } = supervisor;
      if (state.name === 'ready' && state.pid !== undefined) process.kill(state.pid, signal);
    });
    expect(error).toMatchObject({ code: 'ERR_PROCESS_GONE' });
    expect(await codeOf(idle)).toBe('ERR_PROCESS_GONE');
    await until('ready');
    const reasons = states.flatMap((state) => (state.name === 'restarting' ? [state.reason] : []));
    expect(reasons).toEqual([`signal ${signal === 'SIGUSR2' ? 'SIGABRT' : signal}`]);
    const result = await supervisor.client.generate(first, sampled).result();
    expect(result.tokenIds).toEqual(at(expected, 0).tokenIds);
    await supervisor.stop();
    expect(supervisor.state.name).toBe('stopped');
  });
});
