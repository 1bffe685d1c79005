/** A token that is matched in text before the tokenizer's model sees it. */
export interface AddedToken {
  id: number;
  content: string;
  /** Control tokens, such as end of sequence. Left out of decoded text. */
  special: boolean;
  /** Whether it takes the white space before / after it. */
  lstrip: boolean;
  rstrip: boolean;
  /** Whether it is matched in normalized text. */
  normalized: boolean;
}

/** Text between added tokens, or an added token. */
export type TextPart = string | AddedToken;

/** Splits text at the leftmost, longest matches of a set of tokens. */
class Splitter {
  private readonly pattern: RegExp | undefined;

  constructor(private readonly tokens: ReadonlyMap<string, AddedToken>) {
    const contents = [...tokens.keys()].filter((content) => content.length > 0).sort((a, b) => b.length - a.length);
    const escaped = contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'));
    this.pattern = escaped.length === 0 ? undefined : new RegExp(`(${escaped.join('|')})`, 'g');
  }

  split(text: string): TextPart[] {
    if (this.pattern === undefined) return text === '' ? [] : [text];
    const parts: TextPart[] = text.split(this.pattern).map((part, i) => (i % 2 === 0 ? part : this.token(part)));
    parts.forEach((part, i) => {
      const [left, right] = [parts[i - 1], parts[i + 1]];
      if (typeof part === 'string') return;
      if (part.lstrip && typeof left === 'string') parts[i - 1] = left.trimEnd();
      if (part.rstrip && typeof right === 'string') parts[i + 1] = right.trimStart();
    });
    return parts.filter((part) => part !== '');
  }

  private token(content: string): TextPart {
    return this.tokens.get(content) ?? content;
  }
}

/**
 * The added tokens of a tokenizer. Special ones are taken from text only when asked for: text that comes from
 * users must not be able to spell control tokens. The others (runs of spaces, tags) are part of how text is cut.
 */
export class AddedTokens {
  readonly byId: ReadonlyMap<number, AddedToken>;
  readonly byContent: ReadonlyMap<string, AddedToken>;
  /** Contents of the special tokens. */
  readonly special: readonly string[];
  private readonly raw: [plain: Splitter, all: Splitter];
  private readonly normalized: [plain: Splitter, all: Splitter];

  constructor(tokens: readonly AddedToken[], normalizer: ((text: string) => string) | null) {
    this.byId = new Map(tokens.map((token) => [token.id, token]));
    this.byContent = new Map(tokens.map((token) => [token.content, token]));
    this.special = tokens.filter((token) => token.special && token.content !== '').map((token) => token.content);
    const late = (token: AddedToken): boolean => token.normalized && normalizer !== null;
    const splitters = (list: AddedToken[], key: (token: AddedToken) => string): [Splitter, Splitter] => {
      const map = (some: AddedToken[]): Map<string, AddedToken> => new Map(some.map((token) => [key(token), token]));
      return [new Splitter(map(list.filter((token) => !token.special))), new Splitter(map(list))];
    };
    this.raw = splitters(
      tokens.filter((token) => !late(token)),
      (token) => token.content,
    );
    this.normalized = splitters(tokens.filter(late), (token) => normalizer?.(token.content) ?? token.content);
  }

  /** Splits raw text at tokens that are matched before normalization. */
  split(text: string, special: boolean): TextPart[] {
    return this.raw[special ? 1 : 0].split(text);
  }

  /** Splits normalized text at the tokens that are matched there. */
  splitNormalized(text: string, special: boolean): TextPart[] {
    return this.normalized[special ? 1 : 0].split(text);
  }
}
