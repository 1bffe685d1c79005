/** Who may talk to the server. */
import { request } from 'node:http';

import { beforeAll, describe, expect, it } from 'vitest';

import type { Model } from '../../lib/model.js';
import { createServer } from '../../lib/server/server.js';
import { loadTiny, NAME, post, start, type Running } from './kit.js';

let model: Model;
beforeAll(async () => {
  model = await loadTiny();
});

describe('an API key', () => {
  const key = 'correct horse battery staple';
  let locked: Running;
  beforeAll(async () => {
    locked = await start(model, { apiKey: key });
  });
  const routes = [
    '/metrics',
    '/v1/models',
    `/v1/models/${NAME}`,
    '/v1/completions',
    '/v1/chat/completions',
    '/nothing',
    '/',
  ];

  it.each(routes)('is asked for: %s', async (route) => {
    const wrong = [
      '',
      `Bearer`,
      `Bearer ${key}x`,
      `Bearer ${key.slice(1)}`,
      key,
      `Basic ${key}`,
      `Bearer ${'x'.repeat(15_000)}`,
    ];
    for (const authorization of wrong) {
      for (const method of ['GET', 'POST']) {
        const response = await fetch(locked.url + route, { method, headers: { authorization } });
        expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
      }
    }
  });

  it('lets in', async () => {
    const headers = { authorization: `Bearer ${key}` };
    expect((await post(locked.url, '/v1/completions', { model: NAME, prompt: 'a' }, { headers })).status).toBe(200);
    expect((await fetch(`${locked.url}/metrics`, { headers })).status).toBe(200);
  });

  it('is not asked for by /health', async () => {
    expect((await fetch(`${locked.url}/health`)).status).toBe(200);
  });
});

/** Status for a request that names this host. */
function named({ port }: Running, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const options = { port, path: '/v1/models', headers: { host, origin: 'https://evil.com' } };
    request(options, (response) => {
      const cors = Object.keys(response.headers).filter((name) => name.startsWith('access-control'));
      expect(cors).toEqual([]);
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
  });
}

describe('the host that a request names', () => {
  it('is one of loopback on loopback, so that no page of another site gets in', async () => {
    const open = await start(model);
    for (const host of ['localhost', 'LOCALHOST:1', '127.0.0.1', `127.0.0.1:${open.port}`, '[::1]', '[::1]:80']) {
      expect(await named(open, host)).toBe(200);
    }
    for (const host of ['evil.com', '127.0.0.1.evil.com', 'localhost.evil.com', 'evil.com:80', '127.0.0.2', '[::2]']) {
      expect(await named(open, host)).toBe(403);
    }
  });

  it('can be allowed', async () => {
    const open = await start(model, { allowedHosts: ['models.example'] });
    expect(await named(open, 'models.example:80')).toBe(200);
    expect(await named(open, 'evil.com')).toBe(403);
  });
});

describe('an address outside of loopback', () => {
  it.each(['0.0.0.0', '::', '192.168.1.1', 'example.com', '127.evil.com'])('%s needs a key', (host) => {
    expect(() => createServer(model, { modelName: NAME, host })).toThrow(/needs an API key/);
  });

  it('takes any host with a key, or those that are allowed', async () => {
    const open = await start(model, { host: '0.0.0.0', apiKey: 'k' });
    expect(await named(open, 'anything.example')).toBe(401);
    const closed = await start(model, { host: '0.0.0.0', apiKey: 'k', allowedHosts: ['models.example'] });
    expect(await named(closed, 'anything.example')).toBe(403);
  });
});

describe('options', () => {
  it.each([
    { port: -1 },
    { port: 65536 },
    { maxChoices: 0 },
    { maxChoices: 1.5 },
    { apiKey: '' },
    { allowedHosts: ['https://x'] },
    { bodyLimit: 5 },
    { beamWidth: 65 },
    { onRequest: 5 },
    { modelName: '' },
    { nonsense: 1 },
  ])('%j is refused', (wrong) => {
    expect(() => createServer(model, { modelName: NAME, ...(wrong as object) })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }) as Error,
    );
  });

  it('an address in use is an error', async () => {
    const { port } = await start(model);
    const second = createServer(model, { modelName: NAME, port });
    await expect(second.listen()).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
});
