"""How the prior's figures are printed and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OWN_RECIPES = ("mobilenet_v2", "mobilenet_v3", "mnasnet")
"""Families whose rows count as the papers' own recipes; V1's are fitted and said beside them."""
TITLES = {"once_for_all": "once-for-all", "accel_nasbench": "Accel-NASBench"}


@dataclass(frozen=True)
class Figures:
    """Everything that the benchmark found; summaries are those of ``HeldOut.summary``."""

    tables: Mapping[str, Any]
    published: Mapping[str, Any]
    sharing: Sequence[Mapping[str, float]]
    timing: Mapping[str, float]
    seconds: float
    file_bytes: int

    def numbers(self) -> dict[str, Any]:
        """As they are kept."""
        return asdict(self)


def _goals(f: Figures) -> list[tuple[str, str, str, bool]]:
    """What was to be reached, what was, and whether it suffices."""
    goals = []
    for name, least in (("once_for_all", 0.93), ("accel_nasbench", 0.88)):
        tau = f.tables[name]["evaluate"]["tau"]
        goals.append((f"{TITLES[name]}, 5 folds, `evaluate`: Kendall τ", f"≥ {least}", f"{tau:.3f}", tau >= least))
    own, later = f.published["one_out"], f.published["later_families_out"]
    error, bias = own["mean_error"], later["bias"]
    goals.append(("published, one network left out: mean error", "≤ 0.45", f"{error:.2f}", error <= 0.45))
    goals.append(("families never fitted, without V1 to V3: bias", "within ±0.4", f"{bias:+.2f}", abs(bias) <= 0.4))
    covered = {**{TITLES[name]: f.tables[name]["coverage"] for name in TITLES}, "published": f.published["coverage"]}
    for name, bands in covered.items():
        for distance, band in zip(("near", "farther", "farthest"), bands, strict=True):
            one, two = band["within_one"], band["within_two"]
            met = 0.60 <= one <= 0.76 and 0.90 <= two <= 0.98
            what = f"{name}, {distance} third, ±{band['std']:.2f}: within one / two deviations"
            goals.append((what, "60–76 / 90–98 %", f"{one:.0%} / {two:.0%}", met))
    one_ms, batch = f.timing["one_ms"], f.timing["batch_1000_ms"]
    goals.append(("one architecture", "≤ 1 ms", f"{one_ms:.2f} ms", one_ms <= 1))
    goals.append(("1,000 architectures", "≤ 100 ms", f"{batch:.0f} ms", batch <= 100))
    goals.append(("the shipped file", "≤ 1 MB", f"{f.file_bytes / 1e6:.2f} MB", f.file_bytes <= 1_000_000))
    return goals


def _tables(f: Figures) -> list[str]:
    lines = [
        "## The two tables, held out", "",
        "| rows | answered by | RMSE, its offset taken away | bias | τ | τ of log-MAdds alone |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for source, (name, title) in enumerate(TITLES.items()):
        for key, how in (("evaluate", "`ImagenetPrior()`"), ("recipe", f'`ImagenetPrior(recipe="{name}")`')):
            s = f.tables[name][key]
            alone = f.tables["madds_alone"][str(source)]
            lines.append(
                f"| {title} | {how} | {s['rmse_without_bias']:.3f} | {s['bias']:+.2f} | {s['tau']:.3f} | {alone:.3f} |"
            )
    return [*lines, ""]


def _families(f: Figures) -> list[str]:
    lines = [
        "## A whole family left out, hyper-parameters too", "",
        "| family | rows | bias | mean error | largest | mean deviation stated |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    everyone = {**f.published["by_family"], "all": f.published["families_out"], "without V1 to V3":
                f.published["later_families_out"]}  # fmt: skip
    for name, s in everyone.items():
        std = f"{s['std']:.2f}" if "std" in s else ""
        lines.append(
            f"| {name} | {s['rows']} | {s['bias']:+.2f} | {s['mean_error']:.2f} | {s['largest_error']:.2f} | {std} |"
        )
    return [*lines, ""]


def _sharing(f: Figures) -> list[str]:
    lines = [
        "## How much is shared", "",
        "A source by the other sources alone: published networks have a part of their own beside what all share, of",
        "these scales. Hyper-parameters are those that ship; the amount that ships is the third line's.", "",
        "| own linear | own bend | τ of once-for-all | τ of Accel-NASBench | published family out | one out |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {s['own_linear']} | {s['own_bend']} | {s['tau_once_for_all']:.3f} | {s['tau_accel_nasbench']:.3f} | "
        f"{s['families_out_mean_error']:.2f} | {s['one_out_mean_error']:.2f} |"
        for s in f.sharing
    ]
    return [*lines, ""]


def page(f: Figures) -> str:
    """The figures in Markdown."""
    lines = [
        "# The ImageNet prior on what it has not seen", "",
        "Both tables: 5 folds grouped by effective network, hyper-parameters and inducing points chosen anew in",
        "each, as `ImagenetPrior().evaluate` answers and in their own recipe, the mean over the folds; deviations",
        "by the other folds' errors. Published: one network at a time, hyper-parameters chosen with all of them",
        "(of seed 2, the best of 0 to 2 in an earlier form of the fit), and a",
        "family at a time, hyper-parameters without it;",
        "deviations by the other families' errors. Distance from the data is the process's own variance, in thirds",
        "of the rows: published networks left out alone and with their family together. Features, scale and",
        "sharing were designed on these data, looking at such figures a dozen times.",
        "",
        "Beside rows the fit is given beliefs (`prior_changes.py`, no accuracies in them): narrowing, smaller kernels,",
        "a squeeze-excite less must not raise top-1, and no network is far above V3-Large of its MAdds. Networks that",
        "an evolution presses out of a fit are added to them. They move the mean, and never narrow a deviation.",
        "", "| what | goal | reached | |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {what} | {goal} | {got} | {'yes' if met else 'NO'} |" for what, goal, got, met in _goals(f)]
    lines += ["", f"All of it: {f.seconds:.0f} s. The first batch of 1,000, nothing cached: "
              f"{f.timing['batch_1000_first_ms']:.0f} ms.", ""]  # fmt: skip
    lines += [*_tables(f), *_families(f), *_sharing(f)]
    lines += ["## Each published network left out alone", "", "| network | published | predicted |", "|---|---|---|"]
    lines += [f"| {o['network']} | {o['published']} | {o['predicted']} ± {o['std']} |" for o in f.published["left_out"]]
    return "\n".join(lines) + "\n"
