import { basename, resolve } from 'node:path';

import { Option, type Command } from 'commander';

import { invalid, RedrafterError } from '../errors.js';
import type { Model } from '../model.js';
import type { ContextPolicy, LoadOptions } from '../option-types.js';
import type { PrefixSharing, RequestLog, ServerOptions } from '../server/options.js';
import { byteCount, integer } from './numbers.js';
import { addBeamFlags, addCapacityFlags, addDeviceFlags, contextPolicyFlag, defined, loadModel } from './shared.js';
import type { BeamFlags, CapacityFlags, DeviceFlags } from './shared.js';

type LogForm = 'json' | 'text' | 'none';

interface Flags extends DeviceFlags, CapacityFlags, BeamFlags {
  model: string;
  drafter: string;
  modelName?: string;
  host: string;
  port: number;
  apiKeyEnv?: string;
  allowHost?: string[];
  maxActiveRequests?: number;
  maxQueuedRequests: number;
  maxChoices: number;
  requestTimeout: number;
  grace: number;
  prefixSharing: PrefixSharing;
  prefixCache?: number;
  contextPolicy?: ContextPolicy;
  log: LogForm;
}

/** Where the key is looked for when no other variable is named. */
const KEY_VARIABLE = 'REDRAFTER_API_KEY';

function count(flags: string, text: string, fallback?: number): Option {
  const option = new Option(flags, text).argParser(integer(flags.split(' ')[0] ?? flags));
  return fallback === undefined ? option : option.default(fallback);
}

export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .description("answer HTTP requests in the form of OpenAI's API; see docs/serving.md")
    .requiredOption('--model <dir>', 'model directory: config.json, safetensors, tokenizer.json')
    .option('--drafter <dir>', 'drafter directory, or none', 'none')
    .option('--model-name <name>', 'name of the model in requests (default: that of its directory)')
    .option('--host <address>', 'address to listen on; outside of loopback a key is needed', '127.0.0.1')
    .addOption(count('--port <port>', '0 to 65535; 0 takes a free one', 8080))
    .option('--api-key-env <name>', `environment variable that holds the API key (default: ${KEY_VARIABLE}, if set)`)
    .option('--allow-host <names...>', 'host names that requests may name, beside those of loopback')
    .addOption(
      count('--max-active-requests <requests>', 'requests that run at a time (default: as the KV cache has room for)'),
    )
    .addOption(count('--max-queued-requests <requests>', 'requests that wait; more are refused with 429', 64))
    .addOption(count('--max-choices <choices>', 'most choices of one request (n), 1 to 128', 8))
    .addOption(count('--request-timeout <seconds>', 'most that an answer takes, waiting included', 600))
    .addOption(
      new Option(
        '--prefix-sharing <who>',
        'requests that reuse the beginnings of others: those of one prompt_cache_key, or all',
      )
        .choices(['none', 'key', 'all'])
        .default('none'),
    )
    .addOption(
      new Option(
        '--prefix-cache <bytes>',
        'most of the KV cache that beginnings of ended requests may keep, as in 512MiB; 0 reuses none (default: all that is free)',
      ).argParser(byteCount('--prefix-cache')),
    )
    .addOption(contextPolicyFlag())
    .addOption(count('--grace <seconds>', 'most that requests may go on after SIGTERM or Ctrl-C', 30));
  addDeviceFlags(addCapacityFlags(addBeamFlags(command)))
    .addOption(
      new Option('--log <form>', 'one line per request on standard error, without prompts or answers')
        .choices(['json', 'text', 'none'])
        .default('text'),
    )
    .action(serve);
}

async function serve(flags: Flags): Promise<void> {
  const log = logger(flags.log);
  const loading = new AbortController();
  let begin!: () => void;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const load = begun.then(() => loadModel(flags.model, drafterOf(flags), flags, loading.signal, queueOptions(flags)));
  const { createServer } = await import('../server/server.js'); // with its HTTP library, which no other command needs
  const server = createServer(load, serverOptions(flags, log.request));
  const stopped = onStop((signal) => {
    log.event('draining', { signal });
    loading.abort(new RedrafterError('ERR_ABORTED', signal));
    return server.close(flags.grace * 1000);
  });
  let model: Model | undefined;
  try {
    const url = await server.listen();
    log.event('listening', { url });
    begin();
    model = await load;
    await server.ready;
    log.event('ready', { model: flags.modelName ?? nameOf(flags.model) });
    await stopped;
  } catch (error) {
    if (!loading.signal.aborted) throw error; // else what was asked for: the signal came before the model was there
  } finally {
    await server.close();
    await model?.dispose();
  }
  log.event('stopped', {});
}

/** Calls `stop` at the first SIGINT or SIGTERM and resolves when it is done. The second one ends the process at once. */
function onStop(stop: (signal: string) => Promise<void>): Promise<void> {
  return new Promise((resolve) => {
    let stopping = false;
    const numbers = { SIGINT: 2, SIGTERM: 15 } as const;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        if (stopping) process.exit(128 + numbers[signal]);
        stopping = true;
        void stop(signal).then(resolve);
      });
    }
  });
}

function drafterOf({ drafter }: Flags): string | false {
  return drafter === 'none' ? false : drafter;
}

/** What only a server needs of `Model.load`. */
function queueOptions({ maxActiveRequests, maxQueuedRequests, prefixCache: prefixCacheBytes }: Flags): LoadOptions {
  return defined({ maxActiveRequests, maxQueuedRequests, prefixCacheBytes });
}

function nameOf(directory: string): string {
  return basename(resolve(directory));
}

function serverOptions(flags: Flags, onRequest: (entry: RequestLog) => void): ServerOptions {
  const { host, port, maxChoices, beamWidth, beamLength, contextPolicy, allowHost: allowedHosts = [] } = flags;
  if (flags.grace < 0) throw invalid('--grace must be at least 0');
  const apiKey = keyOf(flags.apiKeyEnv);
  return {
    host,
    port,
    modelName: flags.modelName ?? nameOf(flags.model),
    allowedHosts,
    maxChoices,
    requestTimeoutMs: flags.requestTimeout * 1000,
    ...defined({ beamWidth, beamLength, contextPolicy }),
    prefixSharing: flags.prefixSharing,
    onRequest,
    ...(apiKey === undefined ? {} : { apiKey }),
  };
}

/** The key comes by the environment: arguments of a process can be seen by others. */
function keyOf(variable: string | undefined): string | undefined {
  const key = process.env[variable ?? KEY_VARIABLE];
  if (key !== undefined && key !== '') return key;
  if (variable !== undefined) throw invalid(`the environment variable ${JSON.stringify(variable)} is not set`);
  return undefined;
}

interface Logger {
  request: (entry: RequestLog) => void;
  event: (event: string, details: Record<string, string>) => void;
}

function logger(form: LogForm): Logger {
  process.stderr.on('error', () => undefined); // who reads the log may end before the server does
  const line = (text: string): void => void process.stderr.write(`${text}\n`);
  if (form === 'none') return { request: () => undefined, event: () => undefined };
  if (form === 'text') {
    return {
      request: (entry) => {
        line(requestText(entry));
      },
      event: (event, details) => {
        line([event, ...Object.values(details)].join(' '));
      },
    };
  }
  return {
    request: (entry) => {
      line(JSON.stringify({ event: 'request', ...entry }));
    },
    event: (event, details) => {
      line(JSON.stringify({ event, time: new Date().toISOString(), ...details }));
    },
  };
}

function requestText(entry: RequestLog): string {
  const { time, status, method, route, ms, code, promptTokens, completionTokens, finishReason, tokensPerStep } = entry;
  const parts = [time, status, method, route, `${ms} ms`];
  if (code !== undefined) parts.push(code);
  if (completionTokens !== undefined) {
    parts.push(`${promptTokens ?? 0}+${completionTokens} tokens`, finishReason ?? '', `${tokensPerStep ?? 0} per step`);
  }
  return parts.join(' ');
}
