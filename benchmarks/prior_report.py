"""How the prior's figures are printed and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OWN_RECIPES = ("mobilenet_v2", "mobilenet_v3", "mnasnet")
"""Families whose rows count as the papers' own recipes; V1's are fitted and said beside them."""


@dataclass(frozen=True)
class Figures:
    """Everything that the benchmark found; summaries are those of ``HeldOut.summary``."""

    once_for_all: Mapping[str, float]
    accel_nasbench: Mapping[str, float]
    published: Mapping[str, float]
    mobilenet_v1: Mapping[str, float]
    by_family: Mapping[str, Mapping[str, float]]
    family_out: Mapping[str, Mapping[str, float]]
    madds_alone: Mapping[str, Mapping[str, float]]
    outside: Sequence[Mapping[str, object]]
    left_out: Sequence[Mapping[str, object]]
    shipped: Sequence[Mapping[str, object]]
    timing: Mapping[str, float]
    far_scale: float
    std_scale: float
    seconds: float
    file_bytes: int

    def numbers(self) -> dict[str, Any]:
        """As they are kept."""
        return asdict(self)


def _goals(f: Figures) -> list[tuple[str, str, str, bool]]:
    """What was to be reached, what was, and whether it suffices."""
    ofa, anb, own = f.once_for_all, f.accel_nasbench, f.published
    goals = [
        ("once-for-all, 5 folds by effective network: RMSE", "≤ 0.10", f"{ofa['rmse']:.3f}", ofa["rmse"] <= 0.10),
        ("once-for-all: Kendall τ", "≥ 0.95", f"{ofa['tau']:.3f}", ofa["tau"] >= 0.95),
        ("Accel-NASBench, 5 folds: Kendall τ", "≥ 0.88", f"{anb['tau']:.3f}", anb["tau"] >= 0.88),
        ("published, one network at a time: mean error", "≤ 0.6", f"{own['mean_error']:.2f}", own["mean_error"] <= 0.6),
        ("published: largest error", "≤ 3", f"{own['largest_error']:.2f}", own["largest_error"] <= 3),
    ]
    for name, summary in (("once-for-all", ofa), ("Accel-NASBench", anb), ("published", own)):
        one, two = summary["within_one"], summary["within_two"]
        goals.append((f"{name}: within one deviation", "60–76 %", f"{one:.1%}", 0.60 <= one <= 0.76))
        goals.append((f"{name}: within two", "90–98 %", f"{two:.1%}", 0.90 <= two <= 0.98))
    one, batch = f.timing["one_ms"], f.timing["batch_1000_ms"]
    goals.append(("one architecture", "≤ 1 ms", f"{one:.2f} ms", one <= 1))
    goals.append(("1,000 architectures", "≤ 100 ms", f"{batch:.0f} ms", batch <= 100))
    goals.append(("the shipped file", "≤ 1 MB", f"{f.file_bytes / 1e6:.2f} MB", f.file_bytes <= 1_000_000))
    return goals


def _by_family(title: str, summaries: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [
        f"## {title}", "",
        "| family | rows | mean error | largest | mean deviation stated | within one | within two |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, s in summaries.items():
        lines.append(
            f"| {name} | {s['rows']:.0f} | {s['mean_error']:.2f} | {s['largest_error']:.2f} | {s['mean_std']:.2f} | "
            f"{s['within_one']:.0%} | {s['within_two']:.0%} |"
        )
    return [*lines, ""]


def page(f: Figures) -> str:
    """The figures in Markdown."""
    lines = [
        "# The ImageNet prior on what it has not seen", "",
        "Both tables: 5 folds grouped by effective network, hyper-parameters and inducing points chosen anew in each,",
        "deviations scaled by the other folds. Published: one network at a time; hyper-parameters were chosen with all",
        "of them, deviations are scaled by the other networks. The features themselves were designed on these data.",
        "",
        "Beside rows the fit is given beliefs (`prior_changes.py`, no accuracies in them): narrowing, smaller kernels,",
        "a squeeze-excite less must not raise top-1, and no network is far above V3-Large of its MAdds. Networks that",
        "an evolution presses out of a fit are added to them. They move the mean, and never narrow a deviation.",
        "", "| what | goal | reached | |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {what} | {goal} | {got} | {'yes' if met else 'NO'} |" for what, goal, got, met in _goals(f)]
    alone = f.madds_alone
    lines += [
        "", f"A line through log-MAdds alone: once-for-all RMSE {alone['0']['rmse']:.2f}, τ {alone['0']['tau']:.2f}; "
        f"Accel-NASBench τ {alone['1']['tau']:.2f}.",
        f"Accel-NASBench RMSE {f.accel_nasbench['rmse']:.2f}. Deviations that ship: times {f.std_scale:.3f}, "
        f"far from published networks up to times {f.far_scale:.2f} more (from families left out). "
        f"The first batch of 1,000, nothing cached: {f.timing['batch_1000_first_ms']:.0f} ms. "
        f"All of it: {f.seconds:.0f} s.",
        "",
    ]  # fmt: skip
    lines += _by_family("One published network at a time", {**f.by_family, "mobilenet_v1": f.mobilenet_v1})
    lines += _by_family(
        "A whole family left out, hyper-parameters too; the widening of deviations from the others",
        f.family_out,
    )
    lines += ["## Trained by other recipes: never fitted, predicted as the papers train", "",
              "| network | by its recipe | predicted |", "|---|---|---|"]  # fmt: skip
    lines += [f"| {o['label']} | {o['top1_by_its_recipe']} | {o['predicted']} ± {o['std']} |" for o in f.outside]
    lines += ["", "## Each published network", "", "| network | published | left out | shipped |", "|---|---|---|---|"]
    for out, shipped in zip(f.left_out, f.shipped, strict=True):
        lines.append(
            f"| {out['network']} | {out['published']} | {out['predicted']} ± {out['std']} | "
            f"{shipped['predicted']} ± {shipped['std']} |"
        )
    return "\n".join(lines) + "\n"
