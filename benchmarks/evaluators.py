"""How well each evaluator orders networks whose accuracy is known: Kendall's τ, beside MAdds alone.

Three sets: 300 networks of Accel-NASBench and 300 of once-for-all, where their rows are at hand (``MNV3SEARCH_DATA``),
and networks of ``mnv3_small_32`` trained on CIFAR-10, where ``--data`` names it (``--train`` trains them: half
an hour of one core; what is finished is kept, and the next call goes on).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._evaluators_page import page
from benchmarks._evaluators_scores import Known, known_networks, scored
from benchmarks._evaluators_truth import stratified, train_truths, validated
from benchmarks._results import write_results

Floats = NDArray[np.float64]

MADDS, PARAMETERS, ZEN, SYNFLOW = (f"zero_cost:{name}" for name in ("madds", "parameters", "zen", "synflow"))
SUMS = {
    "ranks of zen + synflow + parameters": (ZEN, SYNFLOW, PARAMETERS),
}
"""Sums of ranks with equal weights; chosen after both tables and before the trainings."""
RESAMPLES = 2_000
LEVEL = 0.95


def kendall(values: Floats, truth: Floats, weights: Floats) -> Floats:
    """Kendall's τ-b of two lists (n,) for each row of ``weights`` (m, n): how often each network is in a resample."""
    a, b = np.sign(values[:, None] - values), np.sign(truth[:, None] - truth)

    def pairs(signs: Floats) -> Floats:
        return np.asarray(np.einsum("mn,mn->m", weights @ signs, weights), dtype=np.float64)

    return pairs(a * b) / np.sqrt(pairs(np.abs(a)) * pairs(np.abs(b)))


def compared(scores: Mapping[str, Floats], truth: Floats, seed: int = 0) -> list[dict[str, Any]]:
    """τ of each evaluator and what it has over MAdds, both with bootstrap intervals over networks (the same draws)."""
    n = len(truth)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    whole = {name: float(kendall(values, truth, np.ones((1, n)))[0]) for name, values in scores.items()}
    resampled = {name: kendall(values, truth, draws) for name, values in scores.items()}
    edges = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    rows = []
    for name, tau in whole.items():
        low, high = np.nanquantile(resampled[name], edges)
        over_low, over_high = np.nanquantile(resampled[name] - resampled[MADDS], edges)
        rows.append(
            {"evaluator": name, "tau": tau, "low": low, "high": high, "over_madds": tau - whole[MADDS],
             "over_low": over_low, "over_high": over_high}
        )  # fmt: skip
    return rows


def with_sums(scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """The scores and the sums of their ranks."""
    from scipy.stats import rankdata

    sums = {name: np.sum([rankdata(scores[part]) for part in parts], axis=0) for name, parts in SUMS.items()}
    return {**scores, **sums}


def result_of(known: Known, answers: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Everything that is kept of one set of networks."""
    truth = np.array(known.top1)
    scores = {name: np.array([score for score, _ in found]) for name, found in answers.items()}
    rows = compared(with_sums(scores), truth)
    for row in rows:
        found = answers.get(row["evaluator"])
        row["seconds_each"] = None if found is None else float(np.median([seconds for _, seconds in found]))
    spread = {"networks": len(truth), "top1_least": truth.min(), "top1_most": truth.max(), "top1_std": truth.std()}
    return {"source": known.source, **spread, "evaluators": rows}


def by_epoch(curves: Sequence[Sequence[float]], truth: Sequence[float], seed: int = 0) -> list[dict[str, Any]]:
    """τ of the truths with what their own trainings had after each epoch, with bootstrap intervals over networks."""
    n = len(truth)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    rows = []
    for epoch, values in enumerate(np.array(curves).T, start=1):
        tau = float(kendall(values, np.array(truth), np.ones((1, n)))[0])
        low, high = np.nanquantile(kendall(values, np.array(truth), draws), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        rows.append({"epoch": epoch, "tau": tau, "low": low, "high": high})
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as a folder or an archive")
    parser.add_argument("--train", action="store_true", help="train the networks that are the truth on CIFAR-10")
    parser.add_argument("--trained", type=int, default=12, help="how many of them")
    parser.add_argument("--images", type=int, default=10_000, help="that each is trained on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--networks", type=int, default=300, help="rows of each table")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluators"), help="where it goes on from")
    parser.add_argument("--keep", action="store_true", help="write results/<date>-evaluators")
    return parser.parse_args()


def main() -> None:
    """Train what is missing, ask every evaluator, compare, and keep."""
    import torch

    args = arguments()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = None
    if args.data:
        from mnv3search.training.data.open_data import open_data

        data = open_data(str(args.data), scan=False)
    if args.train:
        train_truths(stratified(args.trained), args.data, args.images, args.epochs, args.out)
    results = {}
    for known in known_networks(args.networks, args.out / "truths.jsonl"):
        if known.name != "CIFAR-10" or data is not None:
            results[known.name] = result_of(known, scored(known, args.out, data))
        if known.name == "CIFAR-10" and data is not None:
            results[known.name]["epochs"] = by_epoch(validated(args.out), known.top1)
    text = page(results)
    print(text)
    if args.keep:
        folder = write_results("evaluators", results, text, seeds=[0])
        truths = args.out / "truths.jsonl"
        if truths.exists():
            (folder / "truths.jsonl").write_text(truths.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
