/** The scripts of bench/ say what they do and take, and refuse what they cannot take before they measure. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

const directory = join(import.meta.dirname, '../../bench');
const scripts = [...readdirSync(directory), 'e2e/load.mjs', 'peers/main.mjs'].filter(
  (name) => name.endsWith('.mjs') && readFileSync(join(directory, name), 'utf8').includes('new Command('),
);

const start = (name: string, args: string[]) =>
  spawnSync(process.execPath, [join(directory, name), ...args], { encoding: 'utf8' });

describe('scripts that measure', () => {
  it('are these', () => {
    expect(scripts).toEqual(
      expect.arrayContaining(['acceptance.mjs', 'adaptive.mjs', 'event-loop.mjs', 'perplexity.mjs', 'peers/main.mjs']),
    );
  });

  it.each(scripts)('%s has --help', (name) => {
    const { status, stdout, stderr } = start(name, ['--help']);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toContain('Usage: ');
  });

  it.each(scripts)('%s refuses an option that it does not have', (name) => {
    const { status, stdout, stderr } = start(name, ['--no-such-option']);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toContain("unknown option '--no-such-option'");
  });

  it.each([
    ['adaptive.mjs', '--batches', '1,0', 'must be a whole number above 0'],
    ['adaptive.mjs', '--drafters', 'trained,other', 'must be of trained,random,none'],
    ['adaptive.mjs', '--seconds', '0', 'must be above 0'],
    ['perplexity.mjs', '--dtypes', 'q9_9', 'must be of f32,f16,bf16,q8_0,q4_0'],
    ['acceptance.mjs', '--drafter-dtype', 'f64', 'Allowed choices are auto, f32'],
    ['event-loop.mjs', '--seconds', 'soon', 'must be a number, 0 or above'],
  ])('%s refuses %s %s', (name, option, value, why) => {
    const { status, stderr } = start(name, [`${option}=${value}`]);
    expect(status).toBe(1);
    expect(stderr).toContain(why);
  });
});
