/** What the thread that carries out grammars is given, and what it says. */
export interface WorkerData {
  /** Of the model. */
  directory: string;
  vocab: number;
  /** See `NativeEngine.maskExchange`. */
  exchange: number;
}

export type ToWorker =
  /** A matcher for a request, whose text may end with these ids. */
  { type: 'open'; matcher: number; grammar: string; endings: Int32Array } | { type: 'close'; matcher: number };

export type FromWorker =
  { type: 'open'; matcher: number } | { type: 'refused'; matcher: number; code: string; message: string };
