"""Plots the JSON of bench/e2e/load.mjs: throughput and latency against the arrival rate, one line per way of drafting.

    python3 bench/e2e/plot_load.py bench/results/FILE.json docs/load.svg

Needs matplotlib (Debian: python3-matplotlib).
"""

import argparse
import json

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"adaptive": "#2e7d4f", "fixed": "#1f6f8b", "off": "#c2571a"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report")
    parser.add_argument("svg")
    args = parser.parse_args()
    with open(args.report) as file:
        report = json.load(file)

    plt.rcParams["svg.hashsalt"] = "redrafter"  # the same input gives the same file
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    throughput, first_token, per_token = panels
    for drafting, colour in COLOURS.items():
        rows = [r for r in report["rows"] if r["drafting"] == drafting]
        if not rows:
            continue
        rates = [r["perSecond"] for r in rows]
        line = {"marker": "o", "markersize": 3, "color": colour}
        throughput.plot(rates, [r["tokensPerSecond"] for r in rows], label=f"drafting {drafting}", **line)
        for panel, key in ((first_token, "timeToFirstTokenMs"), (per_token, "timePerTokenMs")):
            panel.plot(rates, [r[key]["p50"] for r in rows], label=f"{drafting}, p50", **line)
            panel.plot(rates, [r[key]["p95"] for r in rows], "--", label=f"{drafting}, p95", **line)
    throughput.set_ylabel("tokens per second")
    throughput.set_ylim(bottom=0)
    first_token.set_ylabel("time to the first token, ms")
    first_token.set_yscale("log")
    per_token.set_ylabel("time per token after it, ms")
    per_token.set_ylim(bottom=0)
    for panel in panels:
        if report["capacity"] is not None:
            panel.axvline(report["capacity"], color="#888888", linewidth=0.8, linestyle=":")
        panel.set_xlabel("requests per second that come")
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(args.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
