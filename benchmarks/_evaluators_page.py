"""The page of ``benchmarks/evaluators.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTES = """
τ is Kendall's τ-b with the truth; intervals are 95 %, by a bootstrap over networks. *Over MAdds* is τ less that of
MAdds on the same draws: above 0 throughout its interval, an evaluator is better than counting. Seconds are of CPU time
on one thread, the median over networks, with building the network.

Networks of 224 px are scored at 32 px (synflow at 64) unless a row says otherwise: these defaults were chosen by cost,
with both tables in sight. Weights and noise are of seed 0, one draw. The sum of ranks has equal weights and was chosen
after both tables were looked at and before the trainings; it orders a set, and so is no evaluator.
The prior was fitted to rows of both tables, so its figures there are no test of it: `results/*-prior` holds it to rows
and families that were left out.
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each set of networks, and what the figures are."""
    parts = ["# Evaluators against known accuracies", NOTES.strip()]
    for name, result in results.items():
        parts += [
            f"## {name}",
            f"{result['networks']} networks, {result['source']}: {result['top1_least']:.2f} to "
            f"{result['top1_most']:.2f} %, standard deviation {result['top1_std']:.2f}.",
            "\n".join([*_HEAD, *(_row(row) for row in sorted(result["evaluators"], key=lambda row: -row["tau"]))]),
            _verdict(result["evaluators"]),
            *_curve(result.get("epochs", ())),
        ]
    return "\n\n".join(parts)


_HEAD = ("| evaluator | τ | 95 % | over MAdds | 95 % | s |", "|---|---|---|---|---|---|")


def _row(row: Mapping[str, Any]) -> str:
    seconds = "–" if row["seconds_each"] is None else f"{row['seconds_each']:.2g}"
    own = f"{row['low']:.3f} to {row['high']:.3f}"
    if row["evaluator"] == "zero_cost:madds":
        return f"| {row['evaluator']} | {row['tau']:.3f} | {own} | | | {seconds} |"
    over = f"{row['over_low']:+.3f} to {row['over_high']:+.3f}"
    return f"| {row['evaluator']} | {row['tau']:.3f} | {own} | {row['over_madds']:+.3f} | {over} | {seconds} |"


def _curve(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """How soon the trainings of the truth show their order: what a proxy of as many epochs, or a pruner, goes by."""
    if not epochs:
        return []
    head = "| after epoch | " + " | ".join(str(e["epoch"]) for e in epochs) + " |"
    rows = ["|---" * (len(epochs) + 1) + "|", "| τ | " + " | ".join(f"{e['tau']:.2f}" for e in epochs) + " |"]
    rows.append("| 95 % | " + " | ".join(f"{e['low']:.2f} to {e['high']:.2f}" for e in epochs) + " |")
    return [
        "The same trainings before their end, by their top-1 on 1,000 validation images, against the truth. They share "
        "seed and images with it, so this is no evaluator; the last epoch shows what so few images let anyone see:",
        "\n".join([head, *rows]),
    ]


def _verdict(rows: list[Mapping[str, Any]]) -> str:
    others = [row for row in rows if row["evaluator"] != "zero_cost:madds"]
    groups = {
        "Better than MAdds": [row["evaluator"] for row in others if row["over_low"] > 0],
        "worse": [row["evaluator"] for row in others if row["over_high"] < 0],
        "not told apart": [row["evaluator"] for row in others if row["over_low"] <= 0 <= row["over_high"]],
    }
    return "; ".join(f"{group}: {', '.join(names) if names else 'none'}" for group, names in groups.items()) + "."
