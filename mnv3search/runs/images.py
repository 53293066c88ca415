"""The images of runs and prunings: opened by name, the same in every session, and split for a pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mnv3search.errors import DataError, RunError
from mnv3search.runs.folder import IMAGES_KEY, LatencyFolder
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.splits import NETADAPT, DataSplits, held_out, stable_subset

if TYPE_CHECKING:
    from mnv3search.runs.progress import RunProgress
    from mnv3search.runs.settings import PruningSettings
    from mnv3search.training.trained import TrainedNetwork

MOST_HELD_OUT = 10_000  # the V3 paper's number; more would cost more than it tells


def scanned_images(where: str, progress: RunProgress) -> DataSplits:
    """The images of ``where``, every one of them scanned."""
    progress.stage("scanning the images")
    return open_data(where, progress=lambda done, total: progress.advance(done, "images scanned", total))


def session_images(folder: LatencyFolder[Any], progress: RunProgress) -> DataSplits:
    """The images that ``folder`` learns from: scanned where it does not know them yet, and else checked to be the same.

    What they are is noted in the manifest, and where they are now, if they moved.
    """
    where, known = folder.settings.data, folder.manifest.get(IMAGES_KEY)
    if known is None:
        splits = scanned_images(where, progress)
        folder.note(**{IMAGES_KEY: identity(splits)})
        return splits
    try:
        splits = open_data(where, scan=False)
    except DataError as error:
        raise DataError(f"{error}; if the images moved: {folder.command_to_resume} --data WHERE") from None
    check_same(known, identity(splits), where)
    if folder.manifest["settings"]["data"] != where:
        folder.note_moved_data()  # a later session finds them there
    return splits


def identity(splits: DataSplits) -> dict[str, object]:
    """What tells images from others: the classes, and of each split the number and a hash of names and labels."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    found: dict[str, object] = {"classes": list(splits.train.classes)}
    return found | {name: _identity(images) for name, images in parts.items() if images is not None}


def _identity(images: LabelledImages) -> dict[str, object]:
    names = hashlib.blake2b(digest_size=16)
    for file, label in zip(images.files, images.labels.tolist(), strict=True):
        names.update(f"{label}\0{file}\0".encode("utf-8", "surrogateescape"))
    return {"images": len(images), "names": names.hexdigest()}


def check_same(known: object, found: Mapping[str, object], where: str) -> None:
    """Raise RunError where ``found`` is not what the manifest knows; the message says what differs."""
    before = known if isinstance(known, Mapping) else {}
    for name in dict.fromkeys([*before, *found]):
        if before.get(name) != found.get(name):
            raise RunError(
                f"{where} is not what this run began with: {name} was {_words(before.get(name))} and is "
                f"{_words(found.get(name))}; restore the images, or start another run"
            )


def _words(part: object) -> str:
    if isinstance(part, Mapping):
        return f"{part.get('images')} images (names {str(part.get('names'))[:8]})"
    if isinstance(part, list):
        return f"{len(part)} classes ({', '.join(map(str, part[:4]))}{', …' if len(part) > 4 else ''})"
    return "nothing" if part is None else repr(part)


def class_count(folder: LatencyFolder[Any]) -> int | None:
    """How many classes the folder's images have; None where it has no images."""
    known = folder.manifest.get(IMAGES_KEY)
    classes = known.get("classes") if isinstance(known, Mapping) else None
    return len(classes) if isinstance(classes, list) and classes else None


@dataclass(frozen=True, slots=True)
class PruningData:
    """What a pruning learns from, is scored on and compared with.

    ``learn`` are training images for the short fine-tunes, ``held_out`` those that score proposals. ``unseen``: the
    network that is pruned is known not to have learned from ``held_out``, which its training left out.
    """

    learn: LabelledImages
    held_out: LabelledImages
    splits: DataSplits
    unseen: bool
    baselines: Sequence[tuple[str, TrainedNetwork]]

    @property
    def evaluated_on(self) -> str:
        """What images the last evaluation is on, in words."""
        return "test images" if self.splits.test is not None else "validation images"

    @property
    def final_images(self) -> LabelledImages:
        """The test images where there are some, else those of the validation."""
        return self.splits.test if self.splits.test is not None else self.splits.val


def pruning_data(
    splits: DataSplits, settings: PruningSettings, seed: TrainedNetwork,
    baselines: Sequence[tuple[str, TrainedNetwork]] = (),
) -> PruningData:  # fmt: skip
    """Cut the training images, by the hash of their names, so that every session and process cuts alike.

    The ``held_out`` share of them scores, 10,000 at most; the short fine-tunes draw from ``images`` of the others. The
    network has not seen the first where its own training left as many out by the same hash.

    Raises:
        DataError: the images or a baseline have other classes than the network.
    """
    _check_classes(splits, settings.data, seed, baselines)
    learn, scoring = held_out(splits.train, settings.held_out, NETADAPT)
    scoring = stable_subset(scoring, MOST_HELD_OUT) if len(scoring) > MOST_HELD_OUT else scoring
    left_out = seed.facts.get("held_out")
    unseen = isinstance(left_out, float) and settings.held_out <= left_out < 1
    learn = stable_subset(learn, settings.images) if settings.images is not None else learn
    return PruningData(learn, scoring, splits, unseen, baselines)


def _check_classes(
    splits: DataSplits, where: str, seed: TrainedNetwork, baselines: Sequence[tuple[str, TrainedNetwork]]
) -> None:
    if splits.train.classes != seed.classes:
        raise DataError(
            f"{where} has the classes {_some(splits.train.classes)}, but the network was trained on "
            f"{_some(seed.classes)}; prune it on images of its own classes, or train it on these first"
        )
    for name, trained in baselines:
        if trained.classes != seed.classes:
            raise DataError(f"{name} was trained on other classes than the network that is pruned; leave it away")


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
