/** A report as one HTML page: tables and charts inside, nothing loaded, no script. */
import { type Chart, chartsOf } from './charts.js';
import type { Report } from './report.js';
import { barTable, conditions, suiteTables, type Table } from './tables.js';

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text: string): string => text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character] ?? '');

const STYLE = `
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; } h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.bars td:nth-child(1), .conditions td { text-align: left; white-space: normal; }
.no { color: #b00020; font-weight: bold; }
figure { display: inline-block; margin: 1rem 1rem 1rem 0; vertical-align: top; } figcaption { font-weight: 600; }
.wide { overflow-x: auto; } .note { color: #555; }
`;

function tableHtml({ title, head, rows, note }: Table, kind = ''): string {
  const cells = (tag: 'th' | 'td', row: readonly string[]): string =>
    `<tr>${row.map((cell) => `<${tag}${cell === 'NO' ? ' class="no"' : ''}>${escape(cell)}</${tag}>`).join('')}</tr>`;
  const body = rows.map((row) => cells('td', row)).join('\n');
  const table =
    head.length === 0
      ? ''
      : `<div class="wide"><table${kind === '' ? '' : ` class="${kind}"`}>\n<thead>${cells('th', head)}</thead>\n<tbody>${body}</tbody>\n</table></div>`;
  return `<h3>${escape(title)}</h3>\n${table}\n${note === undefined || note === '' ? '' : `<p class="note">${escape(note)}</p>\n`}`;
}

const figure = ({ title, svg }: Chart): string =>
  `<figure role="img" aria-label="${escape(title)}"><figcaption>${escape(title)}</figcaption>\n${svg}\n</figure>`;

export function htmlReport(report: Report): string {
  const charts = chartsOf(report);
  const sections = suiteTables(report).map(({ suite, tables }) => {
    const own = charts.filter((chart) => chart.suite === suite);
    return `<section>\n<h2>${escape(suite)}</h2>\n${own.map(figure).join('\n')}\n${tables.map((table) => tableHtml(table)).join('\n')}</section>`; // prettier-ignore
  });
  const rows = conditions(report)
    .map(([name, text]) => `<tr><th scope="row">${escape(name)}</th><td>${escape(text)}</td></tr>`)
    .join('\n');
  const bars = report.bars.length === 0 ? '' : tableHtml(barTable(report.bars), 'bars');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>redrafter bench, ${escape(report.date)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>redrafter bench</h1>
<table class="conditions"><tbody>
${rows}
</tbody></table>
${bars}
${sections.join('\n')}
</body>
</html>
`;
}
