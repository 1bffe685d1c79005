/** ArrayBuffers over native memory are forbidden in Electron: nothing in the addon may make one. */
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(root + path, 'utf8');

/** Raw calls, and the wrappers that take memory: `ArrayBuffer::New(env, data, ...)`, `Buffer<T>::New(env, data, ...)`. */
const FORBIDDEN =
  /napi_create_external_(array)?buffer|node_api_create_external|\bArrayBuffer::New\(\s*[^(),]+(\([^()]*\))?\s*,[^()]*,|\bBuffer<[^>]*>::New(OrCopy)?\(\s*[^(),]+(\([^()]*\))?\s*,[^()]*,/;

it('no source of the addon makes an external buffer', () => {
  const files = readdirSync(`${root}native/addon`);
  expect(files.length).toBeGreaterThan(4);
  expect(files.filter((file) => FORBIDDEN.test(read(`native/addon/${file}`)))).toEqual([]);
  for (const planted of [
    'napi_create_external_arraybuffer(env, data, n, nullptr, nullptr, &result);',
    'napi_create_external_buffer(env, n, data, nullptr, nullptr, &result);',
    'Napi::ArrayBuffer::New(info.Env(), data, bytes, [](Napi::Env, void*) {});',
    'Napi::ArrayBuffer::New(env, data, bytes)',
    'Napi::Buffer<float>::New(env, data, n)',
  ]) {
    expect(planted).toMatch(FORBIDDEN);
  }
  expect('Napi::Int32Array::New(env, n); Napi::ArrayBuffer::New(env, n)').not.toMatch(FORBIDDEN);
});

it('the headers are told so, and the addon as built imports no such call', () => {
  expect(read('CMakeLists.txt')).toMatch(/^\s*NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED\b/m);
  const resolve = createRequire(import.meta.url)('node-gyp-build') as { path(root: string): string };
  const binary = readFileSync(resolve.path(root)).toString('latin1');
  expect(binary).toContain('napi_create_arraybuffer'); // imports can be seen like this
  expect(binary).not.toMatch(/napi_create_external|node_api_create_external/);
});
