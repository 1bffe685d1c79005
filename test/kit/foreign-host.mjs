// The other side of foreign.ts: loads an addon and calls its functions as asked on standard input, answering on
// standard output. A message is its length in 4 bytes, little endian, and a value as v8.serialize writes it.
import { Buffer } from 'node:buffer';
import { readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { deserialize, serialize } from 'node:v8';

/** @type {(((...args: unknown[]) => unknown))[]} */
const functions = [];

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isPlain(value) {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

/** @param {unknown} value @returns {boolean} */
function hasFunctions(value) {
  return typeof value === 'function' || (isPlain(value) && Object.values(value).some(hasFunctions));
}

/**
 * @param {unknown} value
 * @param {unknown} owner
 * @returns {unknown}
 */
function describe(value, owner) {
  if (!hasFunctions(value)) return { kind: 'data', value };
  if (isPlain(value)) {
    return { kind: 'object', members: Object.entries(value).map(([key, member]) => [key, describe(member, value)]) };
  }
  const call = /** @type {(...args: unknown[]) => unknown} */ (value);
  return { kind: 'function', id: functions.push(call.bind(owner)) - 1 };
}

/** @param {() => unknown} body */
function answer(body) {
  let message;
  try {
    message = { result: describe(body(), undefined) };
  } catch (thrown) {
    const error = /** @type {Error & { code?: unknown }} */ (thrown);
    message = { error: { name: error.name, message: error.message, code: error.code } };
  }
  const content = serialize(message);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(content.length);
  for (const part of [length, content]) {
    for (let at = 0; at < part.length;) at += writeSync(1, part, at);
  }
}

/** @param {number} bytes */
function read(bytes) {
  const buffer = Buffer.alloc(bytes);
  for (let at = 0; at < bytes;) {
    const got = readSync(0, buffer, at, bytes - at, null);
    if (got === 0) process.exit(0);
    at += got;
  }
  return buffer;
}

/** @type {(path: string) => unknown} */
const load = createRequire(import.meta.url);
answer(() => load(process.argv[2] ?? ''));
for (;;) {
  /** @type {unknown} */
  const request = deserialize(read(read(4).readUInt32LE()));
  const { id, args } = /** @type {{ id: number, args: unknown[] }} */ (request);
  answer(() => functions[id]?.(...args));
}
