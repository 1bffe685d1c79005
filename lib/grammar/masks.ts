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

/** Masks, each once. */
class MaskTable {
  readonly masks: Int32Array[] = [];
  private readonly byHash = new Map<number, number[]>();

  add(mask: Int32Array): number {
    let hash = 0;
    for (const word of mask) hash = (Math.imul(hash, 0x01000193) ^ word) | 0;
    const same = this.byHash.get(hash) ?? [];
    const known = same.find((index) => this.masks[index]?.every((word, i) => word === mask[i]) === true);
    if (known !== undefined) return known;
    this.byHash.set(hash, [...same, this.masks.length]);
    return this.masks.push(mask) - 1;
  }
}

/** Walks a tree depth first, and leaves the matcher as it was. Nodes come after their parents, the root first. */
async function maskTree(
  matcher: Matcher,
  tokens: Int32Array,
  parents: Int32Array,
  table: MaskTable,
): Promise<number[]> {
  const found = Array.from(tokens, () => NO_MASK);
  const children = Array.from(tokens, (): number[] => []);
  parents.forEach((parent, node) => children[parent]?.push(node));
  const visit = async (node: number): Promise<void> => {
    const { mask, ends } = await matcher.position();
    found[node] = ends ? ENDS : table.add(mask);
    for (const child of children[node] ?? []) {
      const token = tokens[child] ?? -1;
      if (ends || !hasBit(mask, token) || matcher.isEnding(token)) continue; // nothing leads there, or on from there
      matcher.accept(token);
      await visit(child);
      matcher.back();
    }
  };
  await visit(0);
  return found;
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
    const [accepted, nodes] = [next(), next()];
    const ids = list(accepted);
    const [tokens, parents] = [list(nodes), list(nodes)];
    if (matcher === undefined) {
      head.push(0, ...Array.from(tokens, () => NO_MASK));
      continue;
    }
    for (const id of ids) if (!matcher.isEnding(id)) matcher.accept(id);
    head.push(1, ...(await maskTree(matcher, tokens, parents, table)));
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
