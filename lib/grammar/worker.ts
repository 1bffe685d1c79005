/**
 * The thread that carries out grammars for one engine. It holds vocabulary, compiled grammars and a matcher for each request;
 * while there is one it waits in native code to be asked for masks.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';

import { fromThrown } from '../errors.js';
import { native } from '../native.js';
import { Tokenizer } from '../tokenizer.js';
import { Compiler, type GrammarMatcher } from './compiler.js';
import { answerTo } from './masks.js';
import type { FromWorker, ToWorker, WorkerData } from './messages.js';

/** How long a request, or the end of the thread, may have to wait while nobody asks for masks. */
const PATIENCE_MS = 20;
const NOTHING: Int32Array = new Int32Array(0);

const { directory, vocab, exchange } = workerData as WorkerData;
const port = parentPort as MessagePort;
const addon = native();
const matchers = new Map<number, GrammarMatcher>();
let compiler: Promise<Compiler> | undefined;

async function createCompiler(): Promise<Compiler> {
  const tokenizer = await Tokenizer.load(directory, vocab);
  if (tokenizer === null) throw new Error('the model directory has lost its tokenizer.json');
  return Compiler.create(tokenizer, vocab);
}

async function handle(message: ToWorker): Promise<void> {
  if (message.type === 'close') {
    matchers.get(message.matcher)?.dispose();
    matchers.delete(message.matcher);
    return;
  }
  const reply = (answer: FromWorker): void => {
    port.postMessage(answer);
  };
  try {
    const matcher = await (await (compiler ??= createCompiler())).matcher(message.grammar, message.endings);
    matchers.set(message.matcher, matcher);
    reply({ type: 'open', matcher: message.matcher });
  } catch (error) {
    const { code, message: text } = fromThrown(error);
    if (code !== 'ERR_GRAMMAR' && code !== 'ERR_TOKENIZER') throw error;
    reply({ type: 'refused', matcher: message.matcher, code, message: text });
  }
}

const queue: ToWorker[] = [];
let running = false;

/** Serves masks while there are matchers, and takes messages where that holds nobody up. */
async function run(): Promise<void> {
  if (running) return;
  running = true;
  for (let answer = NOTHING; ;) {
    for (let got; (got = receiveMessageOnPort(port) as { message: ToWorker } | undefined) !== undefined;) {
      queue.push(got.message);
    }
    let question: Int32Array = NOTHING;
    if (matchers.size > 0) question = addon.nextMasks(exchange, answer, queue.length === 0 ? PATIENCE_MS : 0);
    else if (queue.length === 0) break;
    answer = NOTHING;
    if (question.length === 1) {
      port.close(); // the engine is closed
      return;
    }
    if (question.length > 0) answer = await answerTo(question, matchers);
    else await handleNext();
  }
  running = false;
}

async function handleNext(): Promise<void> {
  const message = queue.shift();
  if (message !== undefined) await handle(message);
}

port.on('message', (message: ToWorker) => {
  queue.push(message);
  void run();
});
// What an earlier thread of this engine left behind is over.
addon.nextMasks(exchange, NOTHING, 0);
