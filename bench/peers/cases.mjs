// What is measured beside what. A case is one kind of work; its ways are the engines' ways of doing it.
/** @typedef {import('./files.mjs').Files} Files */
/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {import('./trials.mjs').Way} Way */

export const CASES = /** @type {const} */ (['ids', 'plain', 'lookup', 'draft', 'prefill', 'batch']);
/** @typedef {typeof CASES[number]} Case */

/**
 * What all jobs of one dtype share.
 * @typedef {object} Setting
 * @property {Files} files
 * @property {Dtype} dtype
 * @property {boolean} ours whether this build of redrafter takes the dtype
 * @property {number} threads of each engine
 * @property {number[]} peerThreads that the peer is tried with
 * @property {number} tokens
 * @property {number[][]} prompts
 */

/** Tokens of the prompt that `prefill` reads. */
export const PREFILL_TOKENS = 512;

/** @param {Setting} setting @param {Pick<Job, 'engine' | 'model'> & Partial<Job>} own @returns {Job} */
export function job({ dtype, threads, tokens, prompts }, own) {
  const all = own.prompts ?? prompts;
  const most = Math.max(...all.map((prompt) => prompt.length));
  // Room for what is drafted past the end.
  const contextTokens = Math.ceil((most + tokens + 32) / 256) * 256;
  return { way: 'plain', kind: 'decode', dtype, threads, rows: 1, contextTokens, prompts, tokens, ...own };
}

/**
 * A way of the peer, with each number of threads that it is to be tried with.
 * @param {Setting} setting @param {string} name @param {Partial<Job>} own @returns {Promise<Way[]>}
 */
async function ofPeer(setting, name, own) {
  const model = await setting.files.gguf(setting.dtype);
  return setting.peerThreads.map((threads) => ({
    name: threads === setting.threads ? name : `${name}, threads: ${threads}`,
    job: job(setting, { engine: 'node-llama-cpp', model, ...own, threads }),
  }));
}

/** @param {Setting} setting @param {Partial<Job>} [own] @returns {Promise<Way[]>} plain decoding by both */
async function plain(setting, own = {}) {
  const peer = await ofPeer(setting, 'plain', own);
  if (!setting.ours) return peer;
  const model = await setting.files.target();
  return [{ name: 'plain', job: job(setting, { engine: 'redrafter', model, ...own }) }, ...peer];
}

/** @param {Setting} setting @returns {Promise<Way[]>} redrafter as fast as it decodes one sequence */
async function drafting(setting) {
  const drafter = await setting.files.drafter();
  if (!setting.ours || drafter === undefined) return [];
  const model = await setting.files.target();
  return [{ name: 'drafting', job: job(setting, { engine: 'redrafter', way: 'drafting', model, drafter }) }];
}

/**
 * The ways of a case, and how many sequences each decodes.
 * @param {Exclude<Case, 'ids'>} name @param {Setting} setting @param {readonly number[]} batches
 * @returns {Promise<{ rows: number, ways: Way[] }[]>}
 */
export async function waysOf(name, setting, batches) {
  const { files, dtype, prompts } = setting;
  if (name === 'plain') return [{ rows: 1, ways: await plain(setting) }];
  if (name === 'lookup') {
    const lookup = await ofPeer(setting, 'lookup', { way: 'lookup' });
    return [{ rows: 1, ways: [...(await drafting(setting)), ...lookup] }];
  }
  if (name === 'draft') {
    const ways = await drafting(setting);
    ways.push(...(await ofPeer(setting, 'draft cut', { way: 'draft', draft: await files.cut(dtype) })));
    const twin = await files.twin(dtype);
    if (twin !== undefined) ways.push(...(await ofPeer(setting, 'draft twin', { way: 'draft', draft: twin })));
    return [{ rows: 1, ways }];
  }
  if (name === 'prefill') {
    const ids = prompts.flat();
    const prompt = Array.from({ length: PREFILL_TOKENS }, (_, i) => ids[i % ids.length] ?? 0);
    return [{ rows: 1, ways: await plain(setting, { kind: 'prefill', prompts: [prompt] }) }];
  }
  const all = [];
  for (const rows of batches) {
    const own = Array.from({ length: rows }, (_, i) => prompts[i % prompts.length] ?? []);
    all.push({ rows, ways: await plain(setting, { rows, prompts: own }) });
  }
  return all;
}
