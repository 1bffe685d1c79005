/**
 * Which part of streamed text was drafted. A chunk tells which *tokens* were, but text comes later than tokens when
 * a character or a stop string is unfinished, so each piece of text is remembered with its origin until it comes out.
 *
 * @import { Chunk, Detokenizer } from 'redrafter'
 * @import { Run } from './protocol.mjs'
 */
export class DraftedRuns {
  /** @type {Run[]} Pieces that have not come out yet, oldest first. */
  #held = [];
  #detokenizer;

  /** @param {Detokenizer | undefined} detokenizer One that has seen the prompt and nothing else. */
  constructor(detokenizer) {
    this.#detokenizer = detokenizer;
  }

  /**
   * The text of a chunk in runs. Joined, they are `chunk.text`.
   * @param {Chunk} chunk
   * @returns {Run[]}
   */
  split({ text, tokenIds, accepted }) {
    tokenIds.forEach((id, i) => {
      this.#hold(this.#detokenizer?.push(id) ?? '', i < accepted);
    });
    /** @type {Run[]} */
    const runs = [];
    let left = text.length;
    while (left > 0) {
      // Text that comes without tokens is the end of an unfinished character: nobody's in particular.
      const piece = this.#held.shift() ?? { text: text.slice(-left), drafted: false };
      if (piece.text.length > left) {
        this.#held.unshift({ text: piece.text.slice(left), drafted: piece.drafted });
        piece.text = piece.text.slice(0, left);
      }
      left -= piece.text.length;
      const last = runs.at(-1);
      if (last?.drafted === piece.drafted) last.text += piece.text;
      else runs.push(piece);
    }
    return runs;
  }

  /**
   * @param {string} text
   * @param {boolean} drafted
   */
  #hold(text, drafted) {
    if (text !== '') this.#held.push({ text, drafted });
  }
}
