/** Starts examples/electron/model/model-process.mjs as an app would that has redrafter among its packages. */
import { fork, type ChildProcess, type ForkOptions } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

import { childProcessPort, workerPort, type ModelPort } from '../../examples/electron/model/port.mjs';
import { temporaryDirectory } from '../kit/checkpoint.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A copy of the files beside a node_modules with redrafter in it: the layout of an installed app. */
export class InstalledApp {
  private readonly directory = temporaryDirectory('electron-app');
  private readonly started: ModelPort[] = [];

  constructor() {
    cpSync(join(root, 'examples/electron/model'), join(this.directory, 'model'), { recursive: true });
    mkdirSync(join(this.directory, 'node_modules'));
    symlinkSync(root, join(this.directory, 'node_modules/redrafter'), 'junction');
  }

  /** A process of its own. `prelude` is a module that it runs first. */
  fork(prelude = '', options: ForkOptions = {}): ChildProcess {
    const execArgv = ['--import', `data:text/javascript,${encodeURIComponent(prelude)}`];
    const stdio: ForkOptions['stdio'] = ['ignore', 'inherit', 'ignore', 'ipc'];
    return fork(join(this.directory, 'model/model-process.mjs'), [], { execArgv, stdio, ...options });
  }

  /** The same with its port. SIGUSR2 makes it call abort(), as a failed assertion in native code would. */
  process(options: ForkOptions = {}): ModelPort {
    return this.keep(childProcessPort(this.fork('process.on("SIGUSR2", () => process.abort())', options)));
  }

  /** A process that runs `code` instead. */
  impostor(code: string): ModelPort {
    return this.keep(childProcessPort(this.fork(`${code}; await new Promise(() => setInterval(() => {}, 1000))`)));
  }

  /** A thread of this process. */
  worker(): ModelPort {
    return this.keep(workerPort(new Worker(join(this.directory, 'model/model-process.mjs'), { execArgv: [] })));
  }

  /** A Llama of zeros that is large enough to take a while to load. Its weights are a hole in a file. */
  largeModel(): string {
    const [vocab, hidden] = [48_000, 1024];
    const directory = join(this.directory, 'large');
    const shapes: Record<string, number[]> = {
      'model.embed_tokens.weight': [vocab, hidden],
      'model.norm.weight': [hidden],
      'lm_head.weight': [vocab, hidden],
      'model.layers.0.input_layernorm.weight': [hidden],
      'model.layers.0.post_attention_layernorm.weight': [hidden],
    };
    for (const name of ['self_attn.q', 'self_attn.k', 'self_attn.v', 'self_attn.o', 'mlp.gate', 'mlp.up', 'mlp.down']) {
      shapes[`model.layers.0.${name}_proj.weight`] = [hidden, hidden];
    }
    let end = 0;
    const header = Object.entries(shapes).map(([name, shape]) => {
      const begin = end;
      end += 4 * shape.reduce((a, b) => a * b);
      return [name, { dtype: 'F32', shape, data_offsets: [begin, end] }] as const;
    });
    const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(json.length));
    mkdirSync(directory);
    writeFileSync(join(directory, 'model.safetensors'), Buffer.concat([size, json]));
    truncateSync(join(directory, 'model.safetensors'), size.length + json.length + end);
    const config = {
      architectures: ['LlamaForCausalLM'],
      vocab_size: vocab,
      hidden_size: hidden,
      num_hidden_layers: 1,
      num_attention_heads: 8,
      num_key_value_heads: 8,
      intermediate_size: hidden,
      max_position_embeddings: 512,
      rms_norm_eps: 1e-5,
      hidden_act: 'silu',
      tie_word_embeddings: false,
    };
    writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
    return directory;
  }

  /** Ends everything that was started, and removes the files. */
  async remove(): Promise<void> {
    await Promise.all(this.started.splice(0).map((port) => this.end(port)));
    rmSync(this.directory, { recursive: true, force: true });
  }

  private readonly ended = new WeakMap<ModelPort, Promise<void>>();

  private keep(port: ModelPort): ModelPort {
    this.started.push(port);
    this.ended.set(
      port,
      new Promise((resolve) => {
        port.onExit(() => {
          resolve();
        });
      }),
    );
    return port;
  }

  private async end(port: ModelPort): Promise<void> {
    port.kill();
    await this.ended.get(port);
  }
}
