/** The tables of bench/peers. */
import { percent, spread, type Table } from './cells.js';
import type { PeersCase, PeersReport, PeersSuite, PeersWay } from './peers-report.js';
import { fastest, inTurns } from './peers-report.js';
import { spreadOf } from './statistics.js';

const ways = ({ cases }: PeersReport): Table[] =>
  cases.length === 0
    ? []
    : [
        {
          title: 'Beside a peer',
          head: ['dtype', 'case', 'at once', 'engine', 'way', 'tokens/s', 'tokens/step', 'resident MB'],
          rows: cases.flatMap(({ case: name, dtype, rows, ways: all }) =>
            all.map((way) => [
              ...[dtype, name, String(rows), way.engine, way.way, spread(spreadOf(way.tokensPerSecond), 1)],
              ...[name === 'prefill' ? '' : way.tokensPerStep.toFixed(2), (way.memoryBytes / 1e6).toFixed(0)],
            ]),
          ),
        },
      ];

/** Where the time of a step of redrafter goes. */
function stepRows({ dtype, ways: all, readBytesPerSecond }: PeersCase): string[][] {
  const plain = fastest({ ways: all }, 'redrafter', ({ way }) => way === 'plain');
  return all.flatMap(({ way, tokensPerSecond, tokensPerStep, own }: PeersWay) => {
    if (own === null) return [];
    const { verifyMs, draftMs, hostMs, draftTokens, verifyRows, bytes } = own;
    const speedup = inTurns(tokensPerSecond, plain?.tokensPerSecond ?? []);
    const step = plain?.own?.verifyMs ?? [];
    const drafts = bytes.drafter > 0;
    const read = inTurns(tokensPerSecond, readBytesPerSecond) * bytes.step;
    const [rows, deep] = [spreadOf(verifyRows).median, spreadOf(draftTokens).median];
    return [
      [
        ...[dtype, way, speedup.toFixed(2), tokensPerStep.toFixed(2), (speedup / tokensPerStep).toFixed(2)],
        ...[spreadOf(verifyMs).median.toFixed(2), inTurns(verifyMs, step).toFixed(2), rows.toFixed(1)],
        ...(drafts
          ? [spreadOf(draftMs).median.toFixed(2), percent(inTurns(draftMs, step)), deep.toFixed(1)]
          : ['', '', '']),
        ...[spreadOf(hostMs).median.toFixed(2), drafts || Number.isNaN(read) ? '' : percent(read)],
      ],
    ];
  });
}

function steps({ cases }: PeersReport): Table[] {
  const rows = cases.filter(({ case: name }) => name === 'decode').flatMap(stepRows);
  if (rows.length === 0) return [];
  return [
    {
      title: 'Steps of redrafter',
      head: ['dtype', 'way', 'speedup', 'tokens/step', 'eta', 'verify ms', 'of plain', 'rows', 'draft ms', 'of plain', 'deep', 'host ms', 'of read bandwidth'], // prettier-ignore
      rows,
      note: 'Milliseconds of a round; those of drafting, of a round that drafted.',
    },
  ];
}

function costs({ costs: all }: PeersReport): Table[] {
  if (all.length === 0) return [];
  return [
    {
      title: 'A pass of the target by its rows',
      head: ['dtype', 'rows', 'ms', 'of one row'],
      rows: all.map(({ dtype, rows, ms, cost }) => [dtype, String(rows), spread(ms, 2), spread(cost, 2)]),
    },
  ];
}

function precisions({ precisions: all, model }: PeersReport): Table[] {
  return [
    {
      title: `Weights of ${model.name}`,
      head: ['dtype', 'widened', 'parameters', 'weights'],
      rows: all.map(({ dtype, factor, parameters, weightBytes }) => [
        ...[dtype, factor > 1 ? `${factor} times` : 'no', `${(parameters / 1e6).toFixed(0)} M`],
        `${(weightBytes / 1e9).toFixed(2)} GB`,
      ]),
    },
  ];
}

function ids({ ids: all }: PeersReport): Table[] {
  if (all.length === 0) return [];
  return [
    {
      title: 'Ids of both engines',
      head: ['dtype', 'widened', 'same', 'tokens', 'parted at', 'margin of redrafter', 'of the peer'],
      rows: all.flatMap(({ dtype, factor, prompts, same, tokens, parted }) => [
        [dtype, factor > 1 ? `${factor} times` : 'no', `${same} of ${prompts}`, String(tokens), '', '', ''],
        ...parted.map((one) => [
          ...[dtype, '', `prompt ${one.prompt + 1}`, '', String(one.position)],
          ...[one.redrafterMargin.toFixed(4), one.peerMargin.toFixed(4)],
        ]),
      ]),
      note: 'Margins are between the two largest logits where ids part: small ones are rounding.',
    },
  ];
}

export function peersTables({ report, notes }: PeersSuite): Table[] {
  const [first, ...others] = [...ways(report), ...steps(report), ...costs(report), ...precisions(report), ...ids(report)]; // prettier-ignore
  return first === undefined ? [] : [{ ...first, note: notes.join(' ') }, ...others];
}
