// Is adaptive drafting as fast as the best fixed shape, and never slower than plain decoding? The bundled model widened until
// its weights no longer fit a cache, with a trained drafter, one of random weights and none, for several batch sizes. Every
// fixed shape of a ladder runs twice with few texts; then up to three that are less than a tenth behind, plain decoding and
// adaptive drafting take turns, batch by batch, and the medians of what they give in the same turns are compared, with the
// quartiles of those ratios. All of them must give the same ids.
//
//   node bench/adaptive.mjs --help
import { Buffer } from 'node:buffer';
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync, writeFileSync, writeSync, cpSync } from 'node:fs'; // prettier-ignore
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { performance } from 'node:perf_hooks';

import { Command } from 'commander';

import { Model, version } from '../dist/index.mjs';
import { listOf, positive, whole, wholes } from './parsing.mjs';

/** @typedef {{ name: string, options: import('../dist/index.mjs').GenerateOptions }} Way */
/** @typedef {{ way: Way, rates: number[] }} Measured */
/** @typedef {{ drafter: string, batch: number }} Result */
/** @typedef {{ model: string, tokens: number, results: Result[] }} Report */
/** @typedef {{ dtype: string, data_offsets: [number, number] }} Stored */

const root = fileURLToPath(new URL('..', import.meta.url));
const bundled = join(root, 'models/ts-declarations');

const DRAFTERS = ['trained', 'random', 'none'];
/** @typedef {{ factor: number, batches: number[], drafters: string[], tokens: number, seconds: number, threads?: number, json?: string }} Flags */
const command = new Command('adaptive')
  .description('adaptive drafting beside the best fixed shape and plain decoding (exit code 1: a bar does not hold)')
  .option('--factor <n>', 'widens the bundled model by this, to about n^2 weights', whole, 5)
  .option('--batches <list>', 'requests at once', wholes, [1, 2, 4, 8, 16])
  .option('--drafters <list>', `of ${DRAFTERS.join(',')}`, listOf(DRAFTERS), DRAFTERS)
  .option('--tokens <n>', 'to decode after each prompt', whole, 96)
  .option(
    '--seconds <n>',
    'how long ways take turns, for each drafter and batch size; five turns at least',
    positive,
    30,
  )
  .option('--threads <n>', 'of the model (default: as it chooses)', whole)
  .option(
    '--json <file>',
    'adds results to those the file has of the same model and length after each batch size, so that a run can be made in parts',
  );
const values = /** @type {Flags} */ (command.parse().opts());
const { tokens } = values;

/** How many texts each way continues: with fewer, what is compared is which shape happens to suit them. */
const TEXTS = 16;
/** To find those that are compared. */
const FEW_TEXTS = 4;

/** The least that adaptive drafting must give of the best fixed shape, and of plain decoding. */
const BAR = 0.98;

/** @type {[number, number][]} */
const LADDER = [
  [1, 1],
  [1, 2],
  [1, 3],
  [1, 4],
  [1, 6],
  [1, 8],
  [2, 3],
  [2, 5],
  [4, 4],
  [4, 6],
  [8, 5],
];
/** @type {Way} */
const PLAIN = { name: 'plain', options: { drafting: false } };
/** @type {Way} */
const ADAPTIVE = { name: 'adaptive', options: {} };

const directory = mkdtempSync(join(tmpdir(), 'redrafter-adaptive-'));

/**
 * @param {string} from
 * @param {string} name
 */
function widen(from, name) {
  const out = join(directory, name);
  const args = [join(root, 'dist/cli/main.js'), 'widen', from, '--factor', String(values.factor), '--out', out];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return out;
}

/**
 * A copy of a drafter with other weights: of about the size that trained ones have, from a generator with a fixed seed.
 * @param {string} from
 */
function randomized(from) {
  const out = join(directory, 'random');
  cpSync(from, out, { recursive: true });
  const path = join(out, 'model.safetensors');
  const fd = openSync(path, 'r+');
  const length = Buffer.alloc(8);
  readSync(fd, length, 0, 8, 0);
  const header = Buffer.alloc(Number(length.readBigUInt64LE()));
  readSync(fd, header, 0, header.length, 8);
  /** @type {unknown} */
  const parsed = JSON.parse(header.toString());
  let state = 1;
  const float = new Float32Array(1);
  const word = new Uint32Array(float.buffer);
  for (const {
    dtype,
    data_offsets: [begin, end],
  } of Object.values(/** @type {Record<string, Stored>} */ (parsed))) {
    if (dtype !== 'BF16') continue;
    const bits = new Uint16Array((end - begin) / 2);
    for (let i = 0; i < bits.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      float[0] = (state / 2 ** 32 - 0.5) * 0.06;
      bits[i] = (word[0] ?? 0) >>> 16;
    }
    writeSync(fd, new Uint8Array(bits.buffer), 0, end - begin, 8 + header.length + begin);
  }
  closeSync(fd);
  return out;
}

/**
 * @param {number[]} list
 * @param {number} [share] 0.5: the median
 */
function quantile(list, share = 0.5) {
  const sorted = list.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const below = sorted[Math.floor(at)] ?? NaN;
  return below + (at - Math.floor(at)) * ((sorted[Math.ceil(at)] ?? NaN) - below);
}

/** @type {unknown} */
const held = JSON.parse(readFileSync(join(bundled, 'prompts.json'), 'utf8'));
const prompts = /** @type {{ name: string, text: string }[]} */ (held).map(({ text }) => text);

/** @type {Map<string, string>} The ids that every way must give, by batch size and first text. */
const expected = new Map();

/**
 * Seconds that a batch of requests takes that decode at the same time, after their prompts were read.
 * @param {Model} model
 * @param {number} batch
 * @param {number} first of the texts that they continue
 * @param {Way} way
 */
async function secondsOf(model, batch, first, { name, options }) {
  const requests = await Promise.all(
    Array.from({ length: batch }, async (_, i) => {
      const text = prompts[((first + i) * 5) % prompts.length] ?? '';
      const prompt = [...(model.tokenizer?.encode(text) ?? [])].slice(0, 48);
      const session = await model.createSession();
      await session.append(prompt.slice(0, -1));
      return { session, last: prompt.slice(-1) };
    }),
  );
  const begin = performance.now();
  const results = await Promise.all(
    requests.map(({ session, last }) =>
      session.generate(last, { ...options, maxTokens: tokens, ignoreEos: true }).result(),
    ),
  );
  const seconds = (performance.now() - begin) / 1000;
  await Promise.all(requests.map(({ session }) => session.dispose()));
  const ids = results.map(({ tokenIds }) => tokenIds.join()).join(';');
  const known = expected.get(`${batch} ${first}`);
  if (known !== undefined && known !== ids) throw new Error(`${name} gave other ids at batch ${batch}`);
  expected.set(`${batch} ${first}`, ids);
  return seconds;
}

/**
 * Tokens per second of each way over all texts, batch after batch. They take turns after each batch, and each time another one
 * begins, so that what the machine does in the meantime happens to all of them.
 * @param {Model} model
 * @param {number} batch
 * @param {Way[]} ways
 */
async function inTurns(model, batch, ways, texts = TEXTS) {
  const count = Math.max(batch, texts);
  const seconds = ways.map(() => 0);
  for (let first = 0; first < count; first += batch) {
    for (let i = 0; i < ways.length; i++) {
      const at = (first / batch + i + begins) % ways.length;
      seconds[at] = (seconds[at] ?? 0) + (await secondsOf(model, batch, first, /** @type {Way} */ (ways[at])));
    }
  }
  begins++;
  return seconds.map((taken) => (count * tokens) / taken);
}
let begins = 0;

/**
 * @param {Model} model
 * @param {number} batch
 * @param {boolean} drafts
 */
async function compare(model, batch, drafts) {
  const ladder = drafts ? LADDER.filter(([width, length]) => batch * (1 + width * length) <= 512) : [];
  const fixed = ladder.map(([beamWidth, beamLength]) => ({
    name: `${beamWidth}x${beamLength}`,
    options: { beamWidth, beamLength },
  }));
  await inTurns(model, batch, [ADAPTIVE]);
  const tries = [PLAIN, ...fixed];
  const [once, twice] = [await inTurns(model, batch, tries, FEW_TEXTS), await inTurns(model, batch, tries, FEW_TEXTS)];
  const searched = tries.map((way, i) => ({ way, tried: Math.max(once[i] ?? 0, twice[i] ?? 0) }));
  searched.sort((a, b) => b.tried - a.tried);
  // What was a tenth behind is not the best.
  const least = 0.9 * (searched[0]?.tried ?? 0);
  const close = searched.filter(({ way, tried }) => way !== PLAIN && tried > least).slice(0, 3);
  /** @type {Measured[]} */
  const all = [PLAIN, ...close.map(({ way }) => way), ADAPTIVE].map((way) => ({ way, rates: [] }));
  const until = performance.now() + values.seconds * 1000;
  for (let turn = 0; turn < 5 || performance.now() < until; turn++) {
    const given = await inTurns(
      model,
      batch,
      all.map(({ way }) => way),
    );
    given.forEach((rate, i) => all[i]?.rates.push(rate));
  }
  const adaptive = all.at(-1)?.rates ?? [];
  /** Adaptive drafting beside another way, each within its turn: the median over turns, and the quartiles. */
  const beside = (/** @type {number[]} */ own) => {
    const ratios = adaptive.map((value, turn) => value / (own[turn] ?? NaN));
    return { ratio: quantile(ratios), quartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)] };
  };
  const rates = all.map(({ way, rates: own }) => ({ name: way.name, tokensPerSecond: quantile(own), ...beside(own) }));
  const best = rates.slice(0, -1).reduce((a, b) => (b.tokensPerSecond > a.tokensPerSecond ? b : a));
  return {
    batch,
    rates,
    searched: searched.map(({ way, tried }) => ({ name: way.name, tokensPerSecond: tried })),
    best: best.name,
    ofBest: best.ratio,
    ofPlain: rates[0]?.ratio ?? NaN,
    turns: adaptive.length,
  };
}

const log = (/** @type {string} */ text) => process.stderr.write(`${text}\n`);
/** @type {({ drafter: string } & Awaited<ReturnType<typeof compare>>)[]} */
const results = [];
let missed = 0;
try {
  log(`widening by ${values.factor}`);
  const target = widen(bundled, 'target');
  const trained = widen(join(bundled, 'drafter-gru'), 'trained');
  const bytes = statSync(join(target, 'model.safetensors')).size;
  /** @type {Record<string, string | false>} */
  const drafters = { trained, random: randomized(trained), none: false };
  console.log(`widened model of ${(bytes / 1e6).toFixed(0)} MB, ${tokens} tokens a request, ${cpus()[0]?.model ?? ''}`);
  console.log('drafter  batch  plain tok/s  best fixed      adaptive  of best  of plain');
  for (const name of values.drafters) {
    const drafter = drafters[name];
    if (drafter === undefined) throw new Error(`no drafter ${name}`);
    const threads = values.threads === undefined ? {} : { threads: values.threads };
    const model = await Model.load(target, { drafter, contextTokens: 512, kvTokens: 32 * 512, ...threads });
    for (const batch of values.batches) {
      log(`${name}, batch ${batch}`);
      const result = { drafter: name, ...(await compare(model, batch, drafter !== false)) };
      results.push(result);
      const { rates, best, ofBest, ofPlain } = result;
      const of = (/** @type {string} */ way) => rates.find((one) => one.name === way)?.tokensPerSecond.toFixed(1) ?? '';
      const passes = ofBest >= BAR && ofPlain >= BAR;
      if (!passes) missed++;
      console.log(
        `${name.padEnd(8)} ${String(batch).padStart(5)}  ${of('plain').padStart(11)}  ${`${best} ${of(best)}`.padEnd(14)}  ` +
          `${of('adaptive').padStart(8)}  ${ofBest.toFixed(3).padStart(7)}  ${ofPlain.toFixed(3).padStart(8)}${passes ? '' : '  missed'}`,
      );
      const { device, level, dtype, threads: used } = model.info;
      if (values.json !== undefined) {
        const engine = { version: version(), device, level, dtype, threads: used };
        const label = `ts-declarations, widened ${String(values.factor)} times`;
        const before = existsSync(values.json) ? /** @type {Report} */ (JSON.parse(readFileSync(values.json, 'utf8'))) : undefined; // prettier-ignore
        const kept = before?.model === label && before.tokens === tokens ? before.results : [];
        const others = kept.filter((a) => !results.some((b) => b.drafter === a.drafter && b.batch === a.batch));
        const report = { date: new Date().toISOString().slice(0, 10), engine, model: label, weightBytes: bytes, tokens, bar: BAR, results: [...others, ...results] }; // prettier-ignore
        writeFileSync(values.json, `${JSON.stringify(report, undefined, 1)}\n`);
      }
    }
    await model.dispose();
  }
} finally {
  rmSync(directory, { recursive: true });
}
console.log(missed === 0 ? 'all bars are met' : `${missed} bars are missed`);
process.exitCode = missed === 0 ? 0 : 1;
