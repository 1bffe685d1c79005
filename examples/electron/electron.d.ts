/**
 * What this example uses of Electron, so that its files are type-checked where Electron is not installed. An app of
 * your own has no need of it: Electron brings its types along.
 */
declare module 'electron' {
  interface Frame {
    readonly url: string;
  }

  interface WebContents {
    readonly mainFrame: Frame;
    send(channel: string, ...values: unknown[]): void;
    isDestroyed(): boolean;
    on(event: 'will-navigate', listener: (event: { preventDefault(): void }) => void): this;
    on(event: 'did-finish-load', listener: () => void): this;
    setWindowOpenHandler(handler: () => { action: 'deny' }): void;
    readonly session: {
      setPermissionRequestHandler(
        handler: (w: WebContents, permission: string, answer: (ok: boolean) => void) => void,
      ): void;
    };
  }

  interface IpcMainInvokeEvent {
    readonly senderFrame: Frame | null;
  }

  export class BrowserWindow {
    constructor(options: {
      width: number;
      height: number;
      title: string;
      backgroundColor: string;
      webPreferences: { preload: string; contextIsolation: true; sandbox: true; nodeIntegration: false };
    });
    static getAllWindows(): BrowserWindow[];
    readonly webContents: WebContents;
    loadFile(path: string): Promise<void>;
    isDestroyed(): boolean;
    on(event: 'closed', listener: () => void): this;
  }

  interface UtilityProcess {
    readonly pid: number | undefined;
    postMessage(message: unknown): void;
    kill(): boolean;
    on(event: 'exit', listener: (code: number) => void): this;
    on(event: 'message', listener: (message: unknown) => void): this;
  }

  export const app: {
    readonly isPackaged: boolean;
    whenReady(): Promise<void>;
    quit(): void;
    on(event: 'before-quit', listener: (event: { preventDefault(): void }) => void): void;
    on(event: 'window-all-closed' | 'activate', listener: () => void): void;
  };
  export const utilityProcess: {
    fork(path: string, args?: string[], options?: { serviceName?: string }): UtilityProcess;
  };
  export const ipcMain: {
    handle(channel: string, listener: (event: IpcMainInvokeEvent, ...values: unknown[]) => unknown): void;
  };
  export const ipcRenderer: {
    invoke(channel: string, ...values: unknown[]): Promise<unknown>;
    on(channel: string, listener: (event: unknown, ...values: unknown[]) => void): void;
  };
  export const contextBridge: { exposeInMainWorld(name: string, api: object): void };
}

declare namespace NodeJS {
  interface Process {
    /** Where a packed app has its extra resources. */
    readonly resourcesPath: string;
  }
}
