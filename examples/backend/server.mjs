// A backend that streams what a model writes: node examples/backend/server.mjs
import { once } from 'node:events';
import { createServer } from 'node:http';

import { CapacityError, InvalidArgumentError, Model } from 'redrafter';

/** Who may ask. Prefixes are shared within a tenant, never across; `atOnce` bounds what one user can take from others. */
const users = new Map([
  ['key-of-ada', { tenant: 'acme', priority: 2, atOnce: 8, running: 0 }],
  ['key-of-bob', { tenant: 'beta', priority: 0, atOnce: 2, running: 0 }],
]);
const BODY_BYTES = 100_000;
const MAX_TOKENS = 2000;
const DEADLINE_MS = Number(process.env['DEADLINE_MS'] ?? 30_000);

const directory = process.env['MODEL'] ?? 'models/ts-declarations';
const model = await Model.load(directory, {
  drafter: `${directory}/drafter-gru`,
  maxQueuedRequests: Number(process.env['MAX_QUEUED'] ?? 64), // beyond that 503: a short queue that says no beats a long one
});

/** An answer that is no stream. */
class Refusal extends Error {
  /** @param {number} status @param {string} text @param {number} [retryAfterSeconds] */
  constructor(status, text, retryAfterSeconds) {
    super(text);
    this.status = status;
    this.headers = retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) };
  }
}

/** What to answer for any error. @param {unknown} error */
function refusalOf(error) {
  if (error instanceof Refusal) return error;
  if (error instanceof InvalidArgumentError) return new Refusal(400, error.message);
  if (error instanceof CapacityError && error.code === 'ERR_CONTEXT') return new Refusal(400, error.message);
  if (error instanceof CapacityError) return new Refusal(503, error.message, 2); // ERR_QUEUE_FULL above all
  console.error(error);
  return new Refusal(500, 'internal error'); // what it says is not for strangers
}

/** @param {import('node:http').IncomingMessage} request */
async function readBody(request) {
  let [text, bytes] = ['', 0];
  for await (const part of request.setEncoding('utf8')) {
    bytes += Buffer.byteLength(String(part));
    if (bytes <= BODY_BYTES) text += String(part); // the rest is read and dropped, so that the client gets to hear the answer
  }
  if (bytes > BODY_BYTES) throw new Refusal(413, 'the body is too large');
  try {
    /** @type {unknown} */
    const body = JSON.parse(text);
    const { prompt, maxTokens = 256 } = /** @type {{ prompt: unknown, maxTokens?: unknown }} */ (body);
    if (typeof prompt === 'string' && prompt !== '' && typeof maxTokens === 'number')
      return { prompt, maxTokens: Math.min(maxTokens, MAX_TOKENS) };
  } catch {
    // no JSON, or null: the same answer
  }
  throw new Refusal(400, 'the body must be { "prompt": text, "maxTokens": number }');
}

/**
 * Streams one answer as server-sent events. The status is sent with the first text, so that what fails before can have its own.
 * @param {import('node:http').IncomingMessage} request @param {import('node:http').ServerResponse} response
 * @param {{ tenant: string, priority: number }} user
 */
async function generate(request, response, user) {
  const gone = new AbortController();
  response.once('close', () => {
    gone.abort(); // also after a complete answer, when it does nothing
  });
  const { prompt, maxTokens } = await readBody(request);
  const { signal } = gone;
  const send = async (/** @type {object} */ data) => {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
    // A client that does not read: this waits, then the generation pauses, and others go on. server.timeout ends it.
    if (!response.write(`data: ${JSON.stringify(data)}\n\n`)) await once(response, 'drain', { signal });
  };
  const session = await model.createSession({ prefixKey: user.tenant });
  try {
    const options = { maxTokens, priority: user.priority, deadlineMs: DEADLINE_MS, signal };
    const generation = session.generate(prompt, options);
    for await (const { text } of generation) if (text !== '') await send({ text });
    const { finishReason, stats } = await generation.result();
    if (finishReason === 'deadline' && stats.tokens === 0) throw new Refusal(503, 'too busy', 5);
    await send({ finishReason, tokens: stats.tokens, reusedTokens: stats.reusedTokens, queuedMs: stats.queuedMs });
    response.end();
  } finally {
    await session.dispose(); // its part of the KV cache is free again
  }
}

/** @param {import('node:http').IncomingMessage} request @param {import('node:http').ServerResponse} response */
async function answer(request, response) {
  try {
    if (request.method === 'GET' && request.url === '/health') {
      response.end(JSON.stringify({ ...model.queueUsage(), sessions: model.kvUsage().sessions }));
      return;
    }
    if (request.method !== 'POST' || request.url !== '/generate') throw new Refusal(404, 'POST /generate');
    const user = users.get(request.headers.authorization?.replace('Bearer ', '') ?? '');
    if (user === undefined) throw new Refusal(401, 'which key?');
    if (user.running >= user.atOnce) throw new Refusal(429, 'too many at once', 1);
    user.running++;
    try {
      await generate(request, response, user);
    } finally {
      user.running--;
    }
  } catch (error) {
    if (response.destroyed) return; // the client has gone, and its session is disposed of
    if (response.headersSent)
      response.destroy(); // a stream that ends without finishReason has failed
    else {
      const { status, message, headers } = refusalOf(error);
      response.writeHead(status, { 'content-type': 'text/plain', ...headers }).end(`${message}\n`);
    }
  }
}

const server = createServer((request, response) => void answer(request, response));
server.timeout = DEADLINE_MS + 5000; // of connections on which nothing moves
server.listen(Number(process.env['PORT'] ?? 8080), '127.0.0.1');
await once(server, 'listening');
const address = server.address();
console.log(`http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/generate`);

process.once('SIGTERM', () => {
  server.close(() => void model.dispose()); // requests that run may end; then the process does
  server.closeIdleConnections();
});
