/** Where this package lies, and which of its paths native code can open. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The folder of package.json; both lib/ and dist/ lie in it. */
export const packageRoot = dirname(__dirname);

/** Whether this is a clone of the repository, not an installed package. */
export function isClone(): boolean {
  return existsSync(join(packageRoot, 'package-lock.json'));
}

/**
 * Electron shows an archive (`app.asar`) to JavaScript as a folder; to native code it is a file. What was unpacked
 * lies beside it in `app.asar.unpacked`: that path where it exists, else `path` as it is.
 */
export function unpacked(path: string): string {
  const outside = path.replace(/\.asar(?=[\\/])/, '.asar.unpacked');
  return outside !== path && existsSync(outside) ? outside : path;
}
