/**
 * Which ids may follow at each node of the draft trees of a round. Questions and answers are the lists that
 * native/spec/mask_exchange.h describes.
 */

/** What a matcher of a grammar says of the text that it holds. */
export interface Position {
  /** The ids that may follow, as bits. Not changed afterwards. */
  mask: Int32Array;
  /** The text is complete, and nothing but its end may follow. */
  ends: boolean;
}

/** Holds a text that follows its grammar. */
export interface Matcher {
  position(): Promise<Position>;
  /** Adds a token, which the mask must allow. */
  accept(id: number): void;
  /** Takes the last token away. */
  back(): void;
  /** Whether the id ends texts: then it adds nothing. */
  isEnding(id: number): boolean;
}

const NO_MASK = -1;
const ENDS = -2;

export function hasBit(mask: Int32Array, id: number): boolean {
  return (((mask[id >>> 5] ?? 0) >>> (id & 31)) & 1) === 1;
}

const hashes = new WeakMap<Int32Array, number>();

function hashOf(mask: Int32Array): number {
  let hash = hashes.get(mask);
  if (hash === undefined) {
    hash = 0;
    for (const word of mask) hash = (Math.imul(hash, 0x01000193) ^ word) | 0;
    hashes.set(mask, hash);
  }
  return hash;
}

/** Masks, each once. */
class MaskTable {
  readonly masks: Int32Array[] = [];
  private readonly byHash = new Map<number, number[]>();

  add(mask: Int32Array): number {
    const hash = hashOf(mask);
    const same = this.byHash.get(hash) ?? [];
    const isKnown = (index: number): boolean => {
      const other = this.masks[index];
      return other === mask || other?.every((word, i) => word === mask[i]) === true;
    };
    const known = same.find(isKnown);
    if (known !== undefined) return known;
    this.byHash.set(hash, [...same, this.masks.length]);
    return this.masks.push(mask) - 1;
  }
}

/** What a matcher has said of a text, and of those that go on from there: a round asks for most of it more than once. */
interface Said {
  position?: Position;
  readonly next: Map<number, Said>;
}

/** Of the text that each matcher holds between questions. */
const said = new WeakMap<Matcher, Said>();

function after(text: Said, id: number): Said {
  let found = text.next.get(id);
  if (found === undefined) text.next.set(id, (found = { next: new Map() }));
  return found;
}

interface Tree {
  tokens: Int32Array;
  /** Nodes come after their parents, the root first. */
  parents: Int32Array;
  /** Masks of nodes before this one are not. */
  wanted: number;
}

/** Walks a tree depth first, and leaves the matcher as it was. */
async function maskTree(matcher: Matcher, { tokens, parents, wanted }: Tree, table: MaskTable): Promise<number[]> {
  const found = Array.from(tokens, () => NO_MASK);
  const children = Array.from(tokens, (): number[] => []);
  parents.forEach((parent, node) => children[parent]?.push(node));
  const visit = async (node: number, text: Said): Promise<void> => {
    const { mask, ends } = (text.position ??= await matcher.position());
    if (node >= wanted) found[node] = ends ? ENDS : table.add(mask);
    for (const child of children[node] ?? []) {
      const token = tokens[child] ?? -1;
      if (ends || !hasBit(mask, token) || matcher.isEnding(token)) continue; // nothing leads there, or on from there
      matcher.accept(token);
      await visit(child, after(text, token));
      matcher.back();
    }
  };
  await visit(0, said.get(matcher) ?? { next: new Map() });
  return found;
}

/** Adds what was generated since to the text that a matcher holds. */
function acceptAll(matcher: Matcher, ids: Int32Array): void {
  let text = said.get(matcher) ?? { next: new Map() };
  for (const id of ids) {
    if (matcher.isEnding(id)) continue;
    matcher.accept(id);
    text = after(text, id);
  }
  said.set(matcher, text);
}

/** The answer to a question. */
export async function answerTo(question: Int32Array, matchers: ReadonlyMap<number, Matcher>): Promise<Int32Array> {
  let at = 0;
  const next = (): number => question[at++] ?? 0;
  const list = (count: number): Int32Array => question.subarray(at, (at += count));
  const table = new MaskTable();
  const [number, trees] = [next(), next()];
  const head: number[] = [number, 0];
  for (let tree = 0; tree < trees; tree++) {
    const matcher = matchers.get(next());
    const [accepted, nodes, wanted] = [next(), next(), next()];
    const ids = list(accepted);
    const [tokens, parents] = [list(nodes), list(nodes)];
    if (matcher === undefined) {
      head.push(0, ...Array.from(tokens, () => NO_MASK));
      continue;
    }
    acceptAll(matcher, ids);
    head.push(1, ...(await maskTree(matcher, { tokens, parents, wanted }, table)));
  }
  head[1] = table.masks.length;
  const words = table.masks[0]?.length ?? 0;
  const answer = new Int32Array(head.length + table.masks.length * words);
  answer.set(head);
  table.masks.forEach((mask, i) => {
    answer.set(mask, head.length + i * words);
  });
  return answer;
}
