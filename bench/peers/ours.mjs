// redrafter, within the process of a trial: over the public API, as a program would.
import { performance } from 'node:perf_hooks';

import { stepShare } from '../../dist/bench/measure.js';
import { Model } from '../../dist/index.mjs';

/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {import('../../dist/index.mjs').Session} Session */

/** @param {Job} job */
export async function loadOurs(job) {
  const { dtype, threads, contextTokens, rows, way } = job;
  const model = await Model.load(job.model, {
    drafter: way === 'drafting' ? (job.drafter ?? false) : false,
    device: 'cpu',
    // What is stored quantised is taken as it is; else whatever the dtype is, the set-up has asked whether this build takes it.
    dtype: dtype.startsWith('q') ? 'auto' : /** @type {'bf16'} */ (dtype),
    threads,
    contextTokens,
    kvTokens: rows * contextTokens,
  });
  const options = { drafting: way === 'drafting', ignoreEos: true };
  /** @type {import('../../dist/index.mjs').GenerationStats[]} since they were taken last */
  let ended = [];

  /** @param {Session} session @param {number[]} last @param {number} maxTokens */
  async function generate(session, last, maxTokens) {
    const generation = session.generate(last, { ...options, maxTokens });
    /** @type {number[]} */
    const ids = [];
    let end = 0;
    for await (const { tokenIds } of generation) {
      ids.push(...tokenIds);
      if (ids.length === maxTokens && end === 0) end = performance.now();
    }
    const { stats } = await generation.result();
    ended.push(stats);
    return { ids, end };
  }

  return {
    /** @param {number[][]} prompts decoded at the same time @param {number} maxTokens of each */
    async decode(prompts, maxTokens) {
      const sessions = [];
      for (const prompt of prompts) {
        const session = await model.createSession();
        await session.append(prompt.slice(0, -1));
        sessions.push(session);
      }
      const start = performance.now();
      const done = await Promise.all(sessions.map((one, i) => generate(one, prompts[i]?.slice(-1) ?? [], maxTokens)));
      const end = Math.max(...done.map((one) => one.end));
      for (const session of sessions) await session.dispose();
      return { ids: done.map(({ ids }) => ids), ms: end - start };
    },
    /** @param {number[]} prompt */
    async firstToken(prompt) {
      const session = await model.createSession();
      const start = performance.now();
      const { ids, end } = await generate(session, prompt, 1);
      await session.dispose();
      return { ids, ms: end - start };
    },
    /** How much larger the largest logit after these tokens is than the second. @param {number[]} prompt */
    async margin(prompt) {
      const session = await model.createSession();
      const { logprobs } = await session.generate(prompt, { ...options, maxTokens: 1, logprobs: 2 }).result();
      await session.dispose();
      const [first, second] = logprobs?.[0]?.top ?? [];
      return (first?.[1] ?? NaN) - (second?.[1] ?? NaN);
    },
    /** Figures of what was decoded since this was called last. */
    async take() {
      const sum = (/** @type {(stats: typeof ended[number]) => number} */ of) =>
        ended.reduce((all, one) => all + of(one), 0);
      const [rounds, drafted] = [sum((one) => one.rounds), sum((one) => one.draftedRounds)];
      const { weightBytes, drafterBytes, kvBytes, workspaceBytes } = model.memoryUsage();
      const figures = {
        tokensPerStep: sum((one) => one.tokensPerStep * one.rounds) / rounds,
        own: {
          verifyMs: sum((one) => one.verifyMs) / rounds,
          draftMs: drafted > 0 ? sum((one) => one.draftMs) / drafted : 0,
          hostMs: sum((one) => one.hostMs) / rounds,
          draftTokens: drafted > 0 ? sum((one) => one.draftedByDepth.reduce((all, n) => all + n, 0)) / drafted : 0,
          verifyRows: drafted > 0 ? 1 + sum((one) => one.draftedNodes) / drafted : 1,
          bytes: {
            ...{ weights: weightBytes, drafter: drafterBytes, kv: kvBytes, workspace: workspaceBytes },
            step: Math.round(weightBytes * (await stepShare(job.model))),
          },
        },
      };
      ended = [];
      return figures;
    },
    /** @param {string} text */
    tokenize: (text) => [...(model.tokenizer?.encode(text) ?? [])],
    info: () => ({ level: model.info.level, dtype: model.info.dtype }),
    dispose: () => model.dispose(),
  };
}
