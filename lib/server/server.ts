import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { getRequestListener } from '@hono/node-server';

import { invalid, RedrafterError } from '../errors.js';
import { Model } from '../model.js';
import { describe, resolveGenerate } from '../options.js';
import { version } from '../system.js';
import { createApp, type Backstage } from './app.js';
import type { Exchange } from './exchange.js';
import type { Workplace } from './generate.js';
import { busy, HttpError } from './http-error.js';
import { Metrics } from './metrics.js';
import { OpenJobs } from './open-jobs.js';
import { DAY, resolveServer, type ResolvedServer, type ServerOptions } from './options.js';

/** Limits of connections; those of requests are options. Times in milliseconds. */
const CONNECTION = {
  /** From the connection to the end of the headers. */
  headersTimeout: 15_000,
  /** To the end of the body. */
  requestTimeout: 60_000,
  /** Between two requests. Longer than that of common proxies, so that they close first. */
  keepAliveTimeout: 65_000,
  /** How often the limits above are looked at. */
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 16_384,
};
const MAX_CONNECTIONS = 1024;

const MALFORMED = new HttpError(400, 'ERR_INVALID_ARGUMENT', 'the request is malformed');

/** Most that /health waits for the engine to answer between two rounds, in milliseconds. */
const HEALTH_TIMEOUT = 10_000;

/** Most that open answers may take to be read once everything has ended, in milliseconds. */
const FLUSH_TIME = 1_000;

/** An HTTP server over one model, in the form of OpenAI's API. The model stays the caller's: dispose of it afterwards. */
export class Server {
  /**
   * Resolves when the model is loaded. Rejects with what loading failed with, with ERR_INVALID_ARGUMENT for what is no
   * model, and with ERR_TOKENIZER for one without a tokenizer.
   */
  readonly ready: Promise<void>;
  private readonly options: ResolvedServer;
  private readonly http: HttpServer;
  private readonly jobs = new OpenJobs();
  private readonly metrics = new Metrics();
  private readonly open = new Set<Exchange>();
  private state: 'loading' | 'ready' | 'failed' | 'draining' = 'loading';
  private place: Workplace | undefined;
  private probing: Promise<string> | undefined;
  private closing: Promise<void> | undefined;

  /** @internal */
  constructor(model: Model | Promise<Model>, options: ServerOptions) {
    this.options = resolveServer(options);
    const backstage: Backstage = {
      options: this.options,
      workplace: () => this.workplace(),
      checkQueue: () => {
        this.checkQueue();
      },
      health: () => this.health(),
      draining: () => this.state === 'draining',
      metrics: () => this.metrics.write(this.place?.context.model, this.jobs),
      began: (exchange) => {
        this.began(exchange);
      },
    };
    const listener = getRequestListener(createApp(backstage).fetch, {
      overrideGlobalObjects: false,
      // What cannot be made into a request at all: a path or host that is not one.
      errorHandler: () => Response.json(MALFORMED.body(), { status: MALFORMED.status }),
    });
    this.http = createHttpServer(CONNECTION, (incoming, outgoing) => void listener(incoming, outgoing));
    this.http.maxConnections = MAX_CONNECTIONS;
    this.ready = this.load(model);
    this.ready.catch(() => undefined); // whoever does not wait for it sees it in /health
  }

  /**
   * Starts to listen; resolves to the address. Until the model is loaded requests get 503. Rejects with
   * ERR_INVALID_ARGUMENT when the address cannot be listened on, and with ERR_DISPOSED once the server is closed.
   */
  async listen(): Promise<string> {
    const { host, port } = this.options;
    if (this.closing !== undefined) throw closedError();
    await new Promise<void>((resolve, reject) => {
      const onError = (cause: Error): void => {
        const message = `cannot listen on ${host}, port ${port}: ${cause.message}`;
        reject(new RedrafterError('ERR_INVALID_ARGUMENT', message, { cause }));
      };
      this.http.once('error', onError);
      this.http.once('close', () => {
        reject(closedError());
      });
      this.http.listen(port, host, () => {
        this.http.off('error', onError);
        if (this.closing === undefined) resolve();
        else this.http.close(); // when it was closed there was nothing to close yet
      });
    });
    const { address, family, port: actual } = this.http.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${actual}`;
  }

  /**
   * Takes no new requests (503), lets those that run or wait end for up to `graceMs` milliseconds, ends the rest with
   * an error, and stops listening. At most a day. Resolves when that is done. Idempotent.
   */
  close(graceMs = 0): Promise<void> {
    this.closing ??= this.drain(graceMs);
    return this.closing;
  }

  private async load(loading: Model | Promise<Model>): Promise<void> {
    try {
      const model = await loading;
      if (!(model instanceof Model)) throw invalid(`model must be a Model, got ${describe(model)}`);
      const { tokenizer, info } = model;
      if (tokenizer === null) {
        throw new RedrafterError('ERR_TOKENIZER', 'serving needs a tokenizer, and the model has no tokenizer.json');
      }
      const { options, jobs } = this;
      const { modelName, shape, contextPolicy, prefixSharing, maxChoices } = options;
      const { vocab, contextTokens } = info;
      resolveGenerate({ contextPolicy }, { vocab, contextTokens, hasDrafter: false, eosTokenIds: [] });
      const fingerprint = [version(), info.fingerprint, info.dtype, info.device, info.level].join('-');
      const context = { model, tokenizer, modelName, shape, maxChoices, contextPolicy, prefixSharing };
      this.place = { options, jobs, fingerprint, context };
      if (this.state === 'loading') this.state = 'ready';
    } catch (error) {
      if (this.state === 'loading') this.state = 'failed';
      throw error;
    }
  }

  private refusal(): HttpError | undefined {
    if (this.state === 'ready') return undefined;
    if (this.state === 'draining') return busy(503, 'shutting_down', 'the server is shutting down');
    if (this.state === 'loading') return busy(503, 'loading', 'the model is being loaded');
    return new HttpError(503, 'load_failed', 'the model could not be loaded');
  }

  private workplace(): Workplace {
    const why = this.refusal();
    if (why !== undefined) throw why;
    if (this.place === undefined) throw new Error('ready without a model');
    return this.place;
  }

  /** Refuses what the engine would now refuse, so that a body need not be read in vain. */
  private checkQueue(): void {
    const { waitingRequests, maxQueuedRequests } = this.workplace().context.model.queueUsage();
    if (waitingRequests < maxQueuedRequests) return;
    throw busy(429, 'ERR_QUEUE_FULL', `${waitingRequests} requests are waiting, try later`);
  }

  /** Asks the engine's thread for a sign of life, once for all who want to know at a time. */
  private health(): Promise<string> {
    const { place, state } = this;
    if (place === undefined || state !== 'ready') return Promise.resolve(state);
    this.probing ??= probe(place.context.model).finally(() => {
      this.probing = undefined;
    });
    return this.probing;
  }

  private began(exchange: Exchange): void {
    this.open.add(exchange);
    void exchange.end().then((log) => {
      this.open.delete(exchange);
      this.metrics.count(log);
      this.options.onRequest(log);
    });
  }

  private async drain(graceMs: number): Promise<void> {
    this.state = 'draining';
    const timer = setTimeout(
      () => {
        const reason = busy(503, 'shutting_down', 'the server shut down before the answer was complete');
        for (const exchange of this.open) exchange.abort(reason);
      },
      Math.min(graceMs, DAY),
    ); // a timer cannot be set for much longer: it would fire at once
    await this.jobs.idle();
    clearTimeout(timer);
    const closed = new Promise<void>((resolve) => {
      this.http.close(() => {
        resolve();
      });
    });
    this.http.closeIdleConnections();
    const flush = setTimeout(() => {
      this.http.closeAllConnections();
    }, FLUSH_TIME);
    await closed;
    clearTimeout(flush);
  }
}

/** `model` may still be loading: the server then answers 503 until it is there. Throws ERR_INVALID_ARGUMENT. */
export function createServer(model: Model | Promise<Model>, options: ServerOptions): Server {
  return new Server(model, options);
}

function closedError(): RedrafterError {
  return new RedrafterError('ERR_DISPOSED', 'the server was closed');
}

async function probe(model: Model): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => {
      resolve('stuck');
    }, HEALTH_TIMEOUT);
  });
  const alive = model.createSession().then(
    async (session) => {
      await session.dispose();
      return 'ok';
    },
    () => 'failed',
  );
  const status = await Promise.race([alive, late]);
  clearTimeout(timer);
  return status;
}
