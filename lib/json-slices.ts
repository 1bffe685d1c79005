import { setImmediate } from 'node:timers/promises';

/** Bytes of a container that are parsed at a time: a fraction of a millisecond. */
const SLICE_BYTES = 1 << 14;
/** How long work may hold the event loop before it lets others have it. */
const HOLD_MS = 1;

const [QUOTE, BACKSLASH, COMMA, COLON, OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET] = [
  0x22, 0x5c, 0x2c, 0x3a, 0x7b, 0x7d, 0x5b, 0x5d,
];

/** Awaited often by long work, it gives the event loop a turn when it was held for a while. */
export class Pauses {
  private since = performance.now();

  async pause(): Promise<void> {
    if (performance.now() - this.since < HOLD_MS) return;
    await setImmediate();
    this.since = performance.now();
  }
}

/** A container of a JSON text that was cut out, in pieces that end between its members. */
export interface Slices {
  /** Its pieces, parsed one by one: objects or arrays with some of the members each, in order. Throws a SyntaxError. */
  [Symbol.asyncIterator](): AsyncIterator<object>;
}

/** Where a container lies: its opening and closing character, and the commas to cut at. */
interface Extent {
  open: number;
  close: number;
  cuts: number[];
}

/** Reads structure only: what is between the structural characters is left to JSON.parse. */
class Scanner {
  at = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly pauses: Pauses,
  ) {}

  /** The next byte that is no white space. */
  peek(): number | undefined {
    for (;;) {
      const byte = this.bytes[this.at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
      this.at++;
    }
  }

  /** Passes the string that begins here. */
  string(): void {
    for (this.at++; ; this.at++) {
      const byte = this.bytes[this.at];
      if (byte === BACKSLASH) this.at++;
      else if (byte === QUOTE || byte === undefined) break;
    }
    this.at++;
  }

  /** Passes the value that begins here; its extent if it is a container, else undefined. */
  async value(): Promise<Extent | undefined> {
    const first = this.peek();
    if (first === QUOTE) this.string();
    if (first !== OPEN_BRACE && first !== OPEN_BRACKET) {
      for (let byte = this.peek(); byte !== undefined && byte !== COMMA && byte !== CLOSE_BRACE && byte !== CLOSE_BRACKET;) { byte = this.bytes[++this.at]; } // prettier-ignore
      return undefined;
    }
    const extent: Extent = { open: this.at, close: 0, cuts: [] };
    let last = this.at;
    let pauseAt = this.at + SLICE_BYTES;
    for (let depth = 0; ; this.at++) {
      const byte = this.bytes[this.at];
      if (byte === undefined) throw new SyntaxError('the text ends inside a value');
      if (byte === QUOTE) {
        this.string();
        this.at--;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        depth++;
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        if (--depth === 0) break;
      } else if (byte === COMMA && depth === 1 && this.at - last > SLICE_BYTES) {
        extent.cuts.push(this.at);
        last = this.at;
      }
      if (this.at > pauseAt) {
        await this.pauses.pause();
        pauseAt = this.at + SLICE_BYTES;
      }
    }
    extent.close = this.at++;
    return extent;
  }

  /** Calls `visit` at each value of the object that begins here, with its key as written; `visit` passes the value. */
  async members(visit: (key: string) => Promise<void>): Promise<void> {
    if (this.peek() !== OPEN_BRACE) throw new SyntaxError('expected an object');
    do {
      this.at++;
      if (this.peek() !== QUOTE) break; // an empty object
      const begin = this.at + 1;
      this.string();
      const key = Buffer.from(this.bytes.subarray(begin, this.at - 1)).toString('latin1');
      if (this.peek() !== COLON) throw new SyntaxError('expected a colon');
      this.at++;
      await visit(key);
    } while (this.peek() === COMMA);
    if (this.peek() !== CLOSE_BRACE) throw new SyntaxError('expected the end of an object');
    this.at++;
  }
}

async function* parsePieces(bytes: Uint8Array, extent: Extent, pauses: Pauses): AsyncGenerator<object, void> {
  const brackets = bytes[extent.open] === OPEN_BRACE ? ['{', '}'] : ['[', ']'];
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let begin = extent.open + 1;
  for (const end of [...extent.cuts, extent.close]) {
    const members = decoder.decode(bytes.subarray(begin, end));
    if (extent.cuts.length > 0 && members.trim() === '') throw new SyntaxError('a comma too many');
    yield JSON.parse(`${brackets[0] ?? ''}${members}${brackets[1] ?? ''}`) as object;
    begin = end + 1;
    await pauses.pause();
  }
}

/**
 * Parses a JSON text without holding the event loop for long: the containers at `paths` (each a key of the outermost
 * object and one of the object there) are left empty in `rest` and come in pieces of their own. What else the text holds is
 * parsed at once, so everything large must be named. Throws a SyntaxError.
 */
export async function parseInSlices(
  bytes: Uint8Array,
  paths: readonly (readonly [outer: string, inner: string])[],
  pauses: Pauses,
): Promise<{ rest: unknown; slices: (Slices | undefined)[] }> {
  const scanner = new Scanner(bytes, pauses);
  const extents = new Map<number, Extent>();
  await scanner.members(async (outer) => {
    const wanted = paths.flatMap((path, index) => (path[0] === outer ? [index] : []));
    // Of a key that is there twice the last counts, as for JSON.parse.
    for (const index of wanted) extents.delete(index);
    if (wanted.length === 0 || scanner.peek() !== OPEN_BRACE) {
      await scanner.value();
      return;
    }
    await scanner.members(async (inner) => {
      const extent = await scanner.value();
      const index = wanted.find((candidate) => paths[candidate]?.[1] === inner);
      if (index !== undefined) extents.delete(index);
      if (index !== undefined && extent !== undefined) extents.set(index, extent);
    });
  });
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let [text, begin] = ['', 0];
  for (const { open, close } of [...extents.values()].sort((a, b) => a.open - b.open)) {
    text += decoder.decode(bytes.subarray(begin, open + 1));
    begin = close;
  }
  const rest: unknown = JSON.parse(text + decoder.decode(bytes.subarray(begin)));
  const slices = paths.map((_, index): Slices | undefined => {
    const extent = extents.get(index);
    return extent && { [Symbol.asyncIterator]: () => parsePieces(bytes, extent, pauses) };
  });
  return { rest, slices };
}

/** A container that was cut out, whole. */
export async function collect(slices: Slices): Promise<object> {
  let whole: object | undefined;
  for await (const piece of slices) {
    if (whole === undefined) {
      whole = piece;
    } else if (Array.isArray(whole)) {
      for (const element of piece as unknown[]) whole.push(element);
    } else {
      // Not by assignment: a key may be __proto__.
      Object.defineProperties(whole, Object.getOwnPropertyDescriptors(piece));
    }
  }
  return whole ?? {};
}
