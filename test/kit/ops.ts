/**
 * The ops as the tests call them: `(level, threads, parameters)`, fresh typed arrays back. `threads` is the order of the
 * work: a number of threads on the CPU, the seed of the order of threads in the emulator, nothing on a device.
 */

export type DType = 'f32' | 'f16' | 'bf16';
export type QuantisedDType = 'q8_0' | 'q4_0';

/** Row-major weights; f16 and bf16 as their bit patterns, quantised ones as the bytes of their groups. */
export interface MatrixArg {
  source: Float32Array | Uint16Array;
  dtype: DType | QuantisedDType;
  rows: number;
  cols: number;
  /** Rows handed to the packing op at a time; all of them when missing. */
  chunk?: number;
}

/**
 * All blocks of one layer of the paged cache, in the CPU's layout on every backend: k [block, kvHeads, headDim, 16],
 * v [block, kvHeads, 16, headDim padded].
 */
export interface KvArg {
  k: Float32Array;
  v: Float32Array;
  /** Of the weights, and so of the cache where the backend has 16-bit ones. */
  dtype?: DType;
  kvHeads: number;
  headDim: number;
  /** Layers in k and in v, all blocks of one after those of the other; 1 when missing. */
  layers?: number;
}

/** For each lane, slots committed + path[i] move to committed + i. */
export interface KvCompactArgs {
  kv: KvArg;
  blockTables: Int32Array;
  tableStride: number;
  committed: Int32Array;
  path: Int32Array;
  pathStride: number;
  pathLength: Int32Array;
}

export interface BatchArg {
  position: Int32Array;
  slot: Int32Array;
  sequence: Int32Array;
  context: Int32Array;
  tailBegin: Int32Array;
  tailSlots: Int32Array;
  blockTables: Int32Array;
  tableStride: number;
}

export interface NormArgs {
  x: Float32Array;
  weight: Float32Array;
  gather?: Int32Array;
  rows: number;
  groups: number;
  dim: number;
  eps: number;
  xStride?: number;
  yStride?: number;
  inPlace?: boolean;
}

export interface MatmulArgs {
  x: Float32Array;
  w: MatrixArg;
  rows: number;
  bias?: Float32Array;
  residual?: Float32Array;
  xStride?: number;
  yStride?: number;
  /** Writes y over the residual. */
  residualInPlace?: boolean;
}

export interface AttentionArgs {
  qkv: Float32Array;
  kv: KvArg;
  batch: BatchArg;
  heads: number;
  scale: number;
  maxPositions?: number;
}

export interface AdjustArgs {
  logits: Float32Array;
  vocab: number;
  /** The rows of a lane, as a draft tree, from `begin` of it on. */
  nodeToken: Int32Array;
  nodeParent: Int32Array;
  begin: Int32Array;
  /** By lane: penalties, how many entries it has, and whether its logits can be put back. */
  repetition: Float32Array;
  presence: Float32Array;
  frequency: Float32Array;
  endingDepth: Int32Array;
  entries: Int32Array;
  keeps: Int32Array;
  /** The entries of all lanes, one lane after the other, by rising id. */
  id: Int32Array;
  generated: Int32Array;
  bias: Float32Array;
  /** 1: seen, 2: banned, 4: ends generation. */
  flags: Int32Array;
}

export interface SampleArgs {
  logits: Float32Array;
  vocab: number;
  temperature: Float32Array;
  topK: Int32Array;
  topP: Float32Array;
  minP: Float32Array;
  seed: BigUint64Array;
  position: Int32Array;
  /** The rows are nodes of draft trees, each from `begin` of its lane on; rows that no walk reaches may be -1. */
  nodeToken?: Int32Array;
  nodeParent?: Int32Array;
  begin?: Int32Array;
  /** Bits of the ids that may be chosen, [masks, words of 32 ids], and the mask of each row, -1 for none. */
  mask?: Int32Array;
  maskIndex?: Int32Array;
}

export interface HeadTopArgs {
  z: Float32Array;
  head: MatrixArg;
  rows: number;
  top: number;
  /** Bits of the target ids that may be chosen; `maskIndex` has one for so many rows each, -1 for none. */
  mask?: Int32Array;
  maskIndex?: Int32Array;
  maskWords?: number;
  /** Target ids of head rows. */
  idMap?: Int32Array;
}

/** Inputs `e`, or their rows in a table; a table without `w` is folded (drafter.h). */
export interface CellArgs {
  cell: 'sum' | 'elman' | 'gru';
  e?: Float32Array;
  token?: Int32Array;
  /** Elements from the token of a row to that of the next; 1 when missing. */
  tokenStride?: number;
  table?: MatrixArg;
  s: Float32Array;
  w?: MatrixArg;
  u?: MatrixArg;
  wBias?: Float32Array;
  uBias?: Float32Array;
  rows: number;
  hidden: number;
}

export interface MixArgs {
  h: Float32Array;
  s: Float32Array;
  projection?: MatrixArg;
  bias?: Float32Array;
  rows: number;
  hidden: number;
  exit: number;
  /** The row of h of each lane, which has so many rows; when missing, h is one row. */
  hRow?: Int32Array;
  rowsPerLane?: number;
}

export interface ResidualArgs {
  z: Float32Array;
  a: MatrixArg;
  bias?: Float32Array;
  rows: number;
  exit: number;
}

export interface TopRows {
  token: Int32Array;
  logit: Float32Array;
  logSumExp: Float32Array;
}

export interface BeamArgs extends TopRows {
  idMap?: Int32Array;
  /** 1 when missing. */
  lanes?: number;
  /** By row, `columns` entries each, of which the first `step` are filled; of the results one more. */
  scores: Float32Array;
  beams: Int32Array;
  state: Float32Array;
  rows: number;
  width: number;
  columns: number;
  step: number;
  hidden: number;
}

export interface Beams {
  scores: Float32Array;
  beams: Int32Array;
  state: Float32Array;
}

export interface BeamResult extends Beams {
  /** Of each lane. */
  live: Int32Array;
}

export interface TreePackArgs {
  beams: Int32Array;
  /** Of the beam tokens. */
  scores: Float32Array;
  /** Of each lane. */
  root: Int32Array;
  live: Int32Array;
  width: number;
  length: number;
  budget: number;
  least: number;
}

/** Each lane has room for `budget` nodes; what is not written keeps what an output begins with. */
export interface Trees {
  token: Int32Array;
  parent: Int32Array;
  depth: Int32Array;
  unpack: Int32Array;
  nodes: Int32Array;
}

export interface TreeRowsArgs {
  token: Int32Array;
  parent: Int32Array;
  depth: Int32Array;
  nodes: Int32Array;
  budget: number;
  begin: Int32Array;
  committed: Int32Array;
  firstSequence: number;
  tailStride: number;
  /** Of the whole pass, of which lanes have those from begin[0] on. */
  rows: number;
}

export interface TreeRows {
  token: Int32Array;
  position: Int32Array;
  slot: Int32Array;
  sequence: Int32Array;
  context: Int32Array;
  tailBegin: Int32Array;
  tailSlots: Int32Array;
  choosePosition: Int32Array;
  parent: Int32Array;
}

export interface TreeAcceptArgs {
  token: Int32Array;
  parent: Int32Array;
  chosen: Int32Array;
  begin: Int32Array;
  stride: number;
}

/** By lane, `stride` entries each of path and emitted. */
export interface Accepted {
  path: Int32Array;
  emitted: Int32Array;
  pathLength: Int32Array;
}

export interface KeepHiddenArgs {
  hiddenOut: Float32Array;
  begin: Int32Array;
  path: Int32Array;
  pathLength: Int32Array;
  stride: number;
  toRow: Int32Array;
  to: Float32Array;
  hidden: number;
}

export interface RopeTableArgs {
  scaling: 'none' | 'linear' | 'llama3' | 'yarn';
  theta: number;
  headDim: number;
  positions: number;
  factor?: number;
  lowFreqFactor?: number;
  highFreqFactor?: number;
  originalMaxPositions?: number;
  betaFast?: number;
  betaSlow?: number;
  attentionFactor?: number;
  mscale?: number;
  mscaleAllDim?: number;
  truncate?: boolean;
}

export type FinishName = 'none' | 'eos' | 'stop' | 'length' | 'abort';

/** A paged cache with sequences, by number. */
export interface KvDriver {
  /** Floats of one slot: per layer the keys of every head, then the values. */
  slotFloats: number;
  open(): number;
  close(id: number): void;
  length(id: number): number;
  blocks(id: number): Int32Array;
  blocksNeeded(id: number, slots: number): number;
  reserve(id: number, slots: number): void;
  commit(id: number, length: number): void;
  /** `fault`: one block less than should be is given back. */
  truncate(id: number, length: number, fault?: 'forgets a release'): void;
  /** Makes `id` a copy of `from`. */
  fork(id: number, from: number): void;
  write(id: number, slot: number, values: Float32Array): void;
  read(id: number, slot: number): Float32Array;
  compact(id: number, from: Int32Array, to: number): void;
  freeBlocks(): number;
}

type Op<Args, Result> = (level: string, threads: number, args: Args) => Result;

export interface Ops {
  /** Levels of the CPU backend that this processor runs, the oracle first. */
  levels(): string[];
  /** Why a level cannot run here, or null. */
  missing(level: string): string | null;
  /** Calls from now on have at most so many bytes of workspace; with null, what the backend gives. */
  limitWorkspace(bytes: number | null): void;
  /** Elements in another dtype, and the index of the first finite one that became infinite, or -1. */
  convert(bytes: Uint8Array, from: DType, to: DType): { bytes: Uint8Array; overflow: number };
  pack: Op<{ w: MatrixArg }, Uint8Array>;
  embed: Op<{ table: MatrixArg; token: Int32Array }, Float32Array>;
  norm: Op<NormArgs, Float32Array>;
  matmul: Op<MatmulArgs, Float32Array>;
  act: Op<{ gateUp: Float32Array; rows: number; dim: number }, Float32Array>;
  /** The logits after adjust, and after adjust_undo. */
  adjust: Op<AdjustArgs, { adjusted: Float32Array; undone: Float32Array }>;
  sample: Op<SampleArgs, Int32Array>;
  logprob: Op<
    { logits: Float32Array; vocab: number; row: Int32Array; token: Int32Array; topK: number },
    { logprob: Float32Array; topToken: Int32Array; topLogprob: Float32Array }
  >;
  rope: Op<
    { qkv: Float32Array; cosSin: Float32Array; kv: KvArg; batch: BatchArg; heads: number },
    { qkv: Float32Array; k: Float32Array; v: Float32Array }
  >;
  attention: Op<AttentionArgs, Float32Array>;
  kvCompact: Op<KvCompactArgs, { k: Float32Array; v: Float32Array }>;
  kvCopyBlock: Op<{ kv: KvArg; from: number; to: number; tokens: number }, { k: Float32Array; v: Float32Array }>;
  cell: Op<CellArgs, Float32Array>;
  mix: Op<MixArgs, Float32Array>;
  residual: Op<ResidualArgs, Float32Array>;
  headTop: Op<HeadTopArgs, TopRows>;
  beamStart: Op<{ root: Int32Array; columns: number; hidden: number }, Beams>;
  beam: Op<BeamArgs, BeamResult>;
  treePack: Op<TreePackArgs, Trees>;
  treeRows: Op<TreeRowsArgs, TreeRows>;
  treeAccept: Op<TreeAcceptArgs, Accepted>;
  /** `to` after it. */
  keepHidden: Op<KeepHiddenArgs, Float32Array>;
  ropeTable: Op<RopeTableArgs, Float32Array>;
  philox4x32(counter: Uint32Array, key: Uint32Array): Uint32Array;
  philoxUniform(seed: bigint, position: bigint, choice: number): number;
  cutRun(run: Int32Array, remaining: number, eos: Int32Array, stop: Int32Array): { keep: number; finish: FinishName };
  kvCache(level: string, shape: { layers: number; kvHeads: number; headDim: number; blocks: number }): KvDriver;
}
