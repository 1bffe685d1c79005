import { fromThrown } from './errors.js';
import {
  native,
  type NativeBackendStatus as BackendStatus,
  type NativeInspection as Inspection,
  type NativeTensorInfo as TensorInfo,
} from './native.js';
import { checkPath } from './options.js';

export type { BackendStatus, Inspection, TensorInfo };

/** Which devices and instruction-set levels can be used here, and why others cannot. Throws ERR_NATIVE. */
export function backends(): BackendStatus[] {
  return native().backends();
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
 * Reads the configuration and the tensor headers of a model or drafter directory, not its weights. Throws
 * ERR_INVALID_ARGUMENT, ERR_FILE, ERR_CONFIG, ERR_MODEL_FORMAT, ERR_NATIVE.
 */
export function inspect(directory: string): Inspection {
  const path = checkPath('the directory', directory);
  const addon = native();
  try {
    return addon.inspect(path);
  } catch (error) {
    throw fromThrown(error);
  }
}
