// What is measured beside what. A case is one kind of work; its ways are the engines' ways of doing it.
/** @typedef {import('./files.mjs').Files} Files */
/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {import('./trial.mjs').Job} Job */
/** @typedef {import('./trials.mjs').Way} Way */

export const CASES = /** @type {const} */ (['ids', 'decode', 'rows', 'prefill', 'batch']);
/** @typedef {typeof CASES[number]} Case */

/**
 * What all jobs of one dtype share.
 * @typedef {object} Setting
 * @property {Files} files
 * @property {Dtype} dtype
 * @property {number} factor that the files were widened by
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
 * @param {Setting} setting @param {string} name @param {Partial<Job>} own @returns {Way[]}
 */
function ofPeer(setting, name, own) {
  const model = setting.files.gguf(setting.dtype);
  return setting.peerThreads.map((threads) => ({
    name: threads === setting.threads ? name : `${name}, threads: ${threads}`,
    job: job(setting, { engine: 'node-llama-cpp', model, ...own, threads }),
  }));
}

/** @param {Setting} setting @param {Partial<Job>} [own] @returns {Way[]} plain decoding by redrafter */
function ofOurs(setting, own = {}) {
  if (!setting.ours) return [];
  return [
    { name: 'plain', job: job(setting, { engine: 'redrafter', model: setting.files.target(setting.dtype), ...own }) },
  ];
}

/** @param {Setting} setting @returns {Way[]} redrafter as fast as it decodes one sequence */
function drafting(setting) {
  const drafter = setting.files.drafter();
  if (drafter === undefined) return [];
  return ofOurs(setting, { way: 'drafting', drafter }).map((way) => ({ ...way, name: 'drafting' }));
}

/**
 * One sequence, in every way of both engines; those that are compared most follow one another.
 * @param {Setting} setting @returns {Way[]}
 */
function decoding(setting) {
  const { files, dtype } = setting;
  const twin = files.twin(dtype);
  return [
    ...ofOurs(setting).map((way) => ({ ...way, besideBandwidth: true })),
    ...drafting(setting),
    ...ofPeer(setting, 'plain', {}),
    ...ofPeer(setting, 'lookup', { way: 'lookup' }),
    ...ofPeer(setting, 'draft cut', { way: 'draft', draft: files.cut(dtype) }),
    ...(twin === undefined ? [] : ofPeer(setting, 'draft twin', { way: 'draft', draft: twin })),
  ];
}

/**
 * The ways of a case, and how many sequences each decodes.
 * @param {'decode' | 'prefill' | 'batch'} name @param {Setting} setting @param {readonly number[]} batches
 * @returns {{ rows: number, ways: Way[] }[]}
 */
export function waysOf(name, setting, batches) {
  const { prompts } = setting;
  const both = (/** @type {Partial<Job>} */ own) => [...ofOurs(setting, own), ...ofPeer(setting, 'plain', own)];
  if (name === 'decode') return [{ rows: 1, ways: decoding(setting) }];
  if (name === 'prefill') {
    const ids = prompts.flat();
    const prompt = Array.from({ length: PREFILL_TOKENS }, (_, i) => ids[i % ids.length] ?? 0);
    return [{ rows: 1, ways: both({ kind: 'prefill', prompts: [prompt] }) }];
  }
  return batches.map((rows) => {
    const own = Array.from({ length: rows }, (_, i) => prompts[i % prompts.length] ?? []);
    return { rows, ways: both({ rows, prompts: own }) };
  });
}
