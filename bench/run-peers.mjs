// `redrafter bench peers` runs this with the options of bench/peers as JSON; the report is the last line of its output.
import process from 'node:process';

/** @typedef {{ case: string, dtype: string, rows: number, ways: Record<string, unknown>[] }} Case */
/** @typedef {{ cases: Case[], bars: unknown[], versions: Record<string, string>, missing: string[] }} Report */
/** @typedef {(options: object) => Promise<Report>} RunPeers */

/** @param {string} line */
const tell = (line) => process.stderr.write(`${line}\n`);

// By its address, as a clone may be without it.
/** @type {unknown} */
const peers = await import(new URL('peers/index.mjs', import.meta.url).href);
const { runPeers } = /** @type {{ runPeers: RunPeers }} */ (peers);
/** @type {unknown} */
const given = JSON.parse(process.argv[2] ?? '{}');
const report = await runPeers({ .../** @type {object} */ (given), tell });

const rows = report.cases.flatMap(({ case: name, dtype, rows: atOnce, ways }) =>
  ways.map(({ engine, way, median, min, max, tokensPerStep, memoryBytes }) => ({
    ...{ case: name, dtype, atOnce, engine, way, tokensPerSecond: median, low: min, high: max },
    ...{ tokensPerStep, memoryBytes },
  })),
);
const { versions, missing, bars } = report;
const notes = Object.entries(versions).map(([engine, version]) => `${engine} ${version}.`);
if (missing.length > 0) notes.push(`Not in this build: ${missing.join(', ')}.`);
process.stdout.write(`${JSON.stringify({ rows, notes, bars, report })}\n`);
