/**
 * One shape for three channels: Electron's utilityProcess, Node's child_process and worker_threads. Nothing here
 * imports Electron, so the same files run under plain Node.js.
 *
 * @import { ChildProcess } from 'node:child_process'
 * @import { Worker } from 'node:worker_threads'
 */
import { isMainThread, parentPort } from 'node:worker_threads';

/**
 * @typedef {object} HostPort The model process's end.
 * @property {(message: unknown) => void} send
 * @property {(listener: (message: unknown) => void) => void} onMessage
 * @property {(listener: () => void) => void} onClose The app is gone. Where the app's end takes this process along, never.
 *
 * @typedef {object} ModelPort The app's end.
 * @property {(message: unknown) => void} send Does nothing once the process has ended.
 * @property {(listener: (message: unknown) => void) => void} onMessage
 * @property {(listener: (reason: string) => void) => void} onExit Called once, however the process ended.
 * @property {() => void} kill Ends the process at once, whatever it is doing.
 * @property {number | undefined} pid Undefined for a worker, and for a process that has not started yet.
 *
 * @typedef {object} UtilityProcess What is used of Electron's class of that name.
 * @property {number | undefined} pid
 * @property {(message: unknown) => void} postMessage
 * @property {() => boolean} kill
 * @property {{
 *   (event: 'message', listener: (message: unknown) => void): unknown,
 *   (event: 'exit', listener: (code: number) => void): unknown,
 * }} on
 *
 * @typedef {object} ElectronParentPort What is used of `process.parentPort` in a utility process.
 * @property {(message: unknown) => void} postMessage
 * @property {(event: 'message', listener: (event: { data: unknown }) => void) => unknown} on
 */

/**
 * The channel to whatever started this process or thread.
 * @returns {HostPort}
 */
export function hostPort() {
  const utility = /** @type {{ parentPort?: ElectronParentPort }} */ (process).parentPort;
  if (utility) {
    return {
      send: (message) => {
        utility.postMessage(message);
      },
      onMessage: (listener) => {
        utility.on('message', ({ data }) => {
          listener(data);
        });
      },
      onClose: () => undefined,
    };
  }
  if (!isMainThread && parentPort) {
    const port = parentPort;
    return {
      send: (message) => {
        port.postMessage(message);
      },
      onMessage: (listener) => {
        port.on('message', listener);
      },
      onClose: () => undefined,
    };
  }
  if (process.send) {
    return {
      send: (message) => {
        // Without a callback, a channel that closes under way would be an 'error' event of the process.
        if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
      },
      onMessage: (listener) => {
        process.on('message', listener);
      },
      onClose: (listener) => {
        process.once('disconnect', listener);
      },
    };
  }
  throw new Error('start this file with utilityProcess.fork, child_process.fork or new Worker');
}

/**
 * @param {UtilityProcess} child From `utilityProcess.fork(file)`.
 * @returns {ModelPort}
 */
export function utilityProcessPort(child) {
  let ended = false;
  return {
    send: (message) => {
      if (!ended) child.postMessage(message);
    },
    onMessage: (listener) => {
      child.on('message', listener);
    },
    onExit: (listener) => {
      child.on('exit', (code) => {
        ended = true;
        listener(`exit code ${code}`);
      });
    },
    kill: () => {
      // UtilityProcess.kill asks politely, and a process that hangs in native code does not listen.
      if (ended) return;
      if (child.pid === undefined) {
        child.kill();
        return;
      }
      try {
        process.kill(child.pid, 'SIGKILL');
      } catch {
        // It has ended, and its exit event is under way.
      }
    },
    get pid() {
      return child.pid;
    },
  };
}

/**
 * @param {ChildProcess} child From `fork(file)`.
 * @returns {ModelPort}
 */
export function childProcessPort(child) {
  child.on('error', () => undefined); // what matters of it comes as 'exit', or as a message that has no answer
  return {
    send: (message) => {
      if (child.connected) child.send(/** @type {object} */ (message), () => undefined);
    },
    onMessage: (listener) => {
      child.on('message', listener);
    },
    onExit: (listener) => {
      let told = false;
      const tell = (/** @type {string} */ reason) => {
        if (!told) listener(reason);
        told = true;
      };
      child.once('exit', (code, signal) => {
        tell(signal === null ? `exit code ${String(code)}` : `signal ${signal}`);
      });
      child.once('error', (error) => {
        if (child.pid === undefined) tell(`it could not be started: ${error.message}`);
      });
    },
    kill: () => {
      child.kill('SIGKILL');
    },
    get pid() {
      return child.pid;
    },
  };
}

/**
 * A worker is a thread: it keeps work off the app's event loop, but a native crash in it ends the whole app.
 * @param {Worker} worker From `new Worker(file)`.
 * @returns {ModelPort}
 */
export function workerPort(worker) {
  let reason = '';
  worker.on('error', (error) => {
    reason = error instanceof Error ? error.message : String(error);
  });
  return {
    send: (message) => {
      worker.postMessage(message);
    },
    onMessage: (listener) => {
      worker.on('message', listener);
    },
    onExit: (listener) => {
      worker.once('exit', (code) => {
        listener(reason || `exit code ${code}`);
      });
    },
    kill: () => {
      void worker.terminate();
    },
    pid: undefined,
  };
}
