/**
 * An HTTP server over a loaded model, in the form of OpenAI's API. Start with {@link createServer}.
 *
 * @module redrafter/server
 * @group Reference
 */
export { createServer, Server } from './server.js';
export type { PrefixSharing, RequestLog, ServerOptions } from './options.js';
