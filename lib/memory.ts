import { CallSite, fromThrown } from './errors.js';
import { usedBytesOf } from './kv.js';
import { native, type NativeMemory as MemoryEstimate, type NativeUsage } from './native.js';
import type { MemoryOptions } from './option-types.js';
import { resolveEngine } from './options.js';

export type { MemoryEstimate };

/** Memory of a loaded model, in bytes. */
export interface MemoryUsage extends MemoryEstimate {
  /** The part of `kvBytes` that sessions use now. */
  kvUsedBytes: number;
}

/**
 * How much memory `Model.load` would take with the same options: exactly what `model.memoryUsage()` says then. Reads the
 * configuration and the tensor headers, not the weights, and checks them as loading does; works on a thread of its own.
 * With device `'auto'` it is for the device that would be taken now, which depends on how much memory of a CUDA device is free.
 * Rejects with ERR_INVALID_ARGUMENT, ERR_FILE, ERR_MODEL_FORMAT, ERR_CONFIG, ERR_DRAFTER, ERR_BACKEND, ERR_OOM,
 * ERR_NATIVE.
 */
export async function estimateMemory(directory: string, options?: MemoryOptions): Promise<MemoryEstimate> {
  const site = new CallSite();
  try {
    return await native().estimateMemory(resolveEngine(directory, options));
  } catch (error) {
    throw site.mark(fromThrown(error));
  }
}

export function memoryUsageOf(memory: MemoryEstimate, kv: NativeUsage): MemoryUsage {
  return { ...memory, kvUsedBytes: usedBytesOf(kv) };
}
