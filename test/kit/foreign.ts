/**
 * An addon of another platform, run by a Node.js of that platform in a process of its own (under qemu or Wine) and
 * called from here, synchronously, as if it were loaded: the same tests then test it. See scripts/cross.mjs.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deserialize, serialize } from 'node:v8';

/** What the other side sends for a value: data as it is, functions as numbers. */
type Described =
  | { kind: 'data'; value: unknown }
  | { kind: 'function'; id: number }
  | { kind: 'object'; members: [string, Described][] };

type Answer = { result: Described } | { error: { name: string; message: string; code: unknown } };

function read(fd: number, bytes: number): Uint8Array {
  const buffer = new Uint8Array(bytes);
  for (let at = 0; at < bytes;) {
    const got = readSync(fd, buffer, at, bytes - at, null);
    if (got === 0) throw new Error('the foreign process ended: see its output');
    at += got;
  }
  return buffer;
}

function write(fd: number, message: unknown): void {
  const body = serialize(message);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, body.length, true);
  for (const part of [length, body]) {
    for (let at = 0; at < part.length;) at += writeSync(fd, part, at, part.length - at);
  }
}

/**
 * @param command the foreign Node.js with what runs it, words separated by spaces
 * @param addon path of the addon
 */
export function connect(command: string, addon: string): unknown {
  const folder = mkdtempSync(join(tmpdir(), 'redrafter-foreign-'));
  const [requests, answers] = [join(folder, 'requests'), join(folder, 'answers')];
  if (spawnSync('mkfifo', [requests, answers]).status !== 0) throw new Error('mkfifo failed');
  const host = fileURLToPath(new URL('foreign-host.mjs', import.meta.url));
  const script = 'exec "$@" < "$0/requests" > "$0/answers"';
  // It ends when its input does, which is when this process does.
  spawn('sh', ['-c', script, folder, ...command.split(' '), host, addon], {
    stdio: ['ignore', 'ignore', 'inherit'],
  }).unref();
  const to = openSync(requests, 'w');
  const from = openSync(answers, 'r');
  rmSync(folder, { recursive: true });

  const receive = (): unknown => {
    const length = new DataView(read(from, 4).buffer).getUint32(0, true);
    const answer = deserialize(read(from, length)) as Answer;
    if ('result' in answer) return revive(answer.result);
    const { name, message, code } = answer.error;
    const error = name === 'TypeError' ? new TypeError(message) : new Error(message);
    throw Object.assign(error, { name }, code === undefined ? {} : { code });
  };
  const revive = (described: Described): unknown => {
    if (described.kind === 'data') return described.value;
    if (described.kind === 'object') {
      return Object.fromEntries(described.members.map(([key, member]) => [key, revive(member)]));
    }
    return (...args: unknown[]): unknown => {
      write(to, { id: described.id, args });
      return receive();
    };
  };
  try {
    return receive();
  } catch (error) {
    closeSync(to);
    closeSync(from);
    throw error;
  }
}
