import type { GenerationStats } from 'redrafter';

import type { ErrorData, Run } from '../model/protocol.mjs';
import type { State } from '../model/supervisor.mjs';

/** The answer to a call: errors come as data, because Electron strips the fields of those that are thrown. */
export interface Reply<T> {
  value?: T;
  error?: ErrorData;
}

export interface PageOptions {
  maxTokens: number;
  temperature: number;
  drafting: boolean;
}

/** One round: its text, and how many tokens it gave. */
export interface ChunkData {
  runs: Run[];
  tokens: number;
}

export interface EndData {
  error?: ErrorData;
  finishReason?: string;
  stats?: GenerationStats;
}

/** What preload.cjs gives to the page. */
export interface Bridge {
  generate(prompt: string, options: PageOptions): Promise<Reply<undefined>>;
  abort(): Promise<Reply<undefined>>;
  state(): Promise<Reply<State>>;
  start(): Promise<Reply<undefined>>;
  crash(): Promise<Reply<undefined>>;
  onState(listener: (state: State) => void): void;
  onChunk(listener: (chunk: ChunkData) => void): void;
  onEnd(listener: (end: EndData) => void): void;
}

declare global {
  interface Window {
    redrafter: Bridge;
  }
}
