"""What the benchmark of NetAdapt compares, and with what budget: every figure that a result depends on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnv3search.architecture import Architecture
from mnv3search.errors import DataError
from mnv3search.families.scaling import scale_width
from mnv3search.files import append_lines
from mnv3search.space import load_space
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.data.splits import DataSplits
from mnv3search.training.recipe import Recipe, load_recipe

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
RESOLUTION = 32
BATCH = 32
LAST_STAGE = 8  # the first block of it
HELD_OUT = 0.1  # of the training images, for NetAdapt to score its proposals on


@dataclass(frozen=True, slots=True)
class Budget:
    """How much everything is trained; an epoch is one pass over the 45,000 training images.

    Attributes:
        base_epochs: of the network that all prunings begin from.
        long_epochs, long_rate: of the fine-tune after NetAdapt.
        step_fraction: NetAdapt's δ.
        short_steps, short_batch, short_rate: of each proposal's fine-tune.
        held_images: of the training images, to score proposals on.
        walk_to: share of the base's latency, by the table, at which NetAdapt's walk ends.
        targets: shares of the base's latency, whole networks measured.
        widths: multipliers, each trained from scratch with ``scratch_epochs``: the base's, the long fine-tune's and, in
            whole epochs rounded up, all of NetAdapt's proposals down to the lowest target.
    """

    base_epochs: int = 6
    long_epochs: int = 1
    long_rate: float = 0.01
    step_fraction: float = 0.015
    short_steps: int = 12
    short_batch: int = 32
    short_rate: float = 0.005
    held_images: int = 1_500
    walk_to: float = 0.55
    targets: tuple[float, ...] = (0.8, 0.7, 0.6)
    widths: tuple[float, ...] = (0.55, 0.4, 0.25, 0.75, 1.0)
    scratch_epochs: int = 8


BUDGETS = {
    "short": Budget(),
    "long": Budget(base_epochs=12, long_epochs=4, long_rate=0.01, short_steps=24, scratch_epochs=17),
}
"""By name; a long fine-tune of one epoch hardly makes up for trainings that all multipliers have in one go."""


def base_architecture() -> Architecture:
    """MobileNetV3-Small for 32×32 images: ``mnv3_small_32``'s reference, 3×3, its last stage at stride 1, a small head.

    On maps of 16 to 4 pixels a 5×5 kernel sees mostly padding, the last stage would end at 2×2, and a hidden layer of
    1024 channels before 10 logits would be a fifth of the latency, which no layer of NetAdapt's could narrow.
    """
    reference = load_space("mnv3_small_32").reference
    blocks = tuple(
        replace(block, kernel_size=3, stride=1 if index == LAST_STAGE else block.stride)
        for index, block in enumerate(reference.blocks)
    )
    return replace(reference, blocks=blocks, head=replace(reference.head, feature_channels=288, hidden_channels=None))


def multiplier(width: float) -> Architecture:
    """The base by a width multiplier that scales every layer, the head's too (torchvision's rule)."""
    base = base_architecture()
    found = scale_width(base, width, "torchvision")
    feature = max(8, round(width * (base.head.feature_channels or 0) / 8) * 8)
    return replace(found, head=replace(found.head, feature_channels=feature))


def recipe(epochs: int, rate: float = 0.04) -> Recipe:
    """``small_32`` for so many epochs in batches of 32, whose more and smaller steps learn more in few epochs."""
    return (
        load_recipe("small_32").for_epochs(epochs).changed(batch_size=BATCH, reference_batch=BATCH, learning_rate=rate)
    )


def preprocessing() -> Preprocessing:
    """CIFAR-10's own mean and deviation."""
    return Preprocessing(RESOLUTION, CIFAR_MEAN, CIFAR_STD)


def data(held_out: float = 0.0) -> DataSplits:
    """CIFAR-10: 45,000 images to learn from, 5,000 of the training set to choose by, 10,000 to judge by.

    ``held_out`` is the share of the 45,000 that is left out, for NetAdapt to score its proposals on.

    Raises:
        DataError: the environment does not say where they are.
    """
    root = os.environ.get("MNV3SEARCH_DATA")
    if not root:
        raise DataError("set MNV3SEARCH_DATA to the folder that holds cifar10.zip")
    return open_data(str(Path(root) / "cifar10.zip"), scan=False, netadapt_share=held_out)


class Records:
    """Named results in ``results.jsonl``: what is there is not done again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.known: dict[str, dict[str, Any]] = {}
        for line in lines:
            entry = json.loads(line)
            self.known[entry["name"]] = entry

    def keep(self, name: str, **figures: Any) -> dict[str, Any]:
        """Write a result as soon as it is there."""
        entry = {"name": name, **figures}
        append_lines(self.path, [json.dumps(entry)])
        self.known[name] = entry
        return entry
