// Turns coloured terminal output on stdin into an SVG picture for the documentation:
//   FORCE_COLOR=1 node dist/cli/main.js demo | node scripts/terminal-svg.mjs > docs/demo.svg
import { readFileSync } from 'node:fs';

const [columns, rows, width, height] = [110, 46, 7.8, 17];
/** @type {Record<string, string>} */
const colours = { 31: '#e06c75', 32: '#7ec77e', 33: '#d8b866', 36: '#6cb6c9', 90: '#7a828c' };

/** @typedef {{ text: string, style: string }} Span */

/** @param {string} text */
function escape(text) {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

/** Lines of styled spans, wrapped at the width of the terminal. @param {string} input */
function parse(input) {
  /** @type {Span[][]} */
  const lines = [[]];
  let [column, colour, bold, dim] = [0, '#d7dce2', false, false];
  // eslint-disable-next-line no-control-regex
  for (const part of input.split(/(\x1b\[[0-9;]*m|\n)/)) {
    // eslint-disable-next-line no-control-regex
    const codes = /^\x1b\[([0-9;]*)m$/.exec(part)?.[1];
    if (part === '\n') {
      lines.push([]);
      column = 0;
    } else if (codes !== undefined) {
      for (const code of codes.split(';')) {
        if (code === '' || code === '0') [colour, bold, dim] = ['#d7dce2', false, false];
        else if (code === '1') bold = true;
        else if (code === '2') dim = true;
        else if (code === '22') [bold, dim] = [false, false];
        else if (code === '39') colour = '#d7dce2';
        else colour = colours[code] ?? colour;
      }
    } else {
      const style = `fill="${dim ? '#7a828c' : colour}"${bold ? ' font-weight="bold"' : ''}`;
      for (let rest = part; rest.length > 0;) {
        if (column >= columns) {
          lines.push([]);
          column = 0;
        }
        const text = rest.slice(0, columns - column);
        lines.at(-1)?.push({ text, style });
        column += text.length;
        rest = rest.slice(text.length);
      }
    }
  }
  return lines;
}

let lines = parse(readFileSync(0, 'utf8').trimEnd());
if (lines.length > rows)
  lines = [...lines.slice(0, rows - 14), [{ text: '…', style: 'fill="#7a828c"' }], ...lines.slice(-13)];
const [w, h] = [Math.ceil(columns * width + 32), lines.length * height + 32];
const body = lines.map((spans, row) => {
  const text = spans.map(({ text: t, style }) => `<tspan ${style}>${escape(t)}</tspan>`).join('');
  return `<text x="16" y="${30 + row * height}" xml:space="preserve">${text}</text>`;
});
process.stdout.write(
  `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}">\n` +
    `<rect width="100%" height="100%" rx="8" fill="#171b21"/>\n` +
    `<g font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="13">\n` +
    `${body.join('\n')}\n</g>\n</svg>\n`,
);
