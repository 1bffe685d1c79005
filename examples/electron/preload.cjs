/**
 * What the page may do, and nothing else of Node.js or Electron. A sandboxed preload script must be CommonJS.
 */
'use strict';

const { contextBridge, ipcRenderer } = require('electron');

/**
 * @param {string} name
 * @returns {(...values: unknown[]) => Promise<unknown>}
 */
const call =
  (name) =>
  (...values) =>
    ipcRenderer.invoke(`redrafter:${name}`, ...values);

/**
 * @param {string} name
 * @returns {(listener: (value: unknown) => void) => void}
 */
const hear = (name) => (listener) => {
  ipcRenderer.on(`redrafter:${name}`, (_, value) => {
    listener(value);
  });
};

contextBridge.exposeInMainWorld('redrafter', {
  generate: call('generate'),
  abort: call('abort'),
  state: call('state'),
  start: call('start'),
  crash: call('crash'),
  onState: hear('state'),
  onChunk: hear('chunk'),
  onEnd: hear('end'),
});
