"""The images of a pruning: those its short fine-tunes learn from, those that score, and those that judge at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.errors import DataError
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.splits import DataSplits, NETADAPT, held_out, stable_subset

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

MOST_HELD = 10_000  # the V3 paper's number; more would cost more than it tells


@dataclass(frozen=True, slots=True)
class PruningData:
    """What a pruning learns from, is judged by and held against.

    Attributes:
        learn: training images for the short fine-tunes.
        held: training images that score proposals; in none of these fine-tunes.
        splits: all of them, for the training at the end and the last judgement.
        unseen: whether the network that is pruned is known not to have learned from ``held``: its training left them
            out.
        beside: other trained networks, as they were named, that the result is held against.
    """

    learn: LabelledImages
    held: LabelledImages
    splits: DataSplits
    unseen: bool = False
    beside: Sequence[tuple[str, TrainedNetwork]] = ()

    @property
    def judged_by(self) -> str:
        """What judges at the end, in words."""
        return "test images" if self.splits.test is not None else "validation images"

    @property
    def judging(self) -> LabelledImages:
        """The test images where there are some, else those of the validation."""
        return self.splits.test if self.splits.test is not None else self.splits.val


def pruning_data(
    splits: DataSplits, held_share: float, images: int | None, left_out: object = None
) -> PruningData:
    """Cut the training images, by the hash of their names, so that every session and process cuts alike.

    Args:
        splits: of one data set.
        held_share: of the training images to hold out; at most 10,000 of these score.
        images: how many of the others the short fine-tunes draw from; None for all.
        left_out: the share that the network's own training left out by the same hash, so that it is what is held out
            here where that is no more.

    Raises:
        DataError: a class with one image, or more or fewer images asked for than there can be.
    """
    learn, held = held_out(splits.train, held_share, NETADAPT)
    held = stable_subset(held, MOST_HELD) if len(held) > MOST_HELD else held
    unseen = isinstance(left_out, float) and held_share <= left_out < 1
    return PruningData(stable_subset(learn, images) if images is not None else learn, held, splits, unseen)


def check_classes(splits: DataSplits, where: str, seed: TrainedNetwork) -> None:
    """Pass where the images of ``where`` have the classes of ``seed``, in its order.

    Raises:
        DataError: they have others.
    """
    if splits.train.classes != seed.classes:
        raise DataError(
            f"{where} has the classes {_some(splits.train.classes)}, but the network was trained on "
            f"{_some(seed.classes)}; prune it on images of its own classes, or train it on these first"
        )


def load_beside(names: Sequence[str]) -> list[tuple[str, TrainedNetwork]]:
    """The trained networks of these names, to be held against the result.

    Raises:
        WeightsError: one is no trained network.
    """
    from mnv3search.training.trained import load_trained

    return [(name, load_trained(Path(name))) for name in names]


def check_beside(beside: Sequence[tuple[str, TrainedNetwork]], seed: TrainedNetwork) -> None:
    """Pass where they have the classes of ``seed``.

    Raises:
        DataError: one has others.
    """
    for name, trained in beside:
        if trained.classes != seed.classes:
            raise DataError(f"{name} was trained on other classes than the network that is pruned; leave it away")


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
