import { CallSite, fromThrown } from './errors.js';
import {
  type BackendReason,
  type BackendReasonCode,
  native,
  type NativeInspection as Inspection,
  type NativeTensorInfo as TensorInfo,
} from './native.js';
import { checkPath } from './options.js';

export type { BackendReason, BackendReasonCode, Inspection, TensorInfo };

/** One way to run a model: a backend, or one instruction-set level of the CPU backend. */
export interface BackendStatus {
  /** The value of the option `device` that takes exactly this: `'cpu:avx512'`, `'cuda'`. */
  device: string;
  /** Where it computes. */
  backend: 'cpu' | 'cuda';
  /** Instruction-set level of the CPU backend (`'avx512vnni'`, `'avx512'`, `'avx2'`, `'neon'`, `'base'`); null where there are none. */
  level: string | null;
  /** Whether it can be used here. */
  available: boolean;
  /**
   * Whether device `'auto'` takes this one: CUDA when it can be used, else the fastest level of the CPU. Exactly one is
   * selected. A model that finds too little memory of the device still goes to the CPU (`model.info.deviceReason`).
   */
  selected: boolean;
  /** Why it cannot be used; null when it can. */
  reason: null | BackendReason;
}

/**
 * The backends and levels there are, those of the CPU with the fastest first, and why some cannot be used here. `cuda` is the
 * first device. It is available when a program of its own (`redrafter_cuda_probe`) has opened the CUDA library and had the
 * device compute what is known; what that finds holds for the life of the process. So the first call, or load with `'auto'` or
 * `'cuda'`, takes some seconds where there is a device, at most 30; where there is no CUDA library it takes no time.
 * Throws ERR_NATIVE.
 */
export function getBackends(): BackendStatus[] {
  return native().getBackends();
}

/** Instruction-set extensions of this processor that redrafter can use. Throws ERR_NATIVE. */
export function cpuFeatures(): string[] {
  return native().cpuFeatures();
}

/** Version of the native addon. Throws ERR_NATIVE. */
export function version(): string {
  return native().version;
}

/**
 * Reads the configuration and the tensor headers of a model or drafter directory, not its weights, on a thread of its
 * own. Rejects with ERR_INVALID_ARGUMENT, ERR_FILE, ERR_CONFIG, ERR_MODEL_FORMAT, ERR_OOM, ERR_NATIVE.
 */
export async function inspect(directory: string): Promise<Inspection> {
  const site = new CallSite();
  try {
    return await native().inspect(checkPath('the directory', directory));
  } catch (error) {
    throw site.mark(fromThrown(error));
  }
}
