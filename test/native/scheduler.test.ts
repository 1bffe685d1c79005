/**
 * Admission and rounds as pure decisions, in simulations with random requests: what docs/serving.md says of them is checked
 * after each decision. Planted schedulers show that the checks see what they should.
 */
import { describe, expect, it } from 'vitest';

import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';

interface Waiting {
  blocks: number;
  generates: boolean;
  overtaken: number;
}

interface Active {
  decodes: boolean;
  rows: number;
  idleRounds: number;
}

interface Limits {
  rows: number;
  promptChunk: number;
}

type NextAdmission = (waiting: Waiting[], freeBlocks: number, freeHidden: number) => number;
type PlanRows = (active: Active[], limits: Limits) => number[];

const scheduler = testing['scheduler'] as {
  turn: (submittedMs: number, priority: number) => number;
  nextAdmission: NextAdmission;
  planRows: PlanRows;
  maxOvertakes: number;
  lookAhead: number;
  maxPriority: number;
  priorityLevelMs: number;
};

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** What is wrong with the rows of one round. */
function roundBreaches(
  active: readonly Active[],
  { rows: most, promptChunk }: Limits,
  rows: readonly number[],
): string[] {
  const found: string[] = [];
  const of = (decodes: boolean): number[] => rows.filter((_, i) => active[i]?.decodes === decodes);
  const [trees, prompts] = [sum(of(true)), sum(of(false))];
  if (rows.length !== active.length) found.push('a list of another length');
  if (trees + prompts > most) found.push('more rows than a pass has');
  active.forEach(({ decodes, rows: wanted }, i) => {
    const given = rows[i] ?? -1;
    if (given < 0 || (decodes && given !== 0 && given !== wanted)) found.push('a part of a tree');
    if (!decodes && given > Math.min(wanted, promptChunk))
      found.push('more of a prompt than there is, or than a chunk');
  });
  const wantedTrees = sum(active.map(({ decodes, rows: wanted }) => (decodes ? wanted : 0)));
  const wantedPrompts = sum(active.map(({ decodes, rows: wanted }) => (decodes ? 0 : Math.min(wanted, promptChunk))));
  const decoding = active.filter(({ decodes }) => decodes).length;
  if (decoding > 0 && prompts > promptChunk) found.push('prompts hold up decoding by more than a chunk');
  const suffices = wantedTrees + (wantedPrompts > 0 ? Math.max(1, Math.floor(most / 4)) : 0) <= most;
  if (suffices && of(true).includes(0)) found.push('a request that decodes is left out although rows suffice');
  const budget = decoding > 0 ? Math.min(most - trees, promptChunk) : most - trees;
  if (prompts < Math.min(budget, wantedPrompts)) found.push('rows are left although prompts want them');
  if (active.length > 0 && trees + prompts === 0) found.push('an empty round');
  return found;
}

interface Job {
  prompt: number;
  decode: number;
  tree: number;
  idle: number;
  /** Longest that it was without rows, in rounds. */
  longest: number;
}

/** Rounds over jobs that come and end at random. */
function simulate(plan: PlanRows, seed: number): string[] {
  const random = new Random(seed);
  const most = random.integer(1, 300);
  const limits = { rows: most, promptChunk: random.integer(1, most + 1) };
  const found = new Set<string>();
  const jobs: Job[] = [];
  let seen = 0;
  for (let round = 0; round < 300; round++) {
    if (round < 200 && jobs.length < 30) {
      for (let i = random.integer(0, 3); i > 0; i--) {
        const prompt = random.integer(0, 4) === 0 ? random.integer(1, 2000) : random.integer(1, 60);
        const tree = random.integer(1, Math.min(most, 70) + 1);
        jobs.push({ prompt, decode: random.integer(1, 60), tree, idle: 1, longest: 0 });
        seen = Math.max(seen, jobs.length);
      }
    }
    if (jobs.length === 0) continue;
    const active = jobs.map(({ prompt, tree, idle }) => ({
      decodes: prompt === 0,
      rows: prompt > 0 ? prompt : tree,
      idleRounds: idle,
    }));
    const rows = plan(active, limits);
    for (const breach of roundBreaches(active, limits, rows)) found.add(breach);
    jobs.forEach((job, i) => {
      const given = rows[i] ?? 0;
      job.idle = given > 0 ? 0 : job.idle + 1;
      job.longest = Math.max(job.longest, job.idle);
      if (job.prompt > 0) job.prompt -= given;
      else if (given > 0) job.decode--;
    });
    // In turn, at worst alone in every other round.
    if (jobs.some(({ longest }) => longest > 2 * seen + 4)) found.add('somebody starves');
    for (let i = jobs.length - 1; i >= 0; i--) if (jobs[i]?.decode === 0) jobs.splice(i, 1);
  }
  return [...found];
}

describe('rounds', () => {
  it('are what they should be for random requests and limits', () => {
    for (let seed = 0; seed < 300; seed++) expect([seed, ...simulate(scheduler.planRows, seed)]).toEqual([seed]);
  });

  it('and the checks see planted faults', () => {
    const planted: Record<string, PlanRows> = {
      'prompts hold up decoding by more than a chunk': (active, limits) =>
        scheduler.planRows(active, { ...limits, promptChunk: 2 * limits.promptChunk }),
      'more rows than a pass has': (active, limits) => scheduler.planRows(active, { ...limits, rows: limits.rows + 1 }),
      'somebody starves': (active, limits) =>
        scheduler.planRows(active.map((each) => ({ ...each, idleRounds: 0 })), limits), // prettier-ignore
      'a request that decodes is left out although rows suffice': (active, limits) => {
        const rows = scheduler.planRows(active, limits);
        const last = active.findLastIndex(({ decodes }) => decodes);
        return rows.map((given, i) => (i === last ? 0 : given));
      },
      'rows are left although prompts want them': (active, limits) =>
        scheduler
          .planRows(active, limits)
          .map((given, i) => (active[i]?.decodes === false && given > 1 ? given - 1 : given)),
      'a part of a tree': (active, limits) =>
        scheduler
          .planRows(active, limits)
          .map((given, i) => (active[i]?.decodes === true && given > 1 ? given - 1 : given)),
    };
    for (const [breach, plan] of Object.entries(planted)) {
      const found = new Set(Array.from({ length: 40 }, (_, seed) => simulate(plan, seed)).flat());
      expect([...found], breach).toContain(breach);
    }
  });

  const decoding = (rows: number, idleRounds = 0): Active => ({ decodes: true, rows, idleRounds });
  const reading = (rows: number, idleRounds = 0): Active => ({ decodes: false, rows, idleRounds });

  it('share a chunk: the first in turn goes on quickly, and short prompts need not wait for it', () => {
    const limits = { rows: 513, promptChunk: 256 };
    expect(scheduler.planRows([reading(1000), reading(10)], limits)).toEqual([256, 10]);
    expect(scheduler.planRows([decoding(5), reading(1000), reading(10)], limits)).toEqual([5, 246, 10]);
    const four = scheduler.planRows([decoding(1), reading(1000), reading(1000), reading(1000), reading(10)], limits);
    expect(four).toEqual([1, 32 + 150, 32, 32, 10]); // shares of a half; what the last one leaves goes in turn
  });

  it('take turns where shares would be too small', () => {
    const limits = { rows: 513, promptChunk: 64 };
    let idle = Array<number>(20).fill(1);
    const got = Array<number>(20).fill(0);
    for (let round = 0; round < 10; round++) {
      const rows = scheduler.planRows([decoding(1), ...idle.map((each) => reading(1000, each))], limits).slice(1);
      rows.forEach((given, i) => (got[i] = (got[i] ?? 0) + given));
      idle = idle.map((each, i) => ((rows[i] ?? 0) > 0 ? 0 : each + 1));
    }
    expect(Math.min(...got)).toBeGreaterThanOrEqual(16);
    expect(got[0]).toBe(Math.max(...got));
  });

  it('let those that decode take turns when a pass is too small, and let prompts in between', () => {
    const limits = { rows: 100, promptChunk: 50 };
    expect(scheduler.planRows([decoding(60), decoding(60, 1), reading(30, 0)], limits)).toEqual([0, 60, 30]);
    expect(scheduler.planRows([decoding(100), reading(30, 0)], limits)).toEqual([100, 0]);
    expect(scheduler.planRows([decoding(100), reading(30, 1)], limits)).toEqual([0, 30]);
    expect(scheduler.planRows([decoding(75), reading(30, 1)], limits)).toEqual([75, 25]);
  });
});

interface Request extends Waiting {
  turn: number;
  ends: number;
}

/** A cache of 64 blocks, and requests that come all the time, more than fit; one needs all of it. */
function overtakesOf(next: NextAdmission, seed: number): number | undefined {
  const random = new Random(seed);
  const waiting: Request[] = [];
  const active: Request[] = [];
  const big: Request = { blocks: 64, generates: true, overtaken: 0, turn: 50, ends: 0 };
  for (let time = 0; time < 3000; time++) {
    if (time === big.turn) waiting.push(big);
    if (waiting.length < 200)
      waiting.push({
        blocks: random.integer(1, 20),
        generates: random.integer(0, 2) === 0,
        overtaken: 0,
        turn: time,
        ends: 0,
      });
    for (let i = active.length - 1; i >= 0; i--) if ((active[i]?.ends ?? 0) <= time) active.splice(i, 1);
    for (;;) {
      const free = 64 - sum(active.map(({ blocks }) => blocks));
      const index = next(waiting.slice(0, scheduler.lookAhead), free, 100 - active.length);
      if (index < 0) break;
      const [admitted] = waiting.splice(index, 1);
      if (admitted === undefined || admitted.blocks > free) throw new Error('admitted what does not fit');
      for (const each of waiting.slice(0, index)) each.overtaken++;
      if (admitted === big) return big.overtaken;
      admitted.ends = time + random.integer(1, 30);
      active.push(admitted);
    }
  }
  return undefined; // it was never admitted
}

describe('admission', () => {
  it('lets no more than a bounded number pass one that does not fit', () => {
    for (let seed = 0; seed < 100; seed++) {
      const overtakes = overtakesOf(scheduler.nextAdmission, seed);
      expect(overtakes).toBeDefined();
      expect(overtakes).toBeLessThanOrEqual(scheduler.maxOvertakes);
      expect(overtakes).toBeGreaterThan(0); // blocks that are too few for it are of use
    }
  });

  it('would starve it without that bound', () => {
    const greedy: NextAdmission = (waiting, free) => waiting.findIndex(({ blocks }) => blocks <= free);
    const starved = Array.from({ length: 20 }, (_, seed) => overtakesOf(greedy, seed));
    expect(starved).toContain(undefined);
  });

  it('needs blocks, and for generations a row of hidden states', () => {
    const next = scheduler.nextAdmission;
    const request = (blocks: number, generates = true, overtaken = 0): Waiting => ({ blocks, generates, overtaken });
    expect(next([], 10, 10)).toBe(-1);
    expect(next([request(10)], 10, 1)).toBe(0);
    expect(next([request(11)], 10, 1)).toBe(-1);
    expect(next([request(0)], 0, 0)).toBe(-1);
    expect(next([request(1), request(1, false)], 10, 0)).toBe(1);
    expect(next([request(11), request(1)], 10, 1)).toBe(1);
    expect(next([request(11, true, scheduler.maxOvertakes), request(1)], 10, 1)).toBe(-1);
    expect(next([request(11), request(11, true, scheduler.maxOvertakes), request(1)], 10, 1)).toBe(-1);
  });
});

describe('turns', () => {
  /** One request is carried out per 100 ms, and one of high priority comes as often: who is admitted when? */
  function waitOfLow(turn: (submitted: number, priority: number) => number): number | undefined {
    const low = { submitted: 1000, priority: -scheduler.maxPriority };
    const waiting = [low];
    for (let now = 1000; now < 120_000; now += 100) {
      waiting.push({ submitted: now, priority: scheduler.maxPriority });
      waiting.sort((a, b) => turn(a.submitted, a.priority) - turn(b.submitted, b.priority));
      if (waiting.shift() === low) return now - low.submitted;
    }
    return undefined;
  }

  it('nobody starves behind a stream of high priority', () => {
    const most = 2 * scheduler.maxPriority * scheduler.priorityLevelMs;
    const waited = waitOfLow(scheduler.turn);
    expect(waited).toBeGreaterThan(most - 200);
    expect(waited).toBeLessThanOrEqual(most + 200);
  });

  it('would starve if waiting did not count', () => {
    expect(waitOfLow((_, priority) => -priority)).toBe(undefined);
  });

  it('higher priority goes first, and a level is worth a second', () => {
    expect(scheduler.turn(5000, 1)).toBe(4000);
    expect(scheduler.turn(5000, -2)).toBe(7000);
    expect(scheduler.turn(5000, 0)).toBe(5000);
  });
});
