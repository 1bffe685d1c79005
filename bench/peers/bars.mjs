// The goals.
import { atLeast, atMost, equal } from '../../dist/bench/bars.js';
import { fastest, inTurns, precisionName } from '../../dist/bench/peers-report.js';

/** @typedef {import('../../lib/bench/bars.js').Bar} Bar */
/** @typedef {import('../../lib/bench/peers-report.js').PeersReport} Report */
/** @typedef {import('../../lib/bench/peers-report.js').PeersCase} Case */
/** @typedef {import('../../lib/bench/peers-report.js').PeersWay} Way */

export const GOALS = {
  /** Of the bandwidth of reading memory, what plain decoding reads. */
  bandwidth: 0.9,
  /** Over the peer: plain decoding, reading a prompt, batches. */
  peer: 1,
  /** Drafted decoding over our plain one, and over the peer with its best predictor. */
  drafted: 2.2,
  draftedOverPeer: 2,
  /** Of what the tokens of a step promise, what arrives. */
  eta: 0.7,
  /** Drafting in a round, over a plain step. */
  draft: 0.15,
  /** Passes by rows, over one row. */
  rows: /** @type {Readonly<Record<number, number>>} */ ({ 4: 1.1, 8: 1.4, 16: 2.2 }),
  /** Resident over weights and KV. */
  memory: 1.1,
};

/** @param {number} value */
const rounded = (value) => Math.round(value * 1000) / 1000;

/** @param {Way} a @param {Way} b */
const over = (a, b) => rounded(inTurns(a.tokensPerSecond, b.tokensPerSecond));

/** @param {Way} way */
const isOurs = ({ engine }) => engine === 'redrafter';

/** @param {Case} one @param {Way} plain @param {string} name @returns {Bar[]} */
function plainBars(one, plain, name) {
  const peer = fastest(one, 'node-llama-cpp', ({ way }) => way.split(',')[0] === 'plain');
  const read = rounded(inTurns(plain.tokensPerSecond, one.readBytesPerSecond) * (plain.own?.bytes.step ?? NaN));
  return [
    atLeast(`${name}: plain decoding, of the read bandwidth`, read, GOALS.bandwidth),
    ...(peer === undefined ? [] : [atLeast(`${name}: plain decoding over the peer's`, over(plain, peer), GOALS.peer)]),
  ];
}

/** @param {Case} one @param {Way} plain @param {Way} drafted @param {string} name @returns {Bar[]} */
function draftedBars(one, plain, drafted, name) {
  const predicts = (/** @type {Way} */ { way }) => way.split(',')[0] !== 'plain';
  const best = fastest(one, 'node-llama-cpp', predicts);
  const untwinned = fastest(one, 'node-llama-cpp', (way) => predicts(way) && !way.way.startsWith('draft twin'));
  const speedup = over(drafted, plain);
  const draft = inTurns(drafted.own?.draftMs ?? [], plain.own?.verifyMs ?? []);
  const text = `${name}: drafted decoding over`;
  return [
    atLeast(`${text} plain decoding`, speedup, GOALS.drafted),
    ...(best === undefined
      ? []
      : [atLeast(`${text} the peer with any predictor (${best.way})`, over(drafted, best), GOALS.draftedOverPeer)]),
    ...(untwinned === undefined || untwinned === best
      ? []
      : [
          atLeast(
            `${text} the peer without the twin as draft (${untwinned.way})`,
            over(drafted, untwinned),
            GOALS.draftedOverPeer,
          ),
        ]),
    atLeast(`${name}: eta, speedup over tokens per step`, rounded(speedup / drafted.tokensPerStep), GOALS.eta),
    atMost(`${name}: drafting of a round over a plain step`, rounded(draft), GOALS.draft),
    equal(`${name}: continuations that drafting changed, of ${one.drafted.compared}`, one.drafted.differing, 0),
  ];
}

/** @param {readonly Way[]} ways @param {string} name @returns {Bar[]} of the way that takes most beside its weights and KV */
function memoryBars(ways, name) {
  const shares = ways.flatMap(({ own, memoryBytes }) => {
    if (own === null) return [];
    const { weights, drafter, kv } = own.bytes;
    return [memoryBytes / (weights + drafter + kv)];
  });
  if (shares.length === 0) return [];
  return [atMost(`${name}: resident memory over weights and KV`, rounded(Math.max(...shares)), GOALS.memory)];
}

/** @param {Case} one @param {string} name @returns {Bar[]} */
function decodeBars(one, name) {
  const ways = one.ways.filter(isOurs);
  const [plain, drafted] = ['plain', 'drafting'].map((way) => ways.find((each) => each.way === way));
  if (plain === undefined) return [];
  return [
    ...plainBars(one, plain, name),
    ...(drafted === undefined ? [] : draftedBars(one, plain, drafted, name)),
    ...memoryBars(ways, name),
  ];
}

/** @param {Case} one @param {string} text @returns {Bar[]} none where one of both was not measured */
function peerBars(one, text) {
  const [ours, peer] = [fastest(one, 'redrafter'), fastest(one, 'node-llama-cpp')];
  return ours === undefined || peer === undefined ? [] : [atLeast(text, over(ours, peer), GOALS.peer)];
}

/** Bars by dtype, in the order of the precisions, then those of all. @param {Report} report @returns {Bar[]} */
export function barsOf(report) {
  const { cases, costs, ids, precisions, settings } = report;
  const byDtype = precisions.flatMap(({ dtype }) => {
    const name = precisionName(report, dtype);
    const own = cases.filter((one) => one.dtype === dtype);
    const of = (/** @type {Case['case']} */ kind) => own.filter((one) => one.case === kind);
    const rows = costs.flatMap(({ dtype: its, rows: count, cost }) => {
      const goal = GOALS.rows[count];
      if (its !== dtype || goal === undefined) return [];
      return [atMost(`${name}: ${count} rows of the target over one row`, rounded(cost.median), goal)];
    });
    return [
      ...of('decode').flatMap((one) => decodeBars(one, name)),
      ...rows,
      ...of('prefill').flatMap((one) =>
        peerBars(one, `${name}: reading ${settings.prefillTokens} tokens over the peer`),
      ),
      ...of('batch').flatMap((one) => peerBars(one, `${name}: ${one.rows} sequences at once over the peer`)),
    ];
  });
  const exact = ids.filter((one) => one.exact);
  const agreement = exact.map(({ dtype, prompts, same }) => equal(`${dtype}: prompts with the ids of the peer`, same, prompts)); // prettier-ignore
  const trials = cases.flatMap(({ ways }) => ways.filter(isOurs));
  const others = trials.reduce((sum, { otherIds }) => sum + otherIds, 0);
  const steady = trials.length > 0 ? [equal('trials of redrafter with other ids than the first', others, 0)] : [];
  return [...byDtype, ...agreement, ...steady];
}
