/** The program of a child process: gets one task from its parent, answers, ends; also when the parent is gone. */
import { fromThrown } from '../errors.js';
import { readBandwidth } from './bandwidth.js';
import { measure, type TrialResult, type TrialSpec } from './measure.js';

export type Task = { kind: 'trial'; spec: TrialSpec } | { kind: 'bandwidth'; threads: number };
export type Answer =
  | { kind: 'trial'; result: TrialResult }
  | { kind: 'bandwidth'; bytesPerSecond: number }
  | { kind: 'error'; code: string; message: string; remedy: string };

async function answer(task: Task): Promise<Answer> {
  try {
    if (task.kind === 'trial') return { kind: 'trial', result: await measure(task.spec) };
    return { kind: 'bandwidth', bytesPerSecond: await readBandwidth(task.threads) };
  } catch (thrown) {
    const { code, message, remedy } = fromThrown(thrown);
    return { kind: 'error', code, message, remedy };
  }
}

process.on('disconnect', () => process.exit(1));
process.once('message', (task: Task) => {
  void answer(task).then((message) => process.send?.(message, () => process.exit(0)));
});
