// `redrafter bench peers` runs this with the options of bench/peers as JSON; the report is the last line of its output.
import process from 'node:process';

/** @typedef {(options: object) => Promise<import('../lib/bench/peers-report.js').PeersReport>} RunPeers */

/** @param {string} line */
const tell = (line) => process.stderr.write(`${line}\n`);

// By its address, as a clone may be without it.
/** @type {unknown} */
const peers = await import(new URL('peers/index.mjs', import.meta.url).href);
const { runPeers } = /** @type {{ runPeers: RunPeers }} */ (peers);
/** @type {unknown} */
const given = JSON.parse(process.argv[2] ?? '{}');
const report = await runPeers({ .../** @type {object} */ (given), tell });
process.stdout.write(`${JSON.stringify(report)}\n`);
