/** Starts examples/electron/model/model-process.mjs as an app would that has redrafter among its packages. */
import { fork, type ChildProcess, type ForkOptions } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

import {
  childProcessPort,
  utilityProcessPort,
  workerPort,
  type ModelPort,
} from '../../examples/electron/model/port.mjs';
import { temporaryDirectory } from '../kit/checkpoint.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A copy of the files beside a node_modules with redrafter in it: the layout of an installed app. */
export class InstalledApp {
  private readonly directory = temporaryDirectory('electron-app');
  private readonly endings: (() => Promise<unknown>)[] = [];

  constructor() {
    cpSync(join(root, 'examples/electron/model'), join(this.directory, 'model'), { recursive: true });
    mkdirSync(join(this.directory, 'node_modules'));
    symlinkSync(root, join(this.directory, 'node_modules/redrafter'), 'junction');
  }

  /** A process of its own. `prelude` is a module that it runs first. */
  fork(prelude = '', options: ForkOptions = {}): ChildProcess {
    const execArgv = ['--import', `data:text/javascript,${encodeURIComponent(prelude)}`];
    const stdio: ForkOptions['stdio'] = ['ignore', 'inherit', 'ignore', 'ipc'];
    const child = fork(join(this.directory, 'model/model-process.mjs'), [], { execArgv, stdio, ...options });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    this.endings.push(() => {
      child.kill('SIGKILL');
      return ended;
    });
    return child;
  }

  /** The same with its port. SIGUSR2 makes it call abort(), as a failed assertion in native code would. */
  process(options: ForkOptions = {}): ModelPort {
    return childProcessPort(this.fork('process.on("SIGUSR2", () => process.abort())', options));
  }

  /** The same behind the objects that Electron gives to both ends of a utility process: their shape, not Electron. Messages wait for a listener. */
  likeUtilityProcess(): ModelPort {
    const child = this.fork(`
      import { EventEmitter } from 'node:events';
      const { send } = process;
      process.parentPort = Object.assign(new EventEmitter(), { postMessage: (message) => send.call(process, message) });
      process.parentPort.once('newListener', () => {
        process.on('message', (data) => process.parentPort.emit('message', { data, ports: [] }));
      });
      process.send = undefined;`);
    return utilityProcessPort({
      pid: child.pid,
      postMessage: (message) => child.send(message as object),
      kill: () => child.kill(),
      on: (event: string, listener: (value: any) => void) => child.on(event, listener), // eslint-disable-line @typescript-eslint/no-explicit-any -- two events
    });
  }

  /** A process that runs `code` instead. */
  impostor(code: string): ModelPort {
    return childProcessPort(this.fork(`${code}; await new Promise(() => setInterval(() => {}, 1000))`));
  }

  /** A thread of this process. */
  worker(): ModelPort {
    const worker = new Worker(join(this.directory, 'model/model-process.mjs'), { execArgv: [] });
    this.endings.push(() => worker.terminate());
    return workerPort(worker);
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
    await Promise.all(this.endings.splice(0).map((end) => end()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}
