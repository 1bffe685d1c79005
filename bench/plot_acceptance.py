"""Plots the JSON of bench/acceptance.mjs: tokens per step by beam width, one line per cell and sampling.

    python3 bench/plot_acceptance.py bench/results/FILE.json docs/acceptance.svg

Needs matplotlib (Debian: python3-matplotlib).
"""

import argparse
import json

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"elman": "#c2571a", "gru": "#1f6f8b"}
STYLES = {"greedy": "-", "T 0.7": "--", "T 1": ":"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report")
    parser.add_argument("svg")
    args = parser.parse_args()
    with open(args.report) as file:
        report = json.load(file)

    plt.rcParams["svg.hashsalt"] = "redrafter"  # the same input gives the same file
    figure, (by_width, by_depth) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for cell, colour in COLOURS.items():
        for sampling, style in STYLES.items():
            rows = [r for r in report["results"] if r["cell"] == cell and r["sampling"] == sampling]
            five = [r for r in rows if r["beamLength"] == 5]
            by_width.plot(
                [r["beamWidth"] for r in five],
                [r["tokensPerStep"] for r in five],
                style,
                marker="o",
                markersize=3,
                color=colour,
                label=f"{cell}, {sampling}",
            )
            chain = next(r for r in five if r["beamWidth"] == 1)
            by_depth.plot(
                range(1, 6), chain["acceptanceByDepth"], style, marker="o", markersize=3, color=colour
            )
    by_width.set_xscale("log", base=2)
    by_width.set_xticks([1, 2, 4, 8, 16], labels=["1", "2", "4", "8", "16"])
    by_width.set_xlabel("beam width W (5 drafted tokens per beam)")
    by_width.set_ylabel("tokens per step, bonus token included")
    by_width.set_ylim(bottom=1)
    by_width.grid(alpha=0.3)
    by_width.legend(fontsize=8)
    by_depth.set_xticks(range(1, 6))
    by_depth.set_xlabel("depth of the drafted token (chain, W = 1)")
    by_depth.set_ylabel("share of rounds that accept it")
    by_depth.set_ylim(0, 1)
    by_depth.grid(alpha=0.3)
    figure.savefig(args.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
