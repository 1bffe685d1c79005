import type { NativeUsage } from './native.js';

/** Use of a model's KV cache over all sessions. */
export interface KvUsage {
  /** Blocks the cache consists of. */
  totalBlocks: number;
  /** Blocks that no session holds. */
  freeBlocks: number;
  /** Tokens per block. */
  blockTokens: number;
  /** Bytes of all blocks, allocated at load. */
  totalBytes: number;
  /** Bytes of blocks that are in use; a block shared by several sessions counts once. */
  usedBytes: number;
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
}

export function kvUsageOf(native: NativeUsage): KvUsage {
  return {
    totalBlocks: native.totalBlocks,
    freeBlocks: native.freeBlocks,
    blockTokens: native.blockTokens,
    totalBytes: native.totalBlocks * native.bytesPerBlock,
    usedBytes: (native.totalBlocks - native.freeBlocks) * native.bytesPerBlock,
    sessions: native.sessions,
  };
}

export function sessionKvOf(native: NativeUsage, tokens: number): SessionKv {
  const blocks = Math.ceil(tokens / native.blockTokens);
  return { tokens, blocks, bytes: blocks * native.bytesPerBlock };
}
