"""Errors of latency predictions, and how the latency benchmark reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
WAYS = (
    ("levelled", "**the table by the session scale of twelve networks timed then** (what the program does)"),
    ("by_reference", "the table, scaled by the reference network alone"),
    ("at_table", "the table as it is, half an hour old"),
    ("raw_sum", "raw sum of the units' medians, by the session scale"),
    ("madds", "MAdds alone, by the session scale"),
)
HEADER = "| prediction | mean error | largest | bias | within ±5 % | Spearman |\n|---|---|---|---|---|---|"


def spearman(a: Numbers, b: Numbers) -> float:
    """Spearman's rank correlation (no ties in measured times)."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def compared(predicted: Numbers, measured: Numbers) -> dict[str, float]:
    """Mean, largest and signed relative error in percent, and the rank correlation."""
    error = 100 * (predicted / measured - 1)
    return {
        "mean_error_percent": float(np.abs(error).mean()),
        "max_error_percent": float(np.abs(error).max()),
        "bias_percent": float(error.mean()),
        "within_5_percent": float(np.mean(np.abs(error) <= 5)),
        "spearman": spearman(predicted, measured),
    }


def line(label: str, errors: Mapping[str, float]) -> str:
    """One row under :data:`HEADER`."""
    return (
        f"| {label} | {errors['mean_error_percent']:.1f} % | {errors['max_error_percent']:.1f} % "
        f"| {errors['bias_percent']:+.1f} % | {100 * errors['within_5_percent']:.0f} % | {errors['spearman']:.3f} |"
    )


def report(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Every case as Markdown, the summary first."""
    lines = [
        "# Tables of this machine against whole networks in another process, at least 30 minutes later",
        "",
        "One thread, batch 1. Unseen random networks of each space, timed whole in turn with the reference network;",
        "the table's own calibration networks are not among them. *Halves of the truth*: the medians of odd rounds",
        "against those of even ones, the noise that no prediction can beat. The form of the calibration and of the",
        "the session scale was settled on earlier measurements of networks of the same spaces, some of them these.",
        "Other families: their units are measured in the new session, no network of them before.",
        "",
        "| case | table | minutes apart | mean error | within ±5 % | Spearman | halves of the truth: Spearman |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, found in numbers.items():
        errors, halves = found["errors"]["levelled"], found["truth_halves"]
        filled = f"{found['seconds']:.0f} s" if "seconds" in found else "its units alone"
        apart = f"{found['minutes_apart']:.0f}" if "minutes_apart" in found else "0"
        lines.append(
            f"| {case} | {filled} | {apart} | {errors['mean_error_percent']:.2f} % "
            f"| {100 * errors['within_5_percent']:.0f} % | {errors['spearman']:.3f} | {halves['spearman']:.3f} |"
        )
    for case, found in numbers.items():
        lines += ["", f"## {case}", "", *_details(found), "", HEADER]
        lines += [line(label, found["errors"][key]) for key, label in WAYS]
        lines.append(line("halves of the truth", found["truth_halves"]))
        if "names" in found:
            each = zip(found["names"], found["predicted_ms"], found["measured_ms"], strict=True)
            lines += ["", ", ".join(f"{name} {100 * (p / m - 1):+.1f} %" for name, p, m in each)]
    return "\n".join(lines)


def _details(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if "units" in found:
        lines.append(
            f"{found['units']} units and {found['calibration_networks']} calibration networks, {found['rounds']} "
            f"rounds of each, in {found['seconds']:.0f} s; asked again {found['seconds_again']:.1f} s, "
            f"{found['entries_measured_again']} measured again. A repeat of a unit spreads by "
            f"{found['unit_spread_percent']:.1f} %, odd and even rounds disagree by "
            f"{found['halves_disagree_percent']:.1f} %, the machine's speed varied by "
            f"{found['pace_varied_percent']:.1f} %. Held-out error of the calibration "
            f"{found['held_out_percent']:.1f} %."
        )
    shares = 100 * found["within_one_stated"], 100 * found["within_two_stated"]
    lines.append(
        f"{found['networks']} networks, {found['truth_rounds']} rounds, "
        f"each median known to {found['truth_error_percent']:.1f} %. Since the "
        f"table networks took {found['level']['factor']:.3f} times as long (±{100 * found['level']['error']:.1f} %). "
        f"Stated deviation {found['stated_error_percent']:.1f} %: {shares[0]:.0f} % lie within one, "
        f"{shares[1]:.0f} % within two."
    )
    return lines
