import type { TokenLogprob } from '../generation.js';
import type { Tokenizer } from '../tokenizer.js';

/** Log-probabilities as /v1/chat/completions lists them. */
export interface ChatLogprobs {
  content: (ChatToken & { top_logprobs: ChatToken[] })[];
}

interface ChatToken {
  token: string;
  logprob: number;
  /** UTF-8 of the token; null where the vocabulary does not tell. */
  bytes: number[] | null;
}

/** Log-probabilities as /v1/completions lists them: columns with one entry per token. */
export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: number[];
  /** Null when only those of the tokens were asked for. */
  top_logprobs: Record<string, number>[] | null;
  /** Where each token begins, in UTF-16 units of all tokens of the answer. */
  text_offset: number[];
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** JSON has no infinity; this stands for a probability of zero, as in OpenAI's API. */
const IMPOSSIBLE = -9999;

/** Writes out log-probabilities of one answer, whose tokens come in order. */
export class LogprobWriter {
  private offset = 0;

  constructor(
    private readonly tokenizer: Tokenizer,
    /** The token before the next one: a vocabulary of words needs it to know about leading spaces. */
    private before: number | undefined,
  ) {}

  chat(tokens: readonly TokenLogprob[]): ChatLogprobs {
    const content = tokens.map(({ id, logprob, top }) => {
      const entry = { ...this.token(id, logprob), top_logprobs: top.map(([other, value]) => this.token(other, value)) };
      this.before = id;
      return entry;
    });
    return { content };
  }

  completion(tokens: readonly TokenLogprob[]): CompletionLogprobs {
    const out: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: null, text_offset: [] };
    for (const { id, logprob, top } of tokens) {
      const own = this.token(id, logprob);
      out.tokens.push(own.token);
      out.token_logprobs.push(own.logprob);
      out.text_offset.push(this.offset);
      if (top.length > 0) {
        const listed = top.map(([other, value]) => this.token(other, value));
        // Two tokens can have the same text: the more probable one stays.
        const entries = [...listed, own].map((token): [string, number] => [token.token, token.logprob]).reverse();
        (out.top_logprobs ??= []).push(Object.fromEntries(entries));
      }
      this.offset += own.token.length;
      this.before = id;
    }
    return out;
  }

  private token(id: number, logprob: number): ChatToken {
    const value = Number.isFinite(logprob) ? logprob : IMPOSSIBLE;
    const { name, bytes } = this.tokenizer.piece(id);
    if (bytes !== null) return { token: spelled(bytes), logprob: value, bytes: [...bytes] };
    const stream = this.tokenizer.detokenizer(this.before);
    const text = stream.push(id) + stream.flush();
    const known = text !== '' && !text.includes('\uFFFD');
    return { token: known ? text : name, logprob: value, bytes: known ? [...Buffer.from(text)] : null };
  }
}

/** Bytes as text, or as `bytes:\xe2\x80` when they are a part of a character. */
function spelled(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
  }
}
