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
import { join, resolve } from 'node:path';

import { inspect } from '../../dist/index.mjs';
import { widen } from '../../dist/widen/widen.js';
import { convert } from './gguf/model.mjs';

/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {{ model: string, drafter: string | undefined, factor: number, work: string | undefined }} Source */

/** Files that another version wrote are not taken for those of this one. */
const LAYOUT = 1;
/** The part of the layers that a cut draft has. */
const CUT = 4;

/** Writes files when they are asked for first. Whoever made it calls `close`. */
export class Files {
  #source;
  #directory;
  #kept;
  #tell;

  /** @param {Source} source @param {(line: string) => void} tell */
  constructor(source, tell) {
    this.#source = source;
    this.#tell = tell;
    this.#kept = source.work !== undefined;
    this.#directory = source.work ?? mkdtempSync(join(tmpdir(), 'redrafter-peers-'));
    if (source.work !== undefined) claim(source.work, source);
  }

  /** The target as redrafter reads it. */
  async target() {
    return this.#widened(this.#source.model, 'model');
  }

  /** Its drafter, if there is one. */
  async drafter() {
    return this.#source.drafter === undefined ? undefined : this.#widened(this.#source.drafter, 'drafter');
  }

  /** The target as the peer reads it. @param {Dtype} dtype */
  async gguf(dtype) {
    return this.#converted(`target-${dtype}`, await this.target(), { dtype });
  }

  /** The first layers of the target, with its head. @param {Dtype} dtype */
  async cut(dtype) {
    const { config } = await inspect(this.#source.model);
    const layers = Math.max(1, Math.floor(Number(config['layers']) / CUT));
    return this.#converted(`cut-${dtype}`, await this.target(), { dtype, layers });
  }

  /** What the target was before it was widened, undefined if it was not: it computes the same. @param {Dtype} dtype */
  async twin(dtype) {
    return this.#source.factor === 1 ? undefined : this.#converted(`twin-${dtype}`, this.#source.model, { dtype });
  }

  /** @param {string} from @param {string} name */
  async #widened(from, name) {
    if (this.#source.factor === 1) return from;
    const out = join(this.#directory, name);
    if (!existsSync(join(out, 'config.json'))) {
      this.#tell(`widening the ${name} by ${this.#source.factor}`);
      rmSync(out, { recursive: true, force: true }); // an unfinished one: its configuration is written last
      await widen(from, this.#source.factor, out);
    }
    return out;
  }

  /** @param {string} name @param {string} from @param {{ dtype: Dtype, layers?: number }} options */
  async #converted(name, from, options) {
    const out = join(this.#directory, `${name}.gguf`);
    if (!existsSync(out)) {
      this.#tell(`writing ${name}.gguf`);
      await convert(from, out, options);
    }
    return out;
  }

  close() {
    if (!this.#kept) rmSync(this.#directory, { recursive: true, force: true });
  }
}

/**
 * Takes a folder that is empty, or was filled for the same source. @param {string} directory @param {Source} source
 */
function claim(directory, { model, drafter, factor }) {
  mkdirSync(directory, { recursive: true });
  const stampOf = (/** @type {string | undefined} */ from) => {
    if (from === undefined) return null;
    const weights = readdirSync(from).filter((name) => name.endsWith('.safetensors'));
    return [resolve(from), ...weights.map((name) => [name, statSync(join(from, name)).mtimeMs])];
  };
  const stamp = JSON.stringify({ layout: LAYOUT, factor, model: stampOf(model), drafter: stampOf(drafter) });
  const file = join(directory, 'source.json');
  const known = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
  if (known === undefined && readdirSync(directory).length > 0) throw new Error(`${directory} is neither empty nor a folder of this program`); // prettier-ignore
  if (known !== undefined && known !== stamp)
    throw new Error(`${directory} holds files of another model, drafter or factor`);
  writeFileSync(file, stamp);
}
