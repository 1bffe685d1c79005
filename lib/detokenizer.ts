/** What the detokenizer needs to know of a tokenizer. */
export interface TokenTable {
  /** The bytes of a token of a byte-level vocabulary; null where tokens are text, or for an added token. */
  bytes(id: number): Uint8Array | null;
  /** Whether tokens are bytes, so that text is the UTF-8 decoding of their concatenation. */
  byteLevel: boolean;
  /** Whether the token is left out of text. */
  skipped(id: number): boolean;
  /** Text of a whole run of ids; U+FFFD for bytes that are not UTF-8. */
  decode(ids: readonly number[]): string;
}

const REPLACEMENT = '\uFFFD';

/**
 * Turns token ids into text one by one. A character is given out only when it is complete, and the pieces,
 * with that of `flush`, are together the same string as decoding all ids at once.
 */
export interface Detokenizer {
  /** The text that became certain with this id; often empty inside a multi-token character. */
  push(id: number): string;
  /** What an unfinished character at the end decodes to (U+FFFD), else ''. */
  flush(): string;
}

/** Tokens are bytes: a streaming UTF-8 decoder holds back the bytes of an unfinished character. */
class ByteDetokenizer implements Detokenizer {
  private readonly utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(private readonly table: TokenTable) {}

  push(id: number): string {
    if (this.table.skipped(id)) return '';
    const bytes = this.table.bytes(id);
    // An added token is text by itself, so it ends the run of bytes before it.
    if (bytes === null) return this.utf8.decode() + this.table.decode([id]);
    return this.utf8.decode(bytes, { stream: true });
  }

  flush(): string {
    return this.utf8.decode();
  }
}

/**
 * Tokens are text with byte fallback: decodes the ids since the last clean border, after one token of context,
 * because decoders treat the first token of a text apart. The bytes of an unfinished character decode to exactly
 * one U+FFFD at the end, so that is all that must be held back.
 */
class WindowDetokenizer implements Detokenizer {
  private pending: number[] = [];
  private given: string;

  constructor(
    private readonly table: TokenTable,
    context: number | undefined,
  ) {
    if (context !== undefined && !table.skipped(context)) this.pending.push(context);
    this.given = this.pending.length > 0 ? table.decode(this.pending) : '';
  }

  push(id: number): string {
    if (this.table.skipped(id)) return '';
    this.pending.push(id);
    const text = this.table.decode(this.pending);
    const open = text.endsWith(REPLACEMENT);
    const piece = text.slice(this.given.length, open ? -1 : undefined);
    if (open || text === '') {
      // Ids without text so far give no context: the next one is still the first of the text.
      this.given += piece;
    } else {
      this.pending = [id];
      this.given = this.table.decode(this.pending);
    }
    return piece;
  }

  flush(): string {
    if (this.pending.length === 0) return '';
    const text = this.table.decode(this.pending);
    const piece = text.slice(this.given.length);
    this.given = text;
    return piece;
  }
}

/**
 * `context` is the token before the first one pushed. Tokenizers that mark word starts leave out the space of the
 * first token of a text; with a context it is kept, so that text continues the prompt.
 */
export function createDetokenizer(table: TokenTable, context?: number): Detokenizer {
  return table.byteLevel ? new ByteDetokenizer(table) : new WindowDetokenizer(table, context);
}
