"""The page and the picture of the transfer benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

ARMS = 4  # of a benchmark that came to its end
Numbers = Mapping[str, Mapping[str, Any]]


def page(asked: Mapping[str, Any], numbers: Numbers) -> str:
    """What was done and found, in Markdown."""
    lines = [
        f"# MobileNetV2 on {asked['images']:,} images of CIFAR-10 at 96×96: from ImageNet weights and from none",
        "",
        "| start | epochs | validation top-1 by epoch | best epoch | test top-1 |",
        "|---|---|---|---|---|",
    ]
    for name, found in numbers.items():
        tops = [record["val_top1"] for record in found["history"]]
        shown = tops if len(tops) <= 10 else [*tops[:2], None, *tops[-2:]]
        curve = " ".join("…" if top is None else f"{top:.1f}" for top in shown)
        test, images = found["test_top1"], found["test_images"]
        error = 100 * sqrt(test / 100 * (1 - test / 100) / images)
        lines.append(f"| {name} | {len(tops)} | {curve} | {found['best_epoch']} | {test:.1f} ± {error:.1f} % |")
    lines += ["", "![validation top-1 by epoch](transfer.png)", "", *_notes(asked, len(numbers))]
    return "\n".join(lines)


def _notes(asked: Mapping[str, Any], arms: int) -> list[str]:
    fresh = f"the fresh start is shown at {asked['fresh_rate']:g} too" if arms == ARMS else "no other was tried"
    return [
        f"One training each, seed {asked['seed']}; ± is the standard error of a share of {asked['test_images']:,} test "
        "images, not the spread between seeds. The images are stable subsets by the hash of their names, each class in "
        f"its share: {asked['images']:,} to train on, {asked['val_images']:,} of the held-out tenth of the training "
        f"split to choose the epoch by, {asked['test_images']:,} of the test split.",
        "",
        f"Both starts have the recipe `finetune` over {asked['epochs']} epochs with a rate of {asked['rate']:g}, a "
        "crop out of the image padded by 12 of 96 pixels, and flips. The rate was tuned for neither; "
        f"{fresh}. The new classifier on frozen features has the recipe "
        "`transfer`, whose epochs cost next to nothing: features are computed once. The weights are torchvision's "
        "`mobilenet_v2-b0353104.pth`, with which this package's network gives torchvision's logits "
        "(`tests/network/test_initial_weights.py`).",
    ]


def picture(path: Path, numbers: Numbers) -> None:
    """Validation top-1 by epoch; the frozen features' best as a line, since their epochs are of another kind."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    epochs = min(len(found["history"]) for found in numbers.values())
    for name, found in numbers.items():
        tops = [record["val_top1"] for record in found["history"]]
        if len(tops) > epochs:
            axes.axhline(max(tops), linestyle="--", color="0.4", label=f"{name}: {found['test_top1']:.1f} % on test")
            continue
        axes.plot(range(1, len(tops) + 1), tops, marker="o", label=f"{name}: {found['test_top1']:.1f} % on test")
    axes.set(xlabel="epoch", ylabel="validation top-1, %", ylim=(0, 100), title="MobileNetV2, CIFAR-10 at 96×96")
    axes.set_xticks(range(1, epochs + 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)
