/**
 * The app's main process: one window, one model process, and the messages between the two. The model itself, and all
 * that could crash with it, is in the model process.
 *
 * @import { IpcMainInvokeEvent } from 'electron'
 * @import { RemoteGeneration } from './model/model-client.mjs'
 * @import { GenerateData } from './model/protocol.mjs'
 * @import { State } from './model/supervisor.mjs'
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { app, BrowserWindow, ipcMain, utilityProcess } from 'electron';

import { utilityProcessPort } from './model/port.mjs';
import { errorData, ModelProcessError } from './model/protocol.mjs';
import { Supervisor } from './model/supervisor.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const MAX_PROMPT_CHARACTERS = 20_000;

/** Weights are read by native code, which sees files and not asar archives: in a packed app they lie beside the archive. */
const models = app.isPackaged
  ? join(process.resourcesPath, 'models')
  : join(dirname(createRequire(import.meta.url).resolve('redrafter/package.json')), 'models');
const model = join(models, 'ts-declarations');

/** @type {BrowserWindow | undefined} */
let window;

/**
 * @param {'state' | 'chunk' | 'end'} what
 * @param {unknown} value
 */
function tell(what, value) {
  if (window && !window.isDestroyed()) window.webContents.send(`redrafter:${what}`, value);
}

const supervisor = new Supervisor({
  start: () =>
    utilityProcessPort(utilityProcess.fork(join(here, 'model/model-process.mjs'), [], { serviceName: 'model' })),
  model,
  options: { drafter: join(model, 'drafter-gru') },
  onState: (/** @type {State} */ state) => {
    tell('state', state);
  },
});

/** What the window shows; it shows one at a time. @type {RemoteGeneration | undefined} */
let current;

/**
 * Passes a generation on to the window, chunk by chunk, and says how it ended.
 * @param {RemoteGeneration} generation
 */
async function stream(generation) {
  current = generation;
  try {
    for await (const { runs, tokenIds } of generation) tell('chunk', { runs, tokens: tokenIds.length });
    const { finishReason, stats } = await generation.result();
    tell('end', { finishReason, stats });
  } catch (error) {
    tell('end', { error: errorData(error) });
  } finally {
    current = undefined;
  }
}

/**
 * Answers a call of the window's own page, and of nothing else. The page gets errors as data.
 * @param {string} name
 * @param {(...values: unknown[]) => unknown} answer
 */
function handle(name, answer) {
  ipcMain.handle(`redrafter:${name}`, (/** @type {IpcMainInvokeEvent} */ event, ...values) => {
    if (!window || event.senderFrame !== window.webContents.mainFrame) return undefined;
    try {
      return { value: answer(...values) };
    } catch (error) {
      return { error: errorData(error) };
    }
  });
}

handle('generate', (prompt, options) => {
  if (typeof prompt !== 'string' || prompt.length > MAX_PROMPT_CHARACTERS) {
    throw new ModelProcessError(
      'ERR_INVALID_ARGUMENT',
      `the prompt must have at most ${MAX_PROMPT_CHARACTERS} characters`,
    );
  }
  if (current) throw new ModelProcessError('ERR_BUSY', 'a generation is running', 'stop it first');
  // Wrong options are for the engine to refuse, which names them.
  void stream(supervisor.client.generate(prompt, /** @type {GenerateData} */ (options)));
});
handle('abort', () => {
  current?.abort();
});
handle('state', () => supervisor.state);
handle('start', () => {
  supervisor.start();
});
handle('crash', () => {
  supervisor.kill();
});

function openWindow() {
  const opened = new BrowserWindow({
    width: 940,
    height: 720,
    title: 'redrafter',
    backgroundColor: '#10151d',
    webPreferences: {
      preload: join(here, 'preload.cjs'),
      contextIsolation: true,
      sandbox: true,
      nodeIntegration: false,
    },
  });
  opened.webContents.on('will-navigate', (event) => {
    event.preventDefault();
  });
  opened.webContents.setWindowOpenHandler(() => ({ action: 'deny' }));
  opened.webContents.session.setPermissionRequestHandler((_, _permission, answer) => {
    answer(false);
  });
  opened.on('closed', () => {
    if (window !== opened) return;
    window = undefined;
    current?.abort(); // on macOS the app stays, and nobody sees its text any more
  });
  window = opened;
  return opened.loadFile(join(here, 'renderer/index.html'));
}

let stopped = false;
app.on('before-quit', (event) => {
  if (stopped) return;
  event.preventDefault();
  void supervisor.stop().finally(() => {
    stopped = true;
    app.quit();
  });
});
app.on('window-all-closed', () => {
  if (process.platform !== 'darwin') app.quit();
});
app.on('activate', () => {
  if (BrowserWindow.getAllWindows().length === 0) void openWindow();
});

// Not awaited: Electron is not ready before this module has been evaluated.
void app.whenReady().then(() => {
  supervisor.start();
  return openWindow();
});
