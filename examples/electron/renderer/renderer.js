/**
 * The page: asks for a generation, shows its text as it comes, with the drafted tokens coloured, and the state of the
 * model process. It knows nothing of Node.js; `window.redrafter` comes from preload.cjs.
 *
 * @import { ChunkData, EndData } from './bridge.d.ts'
 * @import { ErrorData } from '../model/protocol.mjs'
 * @import { State } from '../model/supervisor.mjs'
 */
'use strict';

const bridge = window.redrafter;

/**
 * @param {string} id
 */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

const output = element('output');
const notice = element('notice');
const prompt = /** @type {HTMLTextAreaElement} */ (element('prompt'));
const maxTokens = /** @type {HTMLInputElement} */ (element('max-tokens'));
const temperature = /** @type {HTMLInputElement} */ (element('temperature'));
const drafting = /** @type {HTMLInputElement} */ (element('drafting'));
const progress = /** @type {HTMLProgressElement} */ (element('progress'));
const buttons = {
  generate: /** @type {HTMLButtonElement} */ (element('generate')),
  stop: /** @type {HTMLButtonElement} */ (element('stop')),
  crash: /** @type {HTMLButtonElement} */ (element('crash')),
};

let ready = false;
let running = false;
let failed = false;
/** When the process became ready, in milliseconds of `performance.now()`. @type {number | undefined} */
let readySince;
/** Of the running generation; the first chunk is the prompt's and counts for no step. */
let count = { tokens: 0, steps: -1, since: 0 };

function update() {
  buttons.generate.disabled = running || !(ready || failed);
  buttons.generate.textContent = failed ? 'Start again' : 'Generate';
  buttons.stop.disabled = !running;
  buttons.crash.disabled = !ready;
}

/** @param {string | undefined} text */
function say(text) {
  notice.hidden = text === undefined;
  notice.textContent = text ?? '';
}

/** @param {ErrorData} error */
const describe = ({ code, message, remedy }) => `${message} [${code}]${remedy === null ? '' : `: ${remedy}`}`;

/**
 * @param {string} className
 * @param {string} text
 */
function write(className, text) {
  const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  const span = document.createElement('span');
  span.className = className;
  span.textContent = text;
  output.append(span);
  if (atEnd) output.scrollTop = output.scrollHeight;
}

/**
 * @param {number} tokens
 * @param {number} perStep
 * @param {number} perSecond
 */
function show(tokens, perStep, perSecond) {
  element('tokens').textContent = String(tokens);
  element('per-step').textContent = perStep > 0 ? perStep.toFixed(2) : '–';
  element('speed').textContent = perSecond > 0 ? perSecond.toFixed(0) : '–';
}

/** @param {State} state */
function words(state) {
  switch (state.name) {
    case 'loading':
      return `loading ${Math.floor(state.fraction * 100)} %`;
    case 'ready': {
      const { family, dtype, device, level } = state.info;
      return `ready · pid ${state.pid} · ${family} ${dtype} on ${device} ${level}`;
    }
    case 'restarting':
      return `restarting in ${(state.delayMs / 1000).toFixed(1)} s · attempt ${state.attempt}`;
    default:
      return state.name;
  }
}

/** @param {State} state */
function showState(state) {
  ready = state.name === 'ready';
  failed = state.name === 'failed';
  readySince = ready ? performance.now() : undefined;
  element('state').dataset.state = state.name;
  element('state-words').textContent = `model process: ${words(state)}`;
  progress.hidden = state.name !== 'loading';
  if (state.name === 'loading') progress.value = state.fraction;
  if (state.name === 'failed') say(describe(state.error));
  if (state.name === 'restarting')
    say(`The model process ended (${state.reason}). This window and its text are still here.`);
  if (ready && !running) say(undefined);
  update();
}

async function generate() {
  say(undefined);
  running = true;
  count = { tokens: 0, steps: -1, since: 0 };
  output.replaceChildren();
  write('prompt', prompt.value);
  show(0, 0, 0);
  update();
  const reply = await bridge.generate(prompt.value, {
    maxTokens: maxTokens.valueAsNumber,
    temperature: temperature.valueAsNumber,
    drafting: drafting.checked,
  });
  if (reply.error) end({ error: reply.error });
}

/** @param {ChunkData} chunk */
function chunk({ runs, tokens }) {
  for (const { text, drafted } of runs) write(drafted ? 'drafted' : 'own', text);
  if (tokens === 0) return;
  count.tokens += tokens;
  count.steps++;
  if (count.steps === 0) count.since = performance.now();
  const seconds = (performance.now() - count.since) / 1000;
  const decoded = count.tokens - 1;
  show(count.tokens, count.steps > 0 ? decoded / count.steps : 0, seconds > 0.1 ? decoded / seconds : 0);
}

/** @param {EndData} end */
function end({ error, stats }) {
  running = false;
  if (stats) show(stats.tokens, stats.tokensPerStep, stats.tokensPerSecond);
  if (error && error.code !== 'ERR_PROCESS_GONE') say(describe(error)); // of a process that ended, its state tells
  update();
}

/** @param {number} milliseconds */
function clock(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

setInterval(() => {
  element('window-up').textContent = clock(performance.now());
  element('process-up').textContent = readySince === undefined ? '–' : clock(performance.now() - readySince);
}, 250);

element('form').addEventListener('submit', (event) => {
  event.preventDefault();
  void (failed ? bridge.start() : generate());
});
buttons.stop.addEventListener('click', () => void bridge.abort());
buttons.crash.addEventListener('click', () => void bridge.crash());
bridge.onState(showState);
bridge.onChunk(chunk);
bridge.onEnd(end);
void bridge.state().then(({ value }) => {
  if (value) showState(value);
});
