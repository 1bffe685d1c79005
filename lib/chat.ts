import { Template } from '@huggingface/jinja';

import { invalid, RedrafterError } from './errors.js';
import { describe } from './options.js';

/** One message of a conversation. */
export interface ChatMessage {
  /** Who speaks: `system`, `user`, `assistant`, or what else the model's template knows. */
  role: string;
  /** What is said. Special tokens written out in it are plain text unless `parseSpecialTokens` is set. */
  content: string;
}

/** A rendered conversation. */
export interface RenderedChat {
  text: string;
  /** Puts back what the guard changed in a part of `text` that is not a special token. */
  restore: (part: string) => string;
}

function templateError(what: string, cause: unknown): RedrafterError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new RedrafterError('ERR_TEMPLATE', `${what}: ${why}`, { cause });
}

/** Copies messages, reading each field once. Throws ERR_INVALID_ARGUMENT. */
export function copyMessages(messages: unknown): ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalid(`messages must be a non-empty array, got ${describe(messages)}`);
  }
  return Array.from(messages as unknown[], (message, i) => {
    if (typeof message !== 'object' || message === null) {
      throw invalid(`messages[${i}] must be an object { role, content }, got ${describe(message)}`);
    }
    const { role, content } = message as Record<string, unknown>;
    if (typeof role !== 'string' || role === '') {
      throw invalid(`messages[${i}].role must be a non-empty string, got ${describe(role)}`);
    }
    if (typeof content !== 'string') {
      throw invalid(`messages[${i}].content must be a string, got ${describe(content)}`);
    }
    return { role, content };
  });
}

/** A character that occurs nowhere in `texts`: one of the 32 that Unicode reserves for internal use. */
function unusedCharacter(texts: readonly string[]): string {
  for (let code = 0xfdd0; code <= 0xfdef; code++) {
    const character = String.fromCharCode(code);
    if (!texts.some((text) => text.includes(character))) return character;
  }
  throw invalid('messages use every noncharacter from U+FDD0 to U+FDEF');
}

/** The chat template of a model. */
export class ChatTemplate {
  private constructor(
    private readonly template: Template,
    private readonly variables: Record<string, string>,
  ) {}

  /**
   * `source`: a template, or a list of `{ name, template }` of which `default` is taken. Undefined when there is
   * none. Throws ERR_TEMPLATE when it is malformed.
   */
  static read(source: unknown, variables: Record<string, string>): ChatTemplate | undefined {
    const named = Array.isArray(source) ? (source as unknown[]).find(isDefault)?.template : source;
    if (named === undefined || named === null) return undefined;
    if (typeof named !== 'string') throw new RedrafterError('ERR_TEMPLATE', 'the chat template is not a string');
    try {
      return new ChatTemplate(new Template(named), variables);
    } catch (error) {
      throw templateError('the chat template is malformed', error);
    }
  }

  /**
   * Renders messages. Each of the special tokens `guarded` that is written out inside a message is broken up by a
   * character that `restore` removes, so that only the template itself can produce special tokens.
   */
  render(messages: unknown, addGenerationPrompt: boolean, guarded: readonly string[] = []): RenderedChat {
    let list = copyMessages(messages);
    const texts = list.flatMap(({ role, content }) => [role, content]);
    let restore = (part: string): string => part;
    const hit = guarded.filter((special) => texts.some((text) => text.includes(special)));
    if (hit.length > 0) {
      const mark = unusedCharacter(texts);
      const guard = (text: string): string =>
        hit.reduce((safe, special) => safe.replaceAll(special, special.charAt(0) + mark + special.slice(1)), text);
      list = list.map(({ role, content }) => ({ role: guard(role), content: guard(content) }));
      restore = (part) => part.replaceAll(mark, '');
    }
    let text: unknown;
    try {
      text = this.template.render({ ...this.variables, messages: list, add_generation_prompt: addGenerationPrompt });
    } catch (error) {
      throw templateError('the chat template refuses the messages', error);
    }
    if (typeof text !== 'string') throw new RedrafterError('ERR_TEMPLATE', 'the chat template gave no text');
    return { text, restore };
  }
}

function isDefault(entry: unknown): entry is { name: 'default'; template: unknown } {
  return (
    typeof entry === 'object' && entry !== null && 'name' in entry && entry.name === 'default' && 'template' in entry
  );
}
