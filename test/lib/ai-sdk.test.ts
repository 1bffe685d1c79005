/** The provider for the AI SDK, driven by the AI SDK itself and by the specification it calls models with. */
import type {
  JSONSchema7,
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4StreamPart,
} from '@ai-sdk/provider';
import { generateText, jsonSchema, Output, streamText, type ModelMessage, type ToolSet } from 'ai';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';

import { languageModel, type RedrafterMetadata, type RedrafterOptions } from '../../lib/ai-sdk.js';
import { Model, RedrafterError, type ChatMessage, type GenerateOptions } from '../../lib/index.js';
import { temporaryDirectory, writeTinyLlama } from '../kit/checkpoint.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { TINY, writeTinyModel } from './tiny.js';
import { byteLevel, writeTokenizer } from './tokenizers.js';

globalThis.AI_SDK_LOG_WARNINGS = false;

const CONTEXT = 512;
let model: Model;
let llm: LanguageModelV4;

beforeAll(async () => {
  model = await Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1, contextTokens: CONTEXT });
  llm = languageModel(model);
});

/** Generous: under a sanitizer 16 tokens take more than a second. */
const SOON = { timeout: 30_000 };

afterAll(() => model.dispose());

afterEach(async () => {
  // The AI SDK does not wait for the cancellation of a stream.
  await vi.waitFor(() => {
    expect(model.kvUsage()).toMatchObject({ usedBytes: 0, sessions: 0 });
  }, SOON);
});

const PROMPT = 'A point in the plane, and a function that moves it.';
const USER: LanguageModelV4CallOptions['prompt'] = [{ role: 'user', content: [{ type: 'text', text: PROMPT }] }];
/** Generates up to the context if nothing ends it, which a test below makes sure of. */
const ENDLESS = { maxOutputTokens: CONTEXT, temperature: 1, seed: 5 };

const own = (options: RedrafterOptions): { redrafter: RedrafterOptions } => ({ redrafter: options });

/** What the provider tells of a call. */
function figures(result: { finalStep: { providerMetadata: unknown } } | undefined): RedrafterMetadata {
  const metadata = result?.finalStep.providerMetadata as { redrafter: unknown } | undefined;
  return metadata?.redrafter as RedrafterMetadata;
}

/** What the library itself gives for messages. */
async function reference(messages: ChatMessage[], options: GenerateOptions): Promise<string> {
  await using session = await model.createSession();
  return (await session.generate(messages, { drafting: false, ...options }).result()).text;
}

async function failure(work: () => unknown): Promise<{ code: string; message: string }> {
  try {
    await work();
  } catch (error) {
    if (error instanceof RedrafterError) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('nothing was thrown');
}

async function partsOf(stream: ReadableStream<LanguageModelV4StreamPart>): Promise<LanguageModelV4StreamPart[]> {
  const parts: LanguageModelV4StreamPart[] = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

/** Reads up to the first text. */
async function firstText(reader: ReadableStreamDefaultReader<LanguageModelV4StreamPart>): Promise<void> {
  let part;
  do part = await reader.read();
  while (!part.done && part.value.type !== 'text-delta');
  expect(part.done).toBe(false);
}

describe('generateText', () => {
  it('gives the text of a session, with its usage, reason and figures', async () => {
    const expected = await reference([{ role: 'user', content: PROMPT }], { maxTokens: 48 });
    const providerOptions = own({ beamWidth: 1, beamLength: 4 }); // else no draft is certain
    const result = await generateText({ model: llm, prompt: PROMPT, maxOutputTokens: 48, providerOptions });
    expect(result.text).toBe(expected);
    expect(result.warnings ?? []).toEqual([]);
    expect([result.finishReason, result.rawFinishReason]).toEqual(['length', 'length']);
    expect(result.finalStep.response.modelId).toBe('LlamaForCausalLM');
    const promptTokens = model.tokenizer?.encodeChat([{ role: 'user', content: PROMPT }]).length;
    expect(result.usage).toMatchObject({
      inputTokens: promptTokens,
      inputTokenDetails: { noCacheTokens: promptTokens, cacheReadTokens: 0, cacheWriteTokens: 0 },
      outputTokens: 48,
      outputTokenDetails: { textTokens: 48, reasoningTokens: 0 },
    });
    const { tokens, tokensPerStep, acceptedByDepth, verifyMs, rounds } = figures(result);
    expect(tokens).toBe(48);
    expect(tokensPerStep).toBeCloseTo(47 / rounds);
    expect(tokensPerStep).toBeGreaterThan(1);
    expect(acceptedByDepth.length).toBeGreaterThan(0);
    expect(verifyMs).toBeGreaterThan(0);
  });

  it('gives the same text with drafting on and off, greedy and sampled', async () => {
    for (const sampling of [{}, { temperature: 0.8, topK: 50, topP: 0.95, seed: 11 }]) {
      const shapes: RedrafterOptions[] = [{ drafting: false }, {}, { beamWidth: 4, beamLength: 5 }];
      const results = await Promise.all(
        shapes.map((shape) =>
          generateText({ model: llm, prompt: PROMPT, maxOutputTokens: 64, ...sampling, providerOptions: own(shape) }),
        ),
      );
      const [plain, adaptive, drafted] = results;
      expect(adaptive?.text).toBe(plain?.text);
      expect(drafted?.text).toBe(plain?.text);
      expect(figures(drafted).draftedNodes).toBeGreaterThan(0);
      expect(figures(plain)).toMatchObject({ tokensPerStep: 1, draftedNodes: 0 });
    }
  });

  it('passes on every setting', async () => {
    const messages = [{ role: 'user', content: PROMPT }];
    const settings = { temperature: 1.2, topK: 30, topP: 0.9, seed: 3 };
    const expected = await reference(messages, { ...settings, minP: 0.05, maxTokens: 40 });
    const call = { model: llm, prompt: PROMPT, maxOutputTokens: 40, ...settings };
    const result = await generateText({ ...call, providerOptions: own({ minP: 0.05 }) });
    expect(result.text).toBe(expected);
    // Each of them matters, or passing them on would not show.
    const without = { temperature: 0.3, topK: 1, topP: 0.1, seed: 4 };
    for (const [name, value] of Object.entries(without)) {
      const other = await generateText({ ...call, [name]: value, providerOptions: own({ minP: 0.05 }) });
      expect(other.text, name).not.toBe(expected);
    }
    const other = await generateText({ ...call, providerOptions: own({ minP: 0.9 }) });
    expect(other.text).not.toBe(expected);
  });

  it('repeats sampling from the seed in its metadata', async () => {
    const call = { model: llm, prompt: PROMPT, maxOutputTokens: 32, temperature: 1 };
    const first = await generateText(call);
    const { seed } = figures(first);
    expect((await generateText({ ...call, seed })).text).toBe(first.text);
    expect(figures(await generateText(call)).seed).not.toBe(seed);
  });

  it('ends at stop sequences, and with the context when no limit is given', async () => {
    const whole = (await generateText({ model: llm, prompt: PROMPT, maxOutputTokens: 48 })).text;
    const stop = whole.slice(20, 24);
    const cut = await generateText({ model: llm, prompt: PROMPT, maxOutputTokens: 48, stopSequences: [stop] });
    expect(cut.text).toBe(whole.slice(0, whole.indexOf(stop)));
    expect([cut.finishReason, cut.rawFinishReason]).toEqual(['stop', 'stop']);
    const nothing = await generateText({ model: llm, prompt: PROMPT, stopSequences: [whole.slice(0, 1)] });
    expect([nothing.text, nothing.finishReason]).toEqual(['', 'stop']);
    await using tiny = await Model.load(writeTinyModel().model, { threads: 1, contextTokens: 320 });
    const { usage, finishReason } = await generateText({ model: languageModel(tiny), prompt: 'Hello' });
    expect([finishReason, usage.totalTokens]).toEqual(['length', 320]);
  });

  it('ends with the KV cache when that is smaller than the context and no limit is given', async () => {
    await using small = await Model.load(bundled, { threads: 1, contextTokens: CONTEXT, kvTokens: 100 });
    const { finishReason, usage } = await generateText({ model: languageModel(small), prompt: PROMPT, temperature: 1, seed: 5 }); // prettier-ignore
    expect(finishReason).toBe('length');
    expect(usage.totalTokens).toBe(100);
  });

  it('renders a conversation: instructions, and text in parts', async () => {
    const messages: ModelMessage[] = [
      { role: 'user', content: [{ type: 'text', text: 'A point' }, { type: 'text', text: ' in space.' }] }, // prettier-ignore
      { role: 'assistant', content: [{ type: 'text', text: 'interface Point {}' }] },
      { role: 'user', content: 'Now in the plane.' },
    ];
    const expected = await reference(
      [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'A point in space.' },
        { role: 'assistant', content: 'interface Point {}' },
        { role: 'user', content: 'Now in the plane.' },
      ],
      { maxTokens: 24 },
    );
    const result = await generateText({ model: llm, instructions: 'Be brief.', messages, maxOutputTokens: 24 });
    expect(result.text).toBe(expected);
    expect(expected).not.toBe(await reference([{ role: 'user', content: 'Now in the plane.' }], { maxTokens: 24 }));
  });

  it('runs calls side by side with the texts they give alone', async () => {
    const call = (seed: number): Promise<string> =>
      generateText({ model: llm, prompt: PROMPT, maxOutputTokens: 24, temperature: 1, seed }).then(({ text }) => text);
    const together = await Promise.all([1, 2, 3, 4].map(call));
    expect(new Set(together).size).toBe(4);
    for (const [i, text] of together.entries()) expect(await call(i + 1)).toBe(text);
  });
});

describe('streamText', () => {
  it('gives the text of generateText in pieces, and its figures at the end', async () => {
    const call = {
      model: llm,
      prompt: PROMPT,
      maxOutputTokens: 64,
      temperature: 0.7,
      seed: 2,
      providerOptions: { redrafter: { beamLength: 4 } },
    };
    const whole = await generateText(call);
    const result = streamText(call);
    const pieces: string[] = [];
    for await (const piece of result.textStream) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(5);
    expect(pieces.join('')).toBe(whole.text);
    expect(await result.usage).toEqual(whole.usage);
    expect(await result.finishReason).toBe(whole.finishReason);
    const counts = ({ tokens, rounds, acceptedByDepth, seed }: RedrafterMetadata): object => ({ tokens, rounds, acceptedByDepth, seed }); // prettier-ignore
    expect(counts(figures({ finalStep: await result.finalStep }))).toEqual(counts(figures(whole)));
  });

  it('ends by its signal', async () => {
    const controller = new AbortController();
    const onAbort = vi.fn();
    const onError = vi.fn();
    const result = streamText({ model: llm, prompt: PROMPT, ...ENDLESS, abortSignal: controller.signal, onAbort, onError }); // prettier-ignore
    const types = new Set<string>();
    for await (const { type } of result.stream) {
      types.add(type);
      if (type === 'text-delta') controller.abort();
    }
    expect([...types].at(-1)).toBe('abort');
    expect(onAbort).toHaveBeenCalledTimes(1);
    expect(onError).not.toHaveBeenCalled();
  });

  it('hands errors on, in the midst of it too', async () => {
    const tiny = await Model.load(writeTinyModel().model, { threads: 1 });
    const errors: unknown[] = [];
    const call = { onError: ({ error }: { error: unknown }) => void errors.push(error) };
    const result = streamText({ ...call, model: languageModel(tiny), prompt: 'a', maxOutputTokens: 3000 });
    for await (const { type } of result.stream) if (type === 'text-delta') await tiny.dispose();
    const refused = streamText({ ...call, model: llm, prompt: 'a', providerOptions: { redrafter: { beams: 2 } } });
    await refused.consumeStream();
    expect(errors.map((error) => (error as RedrafterError).code)).toEqual(['ERR_DISPOSED', 'ERR_INVALID_ARGUMENT']);
  });
});

describe('doStream', () => {
  it('gives the parts of the specification in order', async () => {
    const { stream } = await llm.doStream({ prompt: USER, maxOutputTokens: 32, topK: 1, reasoning: 'high' });
    const parts = await partsOf(stream);
    const types = parts.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);
    expect(types).toEqual(['stream-start', 'response-metadata', 'text-start', 'text-delta', 'text-end', 'finish']);
    expect(parts[0]).toEqual({ type: 'stream-start', warnings: [{ type: 'unsupported', feature: 'reasoning' }] });
    expect(parts[1]).toEqual({ type: 'response-metadata', modelId: 'LlamaForCausalLM', timestamp: expect.any(Date) as Date }); // prettier-ignore
    expect(new Set(parts.flatMap((part) => ('id' in part && part.type.startsWith('text') ? [part.id] : []))).size).toBe(
      1,
    );
    const generated = await llm.doGenerate({ prompt: USER, maxOutputTokens: 32 });
    const text = parts.map((part) => (part.type === 'text-delta' ? part.delta : '')).join('');
    expect(generated.content).toEqual([{ type: 'text', text }]);
    expect(parts.at(-1)).toMatchObject({ usage: generated.usage, finishReason: { unified: 'length', raw: 'length' } });
    expect(JSON.parse(JSON.stringify(generated.providerMetadata))).toEqual(generated.providerMetadata);
  });

  it('gives chunks as raw parts when asked to', async () => {
    const { stream } = await llm.doStream({ prompt: USER, maxOutputTokens: 32, includeRawChunks: true });
    const parts = await partsOf(stream);
    const chunks = parts.flatMap((part) => (part.type === 'raw' ? [part.rawValue as { tokenIds: number[] }] : []));
    expect(chunks.flatMap(({ tokenIds }) => tokenIds)).toHaveLength(32);
  });

  it('ends generation when the stream is cancelled, and the KV cache is free then', async () => {
    const before = model.stats;
    const { stream } = await llm.doStream({ prompt: USER, ...ENDLESS });
    const reader = stream.getReader();
    await firstText(reader);
    expect(model.kvUsage().usedBytes).toBeGreaterThan(0);
    const pending = reader.read();
    await reader.cancel();
    expect(model.kvUsage().usedBytes).toBe(0);
    await pending;
    expect(model.stats.generations).toBe(before.generations + 1);
    expect(model.stats.tokens - before.tokens).toBeLessThan(CONTEXT / 2);
    const whole = await llm.doGenerate({ prompt: USER, ...ENDLESS });
    expect(whole.usage.outputTokens.total).toBeGreaterThan(CONTEXT / 2);

    const unread = await llm.doStream({ prompt: USER, ...ENDLESS });
    await unread.stream.cancel();
    expect(model.kvUsage().usedBytes).toBe(0);
  });

  it('frees the KV cache although nobody reads', async () => {
    const before = model.stats.generations;
    const { stream } = await llm.doStream({ prompt: USER, maxOutputTokens: 16 });
    await vi.waitFor(() => {
      expect(model.stats.generations).toBe(before + 1);
      expect(model.kvUsage()).toMatchObject({ usedBytes: 0, sessions: 0 });
    }, SOON);
    expect((await partsOf(stream)).at(-1)?.type).toBe('finish');
  });

  it('ends with an error and a finish when generation fails, and with the abort alone when a signal fires', async () => {
    const tiny = await Model.load(writeTinyModel().model, { threads: 1, contextTokens: 2000, kvTokens: 64 });
    const { stream } = await languageModel(tiny).doStream({ prompt: USER, maxOutputTokens: 2000 });
    const parts = await partsOf(stream);
    expect(parts.map(({ type }) => type)).toEqual(['stream-start', 'response-metadata', 'error', 'finish']);
    expect(parts[2]).toMatchObject({ error: { code: 'ERR_KV_FULL' } });
    expect(parts[3]).toMatchObject({ finishReason: { unified: 'error', raw: 'ERR_KV_FULL' } });
    expect(tiny.kvUsage()).toMatchObject({ usedBytes: 0, sessions: 0 });
    await tiny.dispose();

    const controller = new AbortController();
    const aborted = await llm.doStream({ prompt: USER, ...ENDLESS, abortSignal: controller.signal });
    const reader = aborted.stream.getReader();
    await firstText(reader);
    controller.abort(new Error('enough'));
    const rest = async (): Promise<void> => {
      while (!(await reader.read()).done);
    };
    await expect(rest()).rejects.toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED', cause: { message: 'enough' } }); // prettier-ignore
    expect(model.kvUsage().usedBytes).toBe(0);
  });
});

describe('a signal', () => {
  it('ends generateText, before and in the midst of it', async () => {
    const aborted = { name: 'AbortError', code: 'ERR_ABORTED' };
    await expect(llm.doGenerate({ prompt: USER, abortSignal: AbortSignal.abort() })).rejects.toMatchObject(aborted);
    const controller = new AbortController();
    const call = generateText({ model: llm, prompt: PROMPT, ...ENDLESS, abortSignal: controller.signal });
    const started = (): void => {
      expect(model.kvUsage().usedBytes).toBeGreaterThan(0);
    };
    await vi.waitFor(started, { ...SOON, interval: 1 });
    controller.abort();
    await expect(call).rejects.toMatchObject(aborted);
    expect(model.kvUsage().usedBytes).toBe(0);
  });
});

describe('control', () => {
  it('is that of session.generate', async () => {
    const call = { prompt: USER, maxOutputTokens: 24 };
    const { content: plain } = await llm.doGenerate(call);
    const messages = [{ role: 'user', content: PROMPT }];
    const penalties = { presencePenalty: 1.5, frequencyPenalty: 1 };
    const { content, warnings } = await llm.doGenerate({ ...call, ...penalties });
    expect(warnings).toEqual([]);
    expect(content).toEqual([{ type: 'text', text: await reference(messages, { maxTokens: 24, ...penalties }) }]);
    expect(content).not.toEqual(plain);
    const own = { repetitionPenalty: 1.3, logitBias: { '40': 3 }, bannedTokenIds: [41], minTokens: 4 };
    const { content: other } = await llm.doGenerate({ ...call, providerOptions: { redrafter: own } });
    expect(other).toEqual([{ type: 'text', text: await reference(messages, { maxTokens: 24, ...own }) }]);
    expect(other).not.toEqual(plain);
  });

  it('slides and shares beginnings as it is told', async () => {
    await using small = await Model.load(bundled, { threads: 1, contextTokens: 128 });
    const llm = languageModel(small);
    const ask = (options: RedrafterOptions, maxOutputTokens = 200): ReturnType<typeof llm.doGenerate> => {
      const control = { bannedTokenIds: [...small.info.eosTokenIds], ...options };
      return Promise.resolve(llm.doGenerate({ prompt: USER, maxOutputTokens, providerOptions: own(control) }));
    };
    const cut = await ask({});
    expect(cut.finishReason).toEqual({ unified: 'length', raw: 'length' });
    expect(cut.usage.outputTokens.total).toBeLessThan(128);
    const slid = await ask({ contextPolicy: { slide: true, keepTokens: 4 } });
    expect(slid.usage.outputTokens.total).toBe(200);
    const cached = async (options: RedrafterOptions): Promise<number | undefined> =>
      (await ask(options, 2)).usage.inputTokens.cacheRead;
    expect(await cached({ prefixKey: 'a' })).toBe(0);
    expect(await cached({ prefixKey: 'a', priority: 3, deadlineMs: 60_000 })).toBeGreaterThan(0);
    expect(await cached({ prefixKey: 'b' })).toBe(0);
    expect((await failure(() => ask({ prefixKey: '' }))).code).toBe('ERR_INVALID_ARGUMENT');
    expect((await failure(() => ask({ priority: 11 }))).code).toBe('ERR_INVALID_ARGUMENT');
  });
});

describe('JSON', () => {
  const schema: JSONSchema7 = { type: 'object', properties: { n: { type: 'integer' }, s: { enum: ['a', 'b'] } }, required: ['n', 's'], additionalProperties: false }; // prettier-ignore

  it('as a response format is the grammar of its schema', async () => {
    const messages = [{ role: 'user', content: PROMPT }];
    const { content, warnings, finishReason } = await llm.doGenerate({
      prompt: USER,
      responseFormat: { type: 'json', schema },
    });
    expect(warnings).toEqual([]);
    const text = await reference(messages, { maxTokens: 400, grammar: { type: 'json_schema', schema } });
    expect(content).toEqual([{ type: 'text', text }]);
    expect(finishReason.unified).toBe('stop');
    const any = await llm.doGenerate({ prompt: USER, maxOutputTokens: 12, responseFormat: { type: 'json' } });
    expect(any.content[0]).toMatchObject({ text: expect.stringMatching(/^\{/) as string });
  });

  it('comes as an object from the AI SDK', async () => {
    const output = Output.object({ schema: jsonSchema<{ n: number; s: string }>(schema) });
    for (const seed of [1, 2, 3]) {
      const { output: value } = await generateText({ model: llm, prompt: PROMPT, temperature: 1, seed, output });
      expect(Number.isSafeInteger(value.n)).toBe(true);
      expect(['a', 'b']).toContain(value.s);
    }
  });
});

describe('what is not supported', () => {
  it('is a warning where it can be left out', async () => {
    const plain = await llm.doGenerate({ prompt: USER, maxOutputTokens: 8 });
    expect(plain.warnings).toEqual([]);
    const { warnings, content } = await llm.doGenerate({
      prompt: [...USER, { role: 'assistant', content: [{ type: 'reasoning', text: 'Hm.' }, { type: 'reasoning', text: 'Yes.' }] }], // prettier-ignore
      maxOutputTokens: 8,
      reasoning: 'high',
      tools: [{ type: 'function', name: 'f', inputSchema: {} }],
      toolChoice: { type: 'required' },
    });
    const features = ['tools', 'toolChoice', 'reasoning', 'reasoning in the prompt']; // prettier-ignore
    expect(warnings.map((warning) => (warning.type === 'unsupported' ? warning.feature : warning))).toEqual(features);
    const text = await reference([{ role: 'user', content: PROMPT }, { role: 'assistant', content: '' }], { maxTokens: 8 }); // prettier-ignore
    expect(content).toEqual([{ type: 'text', text }]);
    const neutral = { presencePenalty: 0, frequencyPenalty: 0, responseFormat: { type: 'text' }, reasoning: 'none', tools: [], toolChoice: { type: 'auto' } } as const; // prettier-ignore
    expect(await llm.doGenerate({ prompt: USER, maxOutputTokens: 8, ...neutral, tools: [] })).toMatchObject({ warnings: [] }); // prettier-ignore
  });

  it('reaches the caller of the AI SDK as a warning', async () => {
    const tools: ToolSet = { now: { description: 'The time.', inputSchema: jsonSchema({ type: 'object' }) } };
    const { warnings } = await generateText({ model: llm, prompt: PROMPT, maxOutputTokens: 4, reasoning: 'high', tools }); // prettier-ignore
    const unsupported = (feature: string): object => ({ type: 'unsupported', feature });
    expect(warnings).toEqual([unsupported('tools'), unsupported('reasoning')]);
  });

  it('is an error where it is part of the prompt', async () => {
    const file = { type: 'file', mediaType: 'image/png', data: { type: 'data', data: new Uint8Array(4) } } as const;
    const call = { type: 'tool-call', toolCallId: '1', toolName: 'f', input: {} } as const;
    const result = { type: 'tool-result', toolCallId: '1', toolName: 'f', output: { type: 'text', value: '' } } as const; // prettier-ignore
    const prompts: [LanguageModelV4CallOptions['prompt'], RegExp][] = [
      [[{ role: 'user', content: [{ type: 'text', text: 'See' }, file] }], /prompt\[0\].content\[1\] .*type file/],
      [[...USER, { role: 'assistant', content: [call] }], /prompt\[1\].content\[0\] .*type tool-call/],
      [[...USER, { role: 'tool', content: [result] }], /prompt\[1\] is a tool result/],
      [[{ role: 'assistant', content: [{ type: 'custom', kind: 'a.b' }] }], /type custom/],
    ];
    for (const [prompt, message] of prompts) {
      for (const work of [() => llm.doGenerate({ prompt }), () => llm.doStream({ prompt })]) {
        expect(await failure(work)).toEqual({
          code: 'ERR_INVALID_ARGUMENT',
          message: expect.stringMatching(message) as string,
        });
      }
    }
  });
});

describe('bad arguments', () => {
  it('are refused with the codes of sessions', async () => {
    const call = (options: object) => () => llm.doGenerate({ prompt: USER, maxOutputTokens: 4, ...options });
    const refused: [object, RegExp][] = [
      [{ providerOptions: { redrafter: { beamWidht: 2 } } }, /did you mean beamWidth/],
      [{ providerOptions: { redrafter: { maxTokens: 2 } } }, /unknown option "maxTokens"/],
      [{ providerOptions: { redrafter: { beamWidth: 65 } } }, /beamWidth must be an integer from 0 to 64/],
      [{ providerOptions: { redrafter: { drafting: null } } }, /drafting must be true or false/],
      [{ providerOptions: { redrafter: 7 } }, /options must be an object/],
      [{ temperature: -1 }, /temperature/],
      [{ seed: -1 }, /seed/],
      [{ stopSequences: [''] }, /stop\[0\]/],
      [{ maxOutputTokens: 0 }, /maxTokens/],
      [{ prompt: [] }, /at least one message/],
    ];
    for (const [options, message] of refused) {
      expect(await failure(call(options))).toEqual({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringMatching(message) as string,
      });
    }
    expect(await call({ providerOptions: { other: { beams: 1 } } })()).toHaveProperty('content');
    const long = [{ role: 'user', content: [{ type: 'text', text: 'word '.repeat(CONTEXT) }] }];
    expect(await failure(call({ prompt: long }))).toMatchObject({ code: 'ERR_CONTEXT' });
  });

  it('of languageModel are refused at once', async () => {
    const wrong = languageModel as (...args: unknown[]) => unknown;
    for (const args of [[], ['model'], [model, { modelId: '' }], [model, { modelID: 'x' }], [model, 7]]) {
      expect(await failure(() => wrong(...args))).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    }
    expect(languageModel(model, { modelId: 'mine' })).toMatchObject({ modelId: 'mine', provider: 'redrafter' });
  });

  it('include a model without a tokenizer or chat template, and one that was disposed of', async () => {
    const plain = temporaryDirectory('plain');
    writeTinyLlama(plain, TINY, 11);
    const load = (): Promise<Model> => Model.load(plain, { threads: 1 });
    const codes: string[] = [];
    for (const prepare of [() => undefined, () => writeTokenizer({ tokenizer: byteLevel() }, plain)]) {
      prepare();
      await using tiny = await load();
      codes.push((await failure(() => languageModel(tiny))).code);
    }
    expect(codes).toEqual(['ERR_TOKENIZER', 'ERR_TEMPLATE']);
    const gone = await Model.load(writeTinyModel().model, { threads: 1 });
    const provider = languageModel(gone);
    await gone.dispose();
    expect(await failure(() => provider.doGenerate({ prompt: USER }))).toMatchObject({ code: 'ERR_DISPOSED' });
  });
});
