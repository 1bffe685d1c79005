import { createHash, timingSafeEqual } from 'node:crypto';

import type { HttpBindings } from '@hono/node-server';
import { Hono, type Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { ContentfulStatusCode } from 'hono/utils/http-status';

import { parseJson } from './body.js';
import { Exchange } from './exchange.js';
import { generate, type Workplace } from './generate.js';
import { HttpError, toHttpError } from './http-error.js';
import type { ResolvedServer } from './options.js';
import { parseChat, parseCompletion, type Job, type JobContext } from './request.js';

/** What the routes need of the server. */
export interface Backstage {
  options: ResolvedServer;
  /** Throws 503 while the model loads, after that failed, and while draining. */
  workplace(): Workplace;
  /** Throws as {@link Backstage.workplace} does, and what entering the queue would now throw. */
  checkQueue(): void;
  /** `ok`, or why not. */
  health(): Promise<string>;
  draining(): boolean;
  metrics(): string;
  began(exchange: Exchange): void;
}

interface Env {
  Bindings: HttpBindings;
  Variables: { exchange: Exchange };
}

type Parse = (body: unknown, context: JobContext) => Job;

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();

/** The routes, behind what every request has to pass: host, key, and for bodies type and size. */
export function createApp(server: Backstage): Hono<Env> {
  const { options } = server;
  const app = new Hono<Env>();

  app.use(async (c, next) => {
    const { incoming, outgoing } = c.env;
    const exchange = new Exchange(incoming, outgoing, options.stallTimeoutMs);
    server.began(exchange);
    c.set('exchange', exchange);
    c.header('x-request-id', exchange.log.id);
    c.header('cache-control', 'no-store');
    c.header('x-content-type-options', 'nosniff');
    if (server.draining()) c.header('connection', 'close');
    checkHost(incoming.headers.host, options);
    if (c.req.path !== '/health') checkKey(c.req.header('authorization'), options);
    await next();
  });

  app.get('/health', async (c) => {
    at(c, '/health');
    const status = await server.health();
    return c.json({ status }, status === 'ok' ? 200 : 503);
  });

  app.get('/metrics', (c) => {
    at(c, '/metrics');
    return c.text(server.metrics(), 200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
  });

  app.get('/v1/models', (c) => {
    at(c, '/v1/models');
    return c.json({ object: 'list', data: [describeModel(server.workplace())] });
  });

  app.get('/v1/models/:name', (c) => {
    at(c, '/v1/models/:name');
    if (c.req.param('name') === options.modelName) return c.json(describeModel(server.workplace()));
    throw new HttpError(404, 'model_not_found', 'there is no such model', { param: 'model' });
  });

  const posts: [route: string, parse: Parse][] = [
    ['/v1/completions', parseCompletion],
    ['/v1/chat/completions', parseChat],
  ];
  for (const [route, parse] of posts) {
    app.post(
      route,
      async (c, next) => {
        at(c, route);
        checkType(c);
        server.checkQueue();
        await next();
      },
      bodyLimit({
        maxSize: options.bodyLimit,
        onError: () => {
          throw new HttpError(413, 'body_too_large', `the body has more than ${options.bodyLimit} bytes`);
        },
      }),
      async (c) => {
        const body = parseJson(await readBody(c));
        const place = server.workplace();
        const outcome = await generate(parse(body, place.context), c.var.exchange, place);
        if ('whole' in outcome) return c.json(outcome.whole);
        // Proxies that hold back what they pass on are asked not to.
        const headers = { 'content-type': 'text/event-stream; charset=utf-8', 'x-accel-buffering': 'no' };
        return c.body(outcome.events, 200, headers);
      },
    );
  }

  const allowed = { '/health': 'GET', '/metrics': 'GET', '/v1/models': 'GET', '/v1/models/:name': 'GET' };
  for (const [route, method] of [...Object.entries(allowed), ...posts.map(([route]) => [route, 'POST'] as const)]) {
    app.all(route, (c) => {
      at(c, route);
      throw new HttpError(405, 'method_not_allowed', `${route} takes ${method}`, { headers: { allow: method } });
    });
  }

  app.notFound((c) => {
    const error = new HttpError(404, 'not_found', 'there is no such route');
    return failed(c, error);
  });
  app.onError((error, c) => failed(c, toHttpError(error)));
  return app;
}

function failed(c: Context<Env>, error: HttpError): Response {
  c.var.exchange.log.code = error.code;
  return c.json(error.body(), error.status as ContentfulStatusCode, error.headers);
}

function at(c: Context<Env>, route: string): void {
  c.var.exchange.log.route = route;
}

function describeModel({ context, fingerprint }: Workplace): object {
  const { contextTokens } = context.model.info;
  return {
    id: context.modelName,
    object: 'model',
    created: 0,
    owned_by: 'redrafter',
    max_model_len: contextTokens,
    system_fingerprint: fingerprint,
  };
}

/** A page of another site can have its name resolve to this machine; then its requests name that site. */
function checkHost(header: string | undefined, { allowedHosts }: ResolvedServer): void {
  if (allowedHosts === undefined) return;
  const name = header?.replace(/:\d*$/, '').toLowerCase() ?? '';
  if (allowedHosts.has(name)) return;
  throw new HttpError(403, 'host_not_allowed', 'this server does not answer for the host that the request names');
}

/** Compares digests, which have one length, in constant time. */
function checkKey(header: string | undefined, { apiKey }: ResolvedServer): void {
  if (apiKey === undefined) return;
  const given = /^Bearer (.+)$/i.exec(header ?? '')?.[1] ?? '';
  if (timingSafeEqual(sha256(given), sha256(apiKey))) return;
  throw new HttpError(401, 'invalid_api_key', 'the API key is missing or wrong', {
    headers: { 'www-authenticate': 'Bearer' },
  });
}

/** A web page can send anything but JSON to another site without asking first. */
function checkType(c: Context<Env>): void {
  const type = c.req.header('content-type') ?? '';
  if (!/^application\/json *(;|$)/i.test(type)) {
    throw new HttpError(415, 'unsupported_media_type', 'the content-type must be application/json');
  }
  if ((c.req.header('content-encoding') ?? 'identity') !== 'identity') {
    throw new HttpError(415, 'unsupported_media_type', 'compressed bodies are not supported');
  }
}

async function readBody(c: Context<Env>): Promise<ArrayBuffer> {
  try {
    return await c.req.arrayBuffer();
  } catch (error) {
    throw new HttpError(400, 'ERR_INVALID_ARGUMENT', 'the body is incomplete', { cause: error });
  }
}
