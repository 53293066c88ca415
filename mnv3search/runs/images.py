"""The images that a run's evaluator learns from: opened by name, and the same in every session of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mnv3search.errors import DataError, RunError
from mnv3search.training.data.open_data import open_data

if TYPE_CHECKING:
    from mnv3search.runs.folder import RunFolder
    from mnv3search.runs.progress import RunProgress
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.splits import DataSplits

KEY = "data"


def run_images(folder: RunFolder, progress: RunProgress) -> DataSplits | None:
    """The images of the run of ``folder``; None where it has none.

    The first session scans them all and notes in the manifest what they are; later ones check that they still are.

    Raises:
        DataError: no such data, or images that cannot be decoded.
        RunError: other images, classes or splits than the run began with.
    """
    where = folder.settings.data
    if where is None:
        return None
    known = folder.manifest.get(KEY)
    if known is None:
        progress.stage("looking at the images")
        splits = open_data(where, progress=lambda done, total: progress.advance(done, "images scanned", total))
        folder.note(**{KEY: identity(splits)})
        return splits
    try:
        splits = open_data(where, scan=False)
    except DataError as error:
        raise DataError(f"{error}; if the images moved: {folder.command_to_resume} --data WHERE") from None
    check_same(known, identity(splits), where)
    if folder.manifest["settings"]["data"] != where:
        folder.note(settings=folder.settings.to_mapping())  # a later session finds them there
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
    """Pass where ``found`` is what the manifest knows.

    Raises:
        RunError: it is not; the message says what differs.
    """
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


def class_count(folder: RunFolder) -> int | None:
    """How many classes the run's images have; None where it has no images."""
    known = folder.manifest.get(KEY)
    classes = known.get("classes") if isinstance(known, Mapping) else None
    return len(classes) if isinstance(classes, list) and classes else None
