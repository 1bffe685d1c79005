import type { NativeUsage } from './native.js';

/** Use of a model's KV cache over all sessions. */
export interface KvUsage {
  /** Blocks the cache consists of. */
  totalBlocks: number;
  /** Blocks that hold nothing. */
  freeBlocks: number;
  /**
   * Blocks that hold prefixes which no session holds. A request that needs them takes them: what is available is
   * freeBlocks + prefixBlocks.
   */
  prefixBlocks: number;
  /** Tokens per block. */
  blockTokens: number;
  /** Bytes of all blocks, allocated at load. */
  totalBytes: number;
  /** Bytes of blocks that sessions hold; a block shared by several sessions counts once. */
  usedBytes: number;
  /** Bytes of prefixBlocks. */
  prefixBytes: number;
  /** Blocks of prefixes that were evicted since the model was loaded, because they were needed or too many. */
  evictedBlocks: number;
  /** Open sessions. */
  sessions: number;
}

/** Use of the KV cache by one session. */
export interface SessionKv {
  /** Tokens whose keys and values are cached: at most `session.tokens`, as the newest token is computed when needed. */
  tokens: number;
  /** Blocks they take, those shared with forks included. */
  blocks: number;
  /** Bytes of these blocks. */
  bytes: number;
  /** Of these blocks, those that other sessions hold too. */
  sharedBlocks: number;
}

export function usedBytesOf(native: NativeUsage): number {
  return (native.totalBlocks - native.freeBlocks - native.prefixBlocks) * native.bytesPerBlock;
}

export function kvUsageOf(native: NativeUsage): KvUsage {
  return {
    totalBlocks: native.totalBlocks,
    freeBlocks: native.freeBlocks,
    prefixBlocks: native.prefixBlocks,
    blockTokens: native.blockTokens,
    totalBytes: native.totalBlocks * native.bytesPerBlock,
    usedBytes: usedBytesOf(native),
    prefixBytes: native.prefixBlocks * native.bytesPerBlock,
    evictedBlocks: native.evictedBlocks,
    sessions: native.sessions,
  };
}

/** `native`: of that session. */
export function sessionKvOf(native: NativeUsage, tokens: number): SessionKv {
  const blocks = Math.ceil(tokens / native.blockTokens);
  return { tokens, blocks, bytes: blocks * native.bytesPerBlock, sharedBlocks: Math.min(native.sharedBlocks, blocks) };
}
