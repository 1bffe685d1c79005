import type { Model } from '../model.js';
import type { OpenJobs } from './open-jobs.js';
import type { RequestLog } from './options.js';

/** Counts requests, and writes everything in the text form of Prometheus. Labels hold nothing that clients made up. */
export class Metrics {
  private readonly requests = new Map<string, number>();

  count({ route, status, code }: RequestLog): void {
    const labels = `route="${route}",status="${status}",code="${code ?? ''}"`;
    this.requests.set(labels, (this.requests.get(labels) ?? 0) + 1);
  }

  /** `model`: once it is loaded. */
  write(model: Model | undefined, jobs: OpenJobs): string {
    const out: string[] = [];
    const family = (
      name: string,
      type: 'counter' | 'gauge',
      help: string,
      samples: [labels: string, number][],
    ): void => {
      out.push(`# HELP redrafter_${name} ${help}`, `# TYPE redrafter_${name} ${type}`);
      for (const [labels, value] of samples) out.push(`redrafter_${name}${labels && `{${labels}}`} ${value}`);
    };
    const counter = (name: string, help: string, value: number): void => {
      family(name, 'counter', help, [['', value]]);
    };
    const gauge = (name: string, help: string, value: number): void => {
      family(name, 'gauge', help, [['', value]]);
    };
    family('requests_total', 'counter', 'Requests that have ended', [...this.requests]);
    gauge('requests_open', 'Requests that generate or wait to', jobs.count);
    if (model !== undefined) {
      const { totalBlocks, freeBlocks, prefixBlocks, evictedBlocks, blockTokens } = model.kvUsage();
      gauge('kv_tokens', 'Tokens that the KV cache holds', totalBlocks * blockTokens);
      gauge('kv_tokens_free', 'Of them, those of free blocks', freeBlocks * blockTokens);
      gauge('kv_tokens_prefixes', 'Of them, those of prefixes that no session holds', prefixBlocks * blockTokens);
      counter('kv_tokens_evicted_total', 'Tokens of prefixes that had to give way', evictedBlocks * blockTokens);
      const queue = model.queueUsage();
      gauge('engine_requests_waiting', 'Requests that wait in the engine', queue.waitingRequests);
      gauge('engine_tokens_waiting', 'Prompt tokens of these', queue.waitingTokens);
      gauge('engine_requests_active', 'Requests that take part in rounds or pause', queue.activeRequests);
      gauge('engine_requests_paused', 'Of them, those whose clients do not read', queue.pausedRequests);
      const { stats } = model;
      counter('prompt_tokens_total', 'Prompt tokens', stats.promptTokens);
      counter('prompt_tokens_reused_total', 'Of them, those that were in the KV cache', stats.reusedTokens);
      counter('generated_tokens_total', 'Tokens generated', stats.tokens);
      counter('rounds_total', 'Rounds of draft, verify and accept, summed over requests', stats.rounds);
      counter('drafted_nodes_total', 'Drafted tokens that were verified', stats.draftedNodes);
      const byDepth = (counts: number[]): [string, number][] => counts.map((n, d) => [`depth="${d + 1}"`, n]);
      family('drafted_total', 'counter', 'Rounds that drafted at this depth', byDepth(stats.draftedByDepth));
      family('accepted_total', 'counter', 'Rounds that accepted at this depth', byDepth(stats.acceptedByDepth));
      family('seconds_total', 'counter', 'Time of requests by phase, with a shared round in equal parts', [
        ['phase="queue"', stats.queuedMs / 1000],
        ['phase="prefill"', stats.prefillMs / 1000],
        ['phase="draft"', stats.draftMs / 1000],
        ['phase="verify"', stats.verifyMs / 1000],
        ['phase="host"', stats.hostMs / 1000],
      ]);
    }
    return `${out.join('\n')}\n`;
  }
}
