import type { Chunk } from '../generation.js';
import type { GenerationStats } from '../stats.js';
import type { Detokenizer } from '../tokenizer.js';
import { paint, printable } from './output.js';

/** Writes generated text with the accepted (drafted) runs coloured, so that one sees speculation at work. */
export class TokenPrinter {
  private midLine = false;

  constructor(private readonly detokenizer: Detokenizer | undefined) {}

  chunk(chunk: Chunk): void {
    const drafted = chunk.tokenIds.slice(0, chunk.accepted);
    const own = chunk.tokenIds.slice(chunk.accepted);
    this.write(this.text(drafted), paint.green);
    this.write(this.text(own));
  }

  end(): void {
    this.write(printable(this.detokenizer?.flush() ?? ''));
    if (this.midLine) process.stdout.write('\n');
  }

  /** Text of ids; without a tokenizer the ids themselves. */
  private text(ids: readonly number[]): string {
    const { detokenizer } = this;
    if (detokenizer === undefined) return ids.map((id) => `${id} `).join('');
    return printable(ids.map((id) => detokenizer.push(id)).join(''));
  }

  private write(text: string, colour: (text: string) => string = (same) => same): void {
    if (text === '') return;
    process.stdout.write(colour(text));
    this.midLine = !text.endsWith('\n');
  }
}

/** The line after a run: speed and how many tokens a round gave. */
export function summary(stats: GenerationStats): string {
  const { tokens, tokensPerSecond, tokensPerStep } = stats;
  const plural = tokens === 1 ? 'token' : 'tokens';
  return `${tokens} ${plural}, ${tokensPerSecond.toFixed(1)} tokens/s, ${tokensPerStep.toFixed(2)} tokens per step`;
}
