"""The images of a pruning: those its short fine-tunes learn from, those that score, and those that judge at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.errors import DataError
from mnv3search.training.data.images import DataSplits, LabelledImages
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.splits import held_out, stable_subset

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

HELD_OUT = "NetAdapt"
MOST_HELD = 10_000  # the V3 paper's number; more would cost more than it tells


@dataclass(frozen=True, slots=True)
class PruningData:
    """What a pruning learns from, is judged by and held against.

    Attributes:
        learn: training images for the short fine-tunes.
        held: training images that score proposals; in none of these fine-tunes.
        splits: all of them, for the training at the end and the last judgement.
        beside: other trained networks, as they were named, that the result is held against.
    """

    learn: LabelledImages
    held: LabelledImages
    splits: DataSplits
    beside: Sequence[tuple[str, TrainedNetwork]] = ()

    @property
    def judged_by(self) -> str:
        """What judges at the end, in words."""
        return "test images" if self.splits.test is not None else "validation images"

    @property
    def judging(self) -> LabelledImages:
        """The test images where there are some, else those of the validation."""
        return self.splits.test if self.splits.test is not None else self.splits.val


def pruning_data(splits: DataSplits, held_share: float, images: int | None) -> PruningData:
    """Cut the training images, by the hash of their names, so that every session and process cuts alike.

    Args:
        splits: of one data set.
        held_share: of the training images to hold out; at most 10,000 of these score.
        images: how many of the others the short fine-tunes draw from; None for all.

    Raises:
        DataError: a class with one image, or more or fewer images asked for than there can be.
    """
    learn, held = held_out(splits.train, held_share, HELD_OUT)
    held = stable_subset(held, MOST_HELD) if len(held) > MOST_HELD else held
    return PruningData(stable_subset(learn, images) if images is not None else learn, held, splits)


def open_pruning_data(
    where: str, classes: tuple[str, ...], held_share: float, images: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> PruningData:  # fmt: skip
    """The images of ``where`` for a network of these classes.

    Raises:
        DataError: no such data, damaged ones, or classes that are not the network's, in its order.
    """
    splits = open_data(where, progress=progress)
    if splits.train.classes != classes:
        raise DataError(
            f"{where} has the classes {_some(splits.train.classes)}, but the network was trained on {_some(classes)}; "
            "prune it on images of its own classes, or train it on these first"
        )
    return pruning_data(splits, held_share, images)


def load_beside(names: Sequence[str], seed: TrainedNetwork) -> list[tuple[str, TrainedNetwork]]:
    """The trained networks of these names, to be held against what ``seed`` is pruned to.

    Raises:
        WeightsError: one is no trained network.
        DataError: one has other classes.
    """
    from mnv3search.training.trained import load_trained

    beside = [(name, load_trained(Path(name))) for name in names]
    for name, trained in beside:
        if trained.classes != seed.classes:
            raise DataError(f"{name} was trained on other classes than the network that is pruned; leave it away")
    return beside


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
