/** The rows of a widened tensor, from those of the small one. */
import { shares, type Axis } from './layout.js';
import { halved } from './elements.js';

/** A matrix as it is stored, row by row; vectors have one row. */
export interface Stored {
  dtype: string;
  rows: number;
  columns: number;
  /** Bytes of rows [first, first + count). */
  read: (first: number, count: number) => Uint8Array;
}

/** Rows are read in slabs of about this size. */
const SLAB_BYTES = 4 << 20;

/** One row of `columns` elements, with the copies of each block behind one another. */
function widenRow(row: Uint8Array, elementBytes: number, dtype: string, axis: Axis, factor: number): Uint8Array {
  if (axis.blocks === 0) return row;
  const wide = new Uint8Array(row.length * factor);
  const blockBytes = (row.length / elementBytes / axis.blocks) * elementBytes;
  shares(factor).forEach((halvings, copy) => {
    const own = halved(row, dtype, axis.shared ? halvings : 0);
    for (let block = 0; block < axis.blocks; block++) {
      wide.set(own.subarray(block * blockBytes, (block + 1) * blockBytes), (block * factor + copy) * blockBytes);
    }
  });
  return wide;
}

/** Pieces of the widened tensor in the order in which they are stored. */
export function* widenRows(
  { dtype, rows, columns, read }: Stored,
  [rowAxis, columnAxis]: readonly [Axis, Axis],
  factor: number,
): Generator<Uint8Array> {
  const elementBytes = columns === 0 || rows === 0 ? 1 : read(0, 1).length / columns;
  const slab = Math.max(1, Math.floor(SLAB_BYTES / Math.max(1, columns * elementBytes)));
  const blocks = Math.max(rowAxis.blocks, 1);
  const perBlock = rows / blocks;
  for (let block = 0; block < blocks; block++) {
    for (let copy = 0; copy < (rowAxis.blocks === 0 ? 1 : factor); copy++) {
      for (let first = 0; first < perBlock; first += slab) {
        const count = Math.min(slab, perBlock - first);
        const bytes = read(block * perBlock + first, count);
        for (let row = 0; row < count; row++) {
          const own = bytes.subarray(row * columns * elementBytes, (row + 1) * columns * elementBytes);
          yield widenRow(own, elementBytes, dtype, columnAxis, factor);
        }
      }
    }
  }
}
