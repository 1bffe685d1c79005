// The files that both engines read: a model widened until its weights no longer fit a cache, and the same tensors as GGUFs.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

import { inspect } from '../../dist/index.mjs';
import { quantize } from '../../dist/quantize/quantize.js';
import { widen } from '../../dist/widen/widen.js';
import { convert } from './gguf/model.mjs';

/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {{ model: string, drafter: string | undefined, work: string | undefined }} Source */

/** Files that another version wrote are not taken for those of this one. */
const LAYOUT = 2;
/** The part of the layers that a cut draft has. */
const CUT = 4;

/** @param {Dtype} dtype @returns {dtype is 'q8_0' | 'q4_0'} */
const isQuantised = (dtype) => dtype === 'q8_0' || dtype === 'q4_0';

/** The folder of all files. It names them at once, and writes those that were named when `write` is called. */
export class Work {
  #source;
  #directory;
  #tell;
  /** @type {Map<string, () => Promise<void>>} */
  #wanted = new Map();

  /** @param {Source} source @param {(line: string) => void} tell */
  constructor(source, tell) {
    this.#source = source;
    this.#tell = tell;
    this.#directory = source.work ?? mkdtempSync(join(tmpdir(), 'redrafter-peers-'));
    if (source.work !== undefined) claim(source.work, source);
  }

  /** The files of one factor. @param {number} factor */
  widened(factor) {
    const { model, drafter } = this.#source;
    return new Files(factor, { model, drafter }, (name, make) => this.#want(name, make));
  }

  /** @param {string} name @param {(out: string) => Promise<unknown>} make @returns {string} where it will be */
  #want(name, make) {
    const out = join(this.#directory, name);
    if (this.#wanted.has(out)) return out;
    this.#wanted.set(out, async () => {
      const isWhole = name.endsWith('.gguf') ? existsSync(out) : existsSync(join(out, 'config.json'));
      if (isWhole) return;
      this.#tell(`writing ${name}`);
      mkdirSync(dirname(out), { recursive: true });
      rmSync(out, { recursive: true, force: true }); // an unfinished one: its configuration is written last
      await make(out);
    });
    return out;
  }

  /** Writes what was named and is not there. */
  async write() {
    for (const make of this.#wanted.values()) await make();
  }

  close() {
    if (this.#source.work === undefined) rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Paths of what is widened by one factor. */
export class Files {
  #factor;
  #source;
  #want;

  /**
   * @param {number} factor @param {{ model: string, drafter: string | undefined }} source
   * @param {(name: string, make: (out: string) => Promise<unknown>) => string} want
   */
  constructor(factor, source, want) {
    this.#factor = factor;
    this.#source = source;
    this.#want = want;
  }

  /** The target as redrafter reads it. @param {Dtype} dtype */
  target(dtype) {
    return this.#stored(this.#widened(this.#source.model, 'model'), 'model', dtype);
  }

  /** Its drafter, if there is one: loading it chooses its dtype. */
  drafter() {
    const { drafter } = this.#source;
    return drafter === undefined ? undefined : this.#widened(drafter, 'drafter');
  }

  /** The target as the peer reads it. @param {Dtype} dtype */
  gguf(dtype) {
    const from = this.#widened(this.#source.model, 'model');
    return this.#want(`${this.#factor}x/target-${dtype}.gguf`, (out) => convert(from, out, { dtype }));
  }

  /** The first layers of the target, with its head. @param {Dtype} dtype */
  cut(dtype) {
    const from = this.#widened(this.#source.model, 'model');
    return this.#want(`${this.#factor}x/cut-${dtype}.gguf`, async (out) => {
      const { config } = await inspect(from);
      await convert(from, out, { dtype, layers: Math.max(1, Math.floor(Number(config['layers']) / CUT)) });
    });
  }

  /** What the target was before it was widened, undefined if it was not: it computes the same. @param {Dtype} dtype */
  twin(dtype) {
    if (this.#factor === 1) return undefined;
    return this.#want(`1x/target-${dtype}.gguf`, (out) => convert(this.#source.model, out, { dtype }));
  }

  /** @param {string} from @param {string} name */
  #widened(from, name) {
    if (this.#factor === 1) return from;
    return this.#want(`${this.#factor}x/${name}`, (out) => widen(from, this.#factor, out));
  }

  /** Quantised once, not by each trial that loads it. @param {string} from @param {string} name @param {Dtype} dtype */
  #stored(from, name, dtype) {
    if (!isQuantised(dtype)) return from;
    return this.#want(`${this.#factor}x/${name}-${dtype}`, (out) => quantize(from, dtype, out));
  }
}

/**
 * Takes a folder that is empty, or was filled for the same source. @param {string} directory @param {Source} source
 */
function claim(directory, { model, drafter }) {
  mkdirSync(directory, { recursive: true });
  const stampOf = (/** @type {string | undefined} */ from) => {
    if (from === undefined) return null;
    const weights = readdirSync(from).filter((name) => name.endsWith('.safetensors'));
    return [resolve(from), ...weights.map((name) => [name, statSync(join(from, name)).mtimeMs])];
  };
  const stamp = JSON.stringify({ layout: LAYOUT, model: stampOf(model), drafter: stampOf(drafter) });
  const file = join(directory, 'source.json');
  const known = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
  if (known === undefined && readdirSync(directory).length > 0) throw new Error(`${directory} is neither empty nor a folder of this program`); // prettier-ignore
  if (known !== undefined && known !== stamp) throw new Error(`${directory} holds files of another model or drafter`);
  writeFileSync(file, stamp);
}
