/**
 * What the KV cache of an engine must look like after each operation: blocks with their holders, the index of prefixes with
 * its order of eviction, sessions. Written from the documentation of native/kv, in objects instead of counters, and counted
 * by looking at all of them.
 */
const BLOCK = 16;

/** What was asked for. */
export interface Asked {
  maxTokens: number;
  beamWidth: number;
  beamLength: number;
  slide?: { keep: number; tail: number } | undefined;
}

/** And what came of it: the generated ids, and the tokens whose KV the session has in the end. */
export interface Generation extends Asked {
  ids: readonly number[];
  kvTokens: number;
}

/** A block that is not free. */
interface Block {
  /** Sequences that hold it. */
  sequences: Set<object>;
  /** Nodes of the index that hold it. */
  nodes: Set<Node>;
}

interface Node {
  parent: Node | undefined;
  key: string;
  block: Block;
  used: number;
  children: Map<string, Node>;
}

export interface Session {
  tokens: number[];
  kvTokens: number;
  blocks: Block[];
  /** Root of its tree. */
  scope: Node;
  key: string;
}

const blocksFor = (tokens: number): number => Math.ceil(tokens / BLOCK);
const keyOf = (tokens: readonly number[], block: number): string =>
  tokens.slice(block * BLOCK, (block + 1) * BLOCK).join();
const root = (): Node => ({
  ...{ parent: undefined, key: '', used: 0, children: new Map() },
  block: { sequences: new Set(), nodes: new Set() },
});

export class KvModel {
  /** All that are not free. */
  private readonly blocks = new Set<Block>();
  private readonly keyed = new Map<string, Node>();
  private readonly nodes = new Set<Node>();
  private clock = 0;
  evicted = 0;
  readonly sessions = new Set<Session>();

  constructor(
    private readonly total: number,
    private readonly contextTokens: number,
    private readonly mostIdle = Infinity,
  ) {}

  get free(): number {
    return this.total - this.blocks.size;
  }
  get idle(): number {
    return [...this.blocks].filter((block) => block.sequences.size === 0).length;
  }
  shared(session: Session): number {
    return session.blocks.filter((block) => block.sequences.size > 1).length;
  }

  private settle(block: Block): void {
    if (block.sequences.size === 0 && block.nodes.size === 0) this.blocks.delete(block);
  }

  private remove(node: Node): void {
    this.nodes.delete(node);
    node.block.nodes.delete(node);
    node.parent?.children.delete(node.key);
    this.settle(node.block);
  }

  private removeBelow(node: Node): void {
    for (const child of [...node.children.values()]) {
      this.removeBelow(child);
      this.remove(child);
    }
  }

  private evict(): boolean {
    const leaves = [...this.nodes].filter((node) => node.children.size === 0).sort((a, b) => a.used - b.used);
    const node = leaves.find(({ block }) => block.sequences.size === 0) ?? leaves[0];
    if (node === undefined) return false;
    const free = this.free;
    this.remove(node);
    this.evicted += this.free - free;
    return true;
  }

  /** What the engine does after each round, and so at the end of each operation. */
  trim(): void {
    while (this.idle > this.mostIdle && this.evict());
  }

  private acquire(holder: object): Block {
    while (this.free === 0 && this.evict());
    if (this.free === 0) throw new Error('the model has no block left: what was admitted does not fit');
    const block = { sequences: new Set([holder]), nodes: new Set<Node>() };
    this.blocks.add(block);
    return block;
  }

  private exchange(session: Session, at: number, block: Block): void {
    const old = session.blocks[at];
    if (old === block) return;
    block.sequences.add(session);
    session.blocks[at] = block;
    if (old === undefined) return;
    old.sequences.delete(session);
    this.settle(old);
  }

  private truncate(session: Session, tokens: number): void {
    session.kvTokens = Math.min(session.kvTokens, tokens);
    for (const block of session.blocks.splice(blocksFor(session.kvTokens))) {
      block.sequences.delete(session);
      this.settle(block);
    }
  }

  private reserve(session: Session, slots: number): void {
    if (slots <= session.kvTokens) return;
    const last = Math.floor(session.kvTokens / BLOCK);
    const old = session.blocks[last];
    if (old !== undefined) {
      const rest = blocksFor(slots) - session.blocks.length;
      while (old.sequences.size === 1 && old.nodes.size > 0 && this.free + this.idle <= rest) this.evict();
      if (old.sequences.size > 1 || old.nodes.size > 0) this.exchange(session, last, this.acquire(session));
    }
    while (session.blocks.length < blocksFor(slots)) session.blocks.push(this.acquire(session));
  }

  private find(session: Session, limit: number): Node[] {
    const found: Node[] = [];
    let node: Node | undefined = session.scope;
    for (let i = 0; (i + 1) * BLOCK <= limit; i++) {
      node = node.children.get(keyOf(session.tokens, i));
      if (node === undefined) break;
      found.push(node);
    }
    return found;
  }

  private take(session: Session, limit: number): void {
    this.clock++;
    this.find(session, limit).forEach((node, i) => {
      node.used = this.clock;
      if ((i + 1) * BLOCK <= session.kvTokens) return;
      this.exchange(session, i, node.block);
      session.kvTokens = (i + 1) * BLOCK;
    });
  }

  private add(session: Session): void {
    if (this.mostIdle === 0) return;
    this.clock++;
    let parent = session.scope;
    for (let i = 0; (i + 1) * BLOCK <= session.kvTokens; i++) {
      const key = keyOf(session.tokens, i);
      let node = parent.children.get(key);
      if (node === undefined) {
        node = { parent, key, block: session.blocks[i] as Block, used: 0, children: new Map() };
        parent.children.set(key, node);
        node.block.nodes.add(node);
        this.nodes.add(node);
      } else this.exchange(session, i, node.block);
      node.used = this.clock;
      parent = node;
    }
  }

  private scope(key: string): Node {
    const scope = this.keyed.get(key) ?? root();
    if (key !== '') this.keyed.set(key, scope);
    return scope;
  }

  open(key = ''): Session {
    const session: Session = { tokens: [], kvTokens: 0, blocks: [], scope: this.scope(key), key };
    this.sessions.add(session);
    return session;
  }

  /** `key`: of the copy. */
  fork(from: Session, key = from.key): Session {
    const session = this.open(key);
    session.tokens = [...from.tokens];
    session.kvTokens = from.kvTokens;
    session.blocks = [...from.blocks];
    for (const block of session.blocks) block.sequences.add(session);
    return session;
  }

  rewind(session: Session, tokens: number): void {
    session.tokens.length = tokens;
    this.truncate(session, tokens);
  }

  close(session: Session): void {
    if (session.key === '') this.removeBelow(session.scope);
    this.truncate(session, 0);
    this.sessions.delete(session);
  }

  clear(key: string): void {
    const scopes =
      key === ''
        ? [...this.sessions].map(({ scope }) => scope).concat([...this.keyed.values()])
        : [this.keyed.get(key)];
    for (const scope of scopes) if (scope !== undefined) this.removeBelow(scope);
  }

  /** A session read from a file: blocks of its own. Undefined when there is no room. */
  restore(tokens: readonly number[], kvTokens: number): Session | undefined {
    if (blocksFor(kvTokens) > this.free + this.idle) return undefined;
    const session = this.open();
    session.tokens = [...tokens];
    this.reserve(session, kvTokens);
    session.kvTokens = kvTokens;
    return session;
  }

  private needed(session: Session, slots: number): number {
    const last = session.blocks[Math.floor(session.kvTokens / BLOCK)];
    const copies = slots > session.kvTokens && last !== undefined && last.sequences.size > 1 ? 1 : 0;
    return Math.max(0, blocksFor(slots) - session.blocks.length) + copies;
  }

  /** Whether an operation is admitted at once. Without a slide nothing is changed. */
  fits(session: Session, ids: readonly number[], g?: Asked): boolean {
    const trial: Session = { ...session, tokens: [...session.tokens, ...ids] };
    const end = trial.tokens.length;
    const limit = g === undefined ? end : end - 1;
    trial.kvTokens = Math.min(trial.kvTokens, limit);
    trial.blocks = trial.blocks.slice(0, blocksFor(trial.kvTokens));
    const freed = session.blocks.slice(trial.blocks.length);
    const more = g === undefined ? 0 : Math.min(g.maxTokens, this.contextTokens - end) + 1 + g.beamWidth * g.beamLength;
    let needed = this.needed(trial, end + more);
    // Blocks that are given back before.
    needed -= freed.filter((block) => block.sequences.size === 1).length;
    const slides = g?.slide !== undefined && this.contextTokens - end < g.maxTokens;
    // The most that may be set aside for a slide.
    if (slides) needed += blocksFor(this.contextTokens) + 1;
    else {
      const found = this.find(trial, limit).slice(Math.floor(trial.kvTokens / BLOCK));
      found.forEach(({ block }, i) => {
        const own = trial.blocks[Math.floor(trial.kvTokens / BLOCK) + i] === block;
        if (!own && block.sequences.size > 0 && !freed.includes(block)) needed--;
      });
    }
    return needed <= this.free + this.idle;
  }

  append(session: Session, ids: readonly number[]): void {
    session.tokens.push(...ids);
    const end = session.tokens.length;
    if (session.kvTokens === end) return;
    this.take(session, end);
    this.reserve(session, end);
    session.kvTokens = end;
    this.add(session);
  }

  /** Prompts are read in one round. Returns how many tokens had their KV already. */
  generate(session: Session, ids: readonly number[], g: Generation): number {
    session.tokens.push(...ids);
    const end = session.tokens.length;
    const tree = 1 + g.beamWidth * g.beamLength;
    this.truncate(session, Math.min(session.kvTokens, end - 1));
    const { slide } = g;
    const slides = (generated: number): boolean =>
      slide !== undefined && g.maxTokens - generated > this.contextTokens - session.tokens.length;
    this.take(session, end - 1);
    const reused = session.kvTokens;
    const spare: Session = { ...session, blocks: [], kvTokens: 0 };
    if (slide !== undefined && slides(0)) {
      const first = Math.floor(slide.keep / BLOCK);
      const node = this.find(session, (first + 1) * BLOCK)[first];
      if (node !== undefined) {
        this.removeBelow(node);
        this.remove(node);
      }
      const claimed = session.blocks.slice(first).filter((b) => b.sequences.size > 1 || b.nodes.size > 0).length;
      this.reserve(spare, claimed * BLOCK);
    }
    this.reserve(session, end + Math.min(g.maxTokens, this.contextTokens - end) + tree);
    session.kvTokens = end;
    if (!slides(0)) this.add(session);
    this.trim();
    for (let at = 0; at < g.ids.length; at++) {
      if (slide !== undefined && session.tokens.length === this.contextTokens) {
        session.tokens.splice(slide.keep, this.contextTokens - slide.keep - slide.tail);
        this.truncate(session, slide.keep);
        this.truncate(spare, 0);
        const room = Math.min(g.maxTokens - at, this.contextTokens - session.tokens.length);
        this.reserve(session, session.tokens.length + room + tree);
        this.trim();
        session.kvTokens = session.tokens.length;
        if (!slides(at)) this.add(session);
        this.trim();
      }
      session.tokens.push(g.ids[at] as number);
    }
    // Whatever was computed beyond: the engine keeps what it says.
    session.kvTokens = Infinity;
    this.truncate(session, g.kvTokens);
    this.truncate(spare, 0);
    this.add(session);
    return reused;
  }
}
