import type { ChatMessage } from '../chat.js';
import { invalid } from '../errors.js';
import type { CallOptions, Message, Warning } from './spec.js';

/** Parts that are left out with a warning instead of being refused: chat templates drop past reasoning as well. */
const LEFT_OUT = new Set(['reasoning']);

/**
 * A prompt as messages for the chat template. The text parts of a message are put together without a separator.
 * Reasoning of earlier answers is left out, with a warning. Throws ERR_INVALID_ARGUMENT for files, tools and whatever
 * else is not text, and for no messages at all.
 */
export function toMessages(prompt: CallOptions['prompt'], warnings: Warning[]): ChatMessage[] {
  if (prompt.length === 0) throw invalid('prompt must have at least one message');
  const leftOut = new Set<string>();
  const messages = prompt.map((message, i) => {
    if (message.role === 'tool') throw invalid(`prompt[${i}] is a tool result: tools are not supported`);
    return { role: message.role, content: textOf(message, `prompt[${i}]`, leftOut) };
  });
  for (const type of leftOut) {
    warnings.push({ type: 'unsupported', feature: `${type} in the prompt`, details: 'it was left out' });
  }
  return messages;
}

function textOf({ content }: Exclude<Message, { role: 'tool' }>, where: string, leftOut: Set<string>): string {
  if (typeof content === 'string') return content;
  const texts = content.map((part, i) => {
    if (part.type === 'text') return part.text;
    if (!LEFT_OUT.has(part.type)) {
      throw invalid(`${where}.content[${i}] is a part of type ${part.type}: only text is supported`);
    }
    leftOut.add(part.type);
    return '';
  });
  return texts.join('');
}
