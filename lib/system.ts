import { CallSite, fromThrown } from './errors.js';
import {
  type BackendReasonCode,
  native,
  type NativeInspection as Inspection,
  type NativeTensorInfo as TensorInfo,
} from './native.js';
import { checkPath } from './options.js';

export type { BackendReasonCode, Inspection, TensorInfo };

/** One way to run a model: a backend, or one instruction-set level of the CPU backend. */
export interface BackendStatus {
  /** The value of the option `device` that takes exactly this: `'cpu:avx512'`, `'cuda'`. */
  device: string;
  /** Where it computes. */
  backend: 'cpu' | 'cuda';
  /** Instruction-set level of the CPU backend (`'avx512'`, `'avx2'`, `'neon'`, `'base'`); null where there are none. */
  level: string | null;
  /** Whether it can be used here. */
  available: boolean;
  /** Whether device `'auto'` takes this one. Exactly one is selected, and never CUDA: that has never run on a device. */
  selected: boolean;
  /** Why it cannot be used; null when it can. */
  reason: null | {
    /** For programs. */
    code: BackendReasonCode;
    /** For people; may change. */
    message: string;
  };
}

/**
 * The backends and levels there are, those of the CPU with the fastest first, and why some cannot be used here. CUDA is
 * available where its library and a device are there; models load on it when asked to, but `'auto'` stays on the CPU,
 * because the CUDA backend has never run on a device. The first call looks for devices, which starts the driver where there
 * is one. Throws ERR_NATIVE.
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
