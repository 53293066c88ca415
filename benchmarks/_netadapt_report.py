"""The end of the benchmark of NetAdapt: every network timed whole, the curves held against one another, the page."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._netadapt_magnitude import pruned
from benchmarks._netadapt_setup import BATCH, Budget, Records, multiplier
from benchmarks._results import write_results
from mnv3search.architecture import Architecture, to_mapping
from mnv3search.cost import count
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.report.plots import BEST, GROUP_COLOURS, QUIET, canvas, save, write_legend

SESSIONS = 2
TEST_IMAGES = 10_000
BOUNDS = {"at least": "≥ ", "at most": "≤ ", "known": ""}
KINDS = {"netadapt": "NetAdapt", "multiplier": "width multiplier", "pruner": "torch-pruning"}


def time_all(work: Path, budget: Budget, seed: int) -> None:
    """Time every network whole, all in turn, in sessions of their own; they need not be trained yet."""
    networks, records = everyone(work, budget), Records(work)
    for session in range(1, SESSIONS + 1):
        times = TableDevice(cache_dir=work / "table").measure(list(networks.values()))
        found = {n: {"ms": t.latency_ms, "error_ms": t.error_ms} for n, t in zip(networks, times, strict=True)}
        records.keep(f"times-{session}", networks=found)


def everyone(work: Path, budget: Budget) -> dict[str, Architecture]:
    """Every network of the benchmark by its name."""
    from mnv3search.training.trained import load_trained

    base, chosen = load_trained(work / "base"), Records(work).known["ratios"]["chosen"]
    found = {"base": base.architecture}
    for target in budget.targets:
        name = f"netadapt-{target:g}"
        found[name] = load_trained(work / name).architecture
        found[f"pruner-{target:g}"] = pruned(base, float(chosen[name])).architecture
    return found | {f"multiplier-{width:g}": multiplier(width) for width in budget.widths}


def rows_of(work: Path, budget: Budget) -> list[dict[str, Any]]:
    """Every network that is trained: its accuracy, its latency over the sessions, and what it cost to train."""
    from mnv3search.training.trained import load_trained

    records = Records(work)
    sessions = [records.known[f"times-{n}"]["networks"] for n in range(1, SESSIONS + 1)]
    rows: list[dict[str, Any]] = []
    for name, entry in records.known.items():
        if "file" not in entry:
            continue
        architecture = load_trained(work / entry["file"]).architecture
        counts, ms = count(architecture), [session[name]["ms"] for session in sessions]
        share = entry["test_top1"] / 100
        rows.append(
            {
                "name": name, "kind": name.split("-", maxsplit=1)[0], "test_top1": entry["test_top1"],
                "test_top1_std": 100 * math.sqrt(share * (1 - share) / TEST_IMAGES), "val_top1": entry["val_top1"],
                "latency_ms": float(np.mean(ms)), "sessions_ms": ms,
                "latency_error_ms": float(np.mean([session[name]["error_ms"] for session in sessions])),
                "images": _images(records.known, entry), "madds": counts.madds, "parameters": counts.parameters,
                **{key: entry[key] for key in ("target", "width", "ratio", "steps", "seed") if key in entry},
                "architecture": to_mapping(architecture),
            }
        )  # fmt: skip
    return rows


def _images(known: Mapping[str, Mapping[str, Any]], entry: Mapping[str, Any]) -> int:
    """Images that a network's whole way was trained on, repeats counted: the base's too where it began from it."""
    before = int(known["base"]["images"]) if entry["name"].startswith(("netadapt", "pruner")) else 0
    return before + int(entry.get("proposal_images", 0)) + int(entry["images"])


def compare(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """NetAdapt at each target against both others.

    A speed-up is the latency at which the multipliers' curve has NetAdapt's accuracy, over NetAdapt's. Where even
    its widest has not, that one's latency is taken, and the speed-up is at least so much; where its narrowest has more,
    it is at most so much.
    """
    curve = multiplier_curve(rows)
    ms, top1 = [r["latency_ms"] for r in curve], [r["test_top1"] for r in curve]
    found = []
    for row in sorted((r for r in rows if r["kind"] == "netadapt"), key=lambda r: -r["latency_ms"]):
        at_same_latency = float(np.interp(row["latency_ms"], ms, top1))
        needed_ms = _first_reaching(ms, top1, row["test_top1"])
        entry = {
            "target": row["target"], "latency_ms": row["latency_ms"], "test_top1": row["test_top1"],
            "multiplier_top1_at_that_latency": at_same_latency,
            "ahead_of_multiplier": row["test_top1"] - at_same_latency,
            "difference_std": math.hypot(row["test_top1_std"], curve[-1]["test_top1_std"]),
            "multiplier_ms_at_that_top1": needed_ms,
            "speed_up": (ms[-1] if needed_ms is None else needed_ms) / row["latency_ms"],
            "speed_up_is": "at least" if needed_ms is None else "at most" if top1[0] > row["test_top1"] else "known",
            "extrapolated": not ms[0] <= row["latency_ms"] <= ms[-1],
        }  # fmt: skip
        other = next((r for r in rows if r["kind"] == "pruner" and r["target"] == row["target"]), None)
        if other is not None:
            entry |= {
                "pruner_top1": other["test_top1"], "pruner_ms": other["latency_ms"],
                "ahead_of_pruner": row["test_top1"] - other["test_top1"],
            }  # fmt: skip
        found.append(entry)
    return found


def multiplier_curve(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The multipliers by latency, linear between them; the base is width 1 where none was trained for as long."""
    wide = any(r.get("width") == 1 for r in rows)
    kinds = ("multiplier",) if wide else ("multiplier", "base")
    return sorted((r for r in rows if r["kind"] in kinds), key=lambda r: r["latency_ms"])


def _first_reaching(ms: Sequence[float], top1: Sequence[float], wanted: float) -> float | None:
    """The least latency at which the curve has ``wanted``; None where it never has."""
    if top1[0] >= wanted:
        return ms[0]
    for low in range(len(ms) - 1):
        if top1[low] < wanted <= top1[low + 1]:
            share = (wanted - top1[low]) / (top1[low + 1] - top1[low])
            return ms[low] + share * (ms[low + 1] - ms[low])
    return None


def draw(rows: Sequence[Mapping[str, Any]], png: Path, svg: Path) -> None:
    """Accuracy against measured latency, a line a method."""
    figure, axes = canvas("ms on this host, whole networks timed", "test top-1 (%)", "CIFAR-10: narrowing one network")
    base = [r for r in rows if r["kind"] == "base"]
    for index, (kind, label) in enumerate(KINDS.items()):
        members = [r for r in rows if r["kind"] == kind]
        members = sorted([*members, *base], key=lambda r: r["latency_ms"]) if members else []
        members = multiplier_curve(rows) if kind == "multiplier" else members
        axes.errorbar(
            [r["latency_ms"] for r in members], [r["test_top1"] for r in members],
            yerr=[r["test_top1_std"] for r in members], marker="o", ms=5, lw=1.5, capsize=2.5,
            color=BEST if kind == "netadapt" else GROUP_COLOURS[(0, 0, 3)[index]], label=label,
        )  # fmt: skip
    axes.errorbar(
        [r["latency_ms"] for r in base], [r["test_top1"] for r in base], fmt="D", ms=7, color=QUIET, label="base",
        zorder=5,
    )  # fmt: skip
    axes.margins(0.08)
    write_legend(figure, axes)
    save(figure, png, svg)


def report(work: Path, budget: Budget, seed: int) -> None:
    """Write ``results/<today>-netadapt``."""
    rows = rows_of(work, budget)
    against = compare(rows)
    text = page(work, rows, against, budget)
    print(text)
    numbers = {"budget": asdict(budget), "batch_size": BATCH, "networks": rows, "against": against}
    folder = write_results("netadapt", numbers, text, [seed])
    draw(rows, folder / "curve.png", folder / "curve.svg")
    shutil.copyfile(work / "netadapt" / "steps.csv", folder / "steps.csv")


def page(work: Path, rows: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]], budget: Budget) -> str:
    """The figures as Markdown."""
    lines = [*_method(budget), ""]
    lines += [
        "| network | test top-1 % | ms | sessions, ms | MAdds M | parameters k | images trained on |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['name']} | {r['test_top1']:.2f} ±{r['test_top1_std']:.2f} | {r['latency_ms']:.4f} "
        f"| {', '.join(f'{ms:.4f}' for ms in r['sessions_ms'])} | {r['madds'] / 1e6:.2f} "
        f"| {r['parameters'] / 1e3:.0f} | {r['images']:,} |"
        for r in sorted(rows, key=lambda r: (r["kind"], -r["latency_ms"]))
    ]
    lines += [
        "",
        "| target | NetAdapt | multiplier at that latency | ahead | speed-up at equal accuracy "
        "| torch-pruning | ahead |",
        "|---|---|---|---|---|---|---|",
        *(_against(entry) for entry in against),
        "",
        *(f"{note}\n" for note in notes_of(work)),
        "`curve.png` draws it; `steps.csv` holds NetAdapt's walk, step by step.",
    ]
    return "\n".join(lines)


def _method(budget: Budget) -> list[str]:
    return [
        "# NetAdapt with weights against width multipliers and torch-pruning, on CIFAR-10",
        "",
        "One network (MobileNetV3-Small for 32×32: 3×3 kernels, last stage at stride 1, a feature layer of 288 and no "
        f"hidden layer), trained for {budget.base_epochs} epochs of 45,000 images in batches of {BATCH}; seed 0. ± is "
        "one binomial standard deviation over the 10,000 test images. Latency: onnxruntime, one thread, whole networks "
        f"timed in turn, the mean of {SESSIONS} sessions.",
        "",
        f"- **NetAdapt**: δ {budget.step_fraction:g}, T = {budget.short_steps} steps of {budget.short_batch} images at "
        f"{budget.short_rate:g}, ΔAcc/|ΔLat| on {budget.held_images:,} held-out training images, by the table; at each "
        "target the first step that is fast enough when timed whole; then "
        f"{budget.long_epochs} epoch(s) at a highest rate of {budget.long_rate:g}.",
        "- **width multiplier**: every layer by torchvision's rule, from scratch for "
        f"{budget.scratch_epochs} epochs: the images of NetAdapt's whole way, base included, to within what the table "
        "shows. Between the widths its curve is linear; a speed-up is the latency at which it has NetAdapt's accuracy, "
        "over NetAdapt's.",
        "- **torch-pruning** 1.6.1: global group magnitude, channels rounded to 8, from the same base, cut to the "
        "measured latency of NetAdapt's network; fine-tuned with the images of NetAdapt's proposals and long "
        "fine-tune, rounded up to whole epochs.",
    ]


def notes_of(work: Path) -> list[str]:
    """What was tried beside, a sentence a line in ``notes.txt``: a result is to be read with it."""
    file = work / "notes.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _against(entry: Mapping[str, Any]) -> str:
    speed = f"{BOUNDS[entry['speed_up_is']]}{entry['speed_up']:.2f}×"
    # A narrower multiplier than the narrowest that was trained would have less.
    most, least, outside = ("≤ ", "≥ ", " (its narrowest)") if entry["extrapolated"] else ("", "", "")
    pruner = (
        f"{entry['pruner_top1']:.2f} % at {entry['pruner_ms']:.4f} ms | {entry['ahead_of_pruner']:+.2f}"
        if "pruner_top1" in entry
        else "– | –"
    )
    return (
        f"| {entry['target']:g}x | {entry['test_top1']:.2f} % at {entry['latency_ms']:.4f} ms "
        f"| {most}{entry['multiplier_top1_at_that_latency']:.2f} %{outside} "
        f"| {least}{entry['ahead_of_multiplier']:+.2f} ±{entry['difference_std']:.2f} "
        f"| {speed} | {pruner} |"
    )
