"""What a trained network or its exported model predicts for images, and its metrics on labelled ones."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.export.exported import Pixels, load_exported, pixel_chunks
from mnv3search.export.exporting import SUFFIX
from mnv3search.training.data.decoding import SUFFIXES
from mnv3search.training.data.images import FolderSource
from mnv3search.training.data.open_data import VAL_SHARE, open_images
from mnv3search.training.data.splits import NETADAPT, fingerprint, held_out
from mnv3search.training.trained import TrainedNetwork, check_weights, load_trained, with_weights

if TYPE_CHECKING:
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.evaluation import Metrics

PATTERN = frozenset("*?[")
MAX_FILES = 1_000_000
_NOT_FINITE = "the network's logits are not finite: its weights are damaged or too large; take an earlier checkpoint"


class Predictor(Protocol):
    """A trained network, or an exported model."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the logits."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """From an image to the network's input."""
        ...

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """(n, R, R, 3) uint8 RGB, resized and cropped, to (n, classes)."""
        ...


@dataclass(frozen=True, slots=True)
class Guess:
    """One class and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The prediction for one file.

    Attributes:
        file: its path.
        guesses: the most probable classes, most probable first; none where there is an error.
        pixels: (R, R, 3) what the network saw; None where there is an error.
        error: why it could not be read, or why there is no prediction; None where there is one.
    """

    file: Path
    guesses: tuple[Guess, ...] = ()
    pixels: Pixels | None = None
    error: str | None = None


def load_predictor(run: str | Path, weights: str | None = None, data: str | None = None) -> Predictor:
    """The predictor of a training's folder, a ``.safetensors`` file or an exported ``.onnx``, or of other weights.

    Args:
        run: the folder or file, or a network's name with ``weights``.
        weights: torchvision's or timm's of the network ``run``.
        data: images whose classes the logits of ``weights`` have, in the order of their sorted folders.

    Raises:
        WeightsError: no such folder or file, or one of another kind.
        ExportError: an ``.onnx`` that mnv3search did not export.
        DataError: no such data.
    """
    if weights is not None:
        check_weights(str(run), weights)  # what does not fit is said before the images' folders are listed
        return with_weights(str(run), weights, open_images(data).classes if data else None)
    return load_exported(run) if Path(run).suffix == SUFFIX else load_trained(run)


def image_files(named: Sequence[str], on_missing: Callable[[str], None] | None = None) -> list[Path]:
    """The files that are meant: each as it is named, all images of a folder and what is below it, or of a pattern.

    In the order in which they are named, those of a folder or pattern sorted, and each file once.

    Args:
        named: files, folders and patterns.
        on_missing: called with a line for each folder or pattern without an image; the others are given all the same.

    Raises:
        DataError: a folder or pattern without an image, and no ``on_missing``; or none with any.
    """
    found: dict[Path, None] = {}
    for name in named:
        path = Path(name).expanduser()
        if path.is_dir():
            members = sorted(member for member in path.rglob("*") if _is_image(member, path))
        elif PATTERN & set(name) and not path.exists():
            # quoted patterns, and those of shells that resolve none
            members = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file())
        else:
            members = [path]
        if not members:
            lacks = "holds no images" if path.is_dir() else "matches no file"
            missing = f"{name} {lacks}; name image files, folders of them or a pattern such as *.jpg"
            if on_missing is None or len(named) == 1:
                raise DataError(missing)
            on_missing(missing)
        found |= dict.fromkeys(members)
        if len(found) > MAX_FILES:
            raise DataError(f"{name} brings more than {MAX_FILES:,} files; predict them folder by folder")
    return list(found)


def _is_image(member: Path, below: Path) -> bool:
    hidden = any(part.startswith(".") for part in member.relative_to(below).parts)
    return member.suffix.lower() in SUFFIXES and not hidden and member.is_file()


def predict(predictor: Predictor, files: Sequence[Path], top: int = 5) -> Iterator[Prediction]:
    """A prediction for each of ``files``, in order; one that cannot be read, or classified, has an error.

    Args:
        predictor: of :func:`load_predictor`.
        files: image files.
        top: classes for each, at most as many as there are.
    """
    for file in files:
        try:
            image = FolderSource(file.parent).read(file.name)
            square = predictor.preprocessing.resize_and_crop(image[None])
        except DataError as error:
            yield Prediction(file, error=str(error))
            continue
        logits = predictor.logits(square)[0]
        if not np.isfinite(logits).all():
            yield Prediction(file, error=f"{file}: {_NOT_FINITE}")
            continue
        probabilities = softmax(logits)
        order = np.argsort(-probabilities, kind="stable")[:top]
        guesses = tuple(Guess(predictor.classes[int(i)], float(probabilities[i])) for i in order)
        yield Prediction(file, guesses, square[0])


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of (classes,) logits."""
    raised = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares


def evaluate_predictor(
    predictor: Predictor, images: LabelledImages, *, batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:  # fmt: skip
    """Evaluate what :func:`load_predictor` gave on every one of ``images``.

    A network works where the machine is fastest; an exported model works in onnxruntime, in calls of as many images as
    it takes.

    Args:
        predictor: of a trained network, or an exported model.
        images: with labels in the order of its classes.
        batch_size: images at a time; an exported model is given fewer large ones, which onnxruntime keeps in memory.
        progress: called with (done, total) images.

    Raises:
        DataError: no images, other classes, or an image that cannot be read.
        DivergedError: a logit that is not finite.
    """
    import torch

    from mnv3search.training.devices import evaluation_device
    from mnv3search.training.evaluation import MetricSums, check_evaluable, evaluate_network

    if isinstance(predictor, TrainedNetwork):
        network = predictor.network.to(evaluation_device())
        return evaluate_network(network, images, predictor.preprocessing, batch_size=batch_size, progress=progress)
    check_evaluable(images, len(predictor.classes))
    began, sums = time.perf_counter(), MetricSums(len(predictor.classes))
    for chunk in pixel_chunks(images, predictor.preprocessing, batch_size):
        sums.add(torch.from_numpy(predictor.logits(chunk.pixels)), torch.from_numpy(chunk.labels))
        if progress is not None:
            progress(sums.images, len(images))
    return sums.metrics(time.perf_counter() - began)


def unseen(predictor: Predictor, images: LabelledImages) -> tuple[LabelledImages, str | None]:
    """``images`` without those that the network was trained on, as far as it knows them, and a note about them.

    It knows them by their classes and names: all of them, or those that a training does not hold out of a whole folder.
    """
    facts = predictor.facts if isinstance(predictor, TrainedNetwork) else {}
    known, left_out = facts.get("train_images"), facts.get("held_out")
    if known is None or not len(images):
        return images, None
    if fingerprint(images) == known:
        return images, "the network was trained on these very images: its accuracy on others is lower"
    try:
        trained_on, rest = held_out(images, VAL_SHARE)
        if isinstance(left_out, float):
            trained_on = held_out(trained_on, left_out, NETADAPT)[0]
    except DataError:
        return images, None
    if fingerprint(trained_on) != known:
        return images, None
    return rest, (
        f"{len(trained_on):,} of the {len(images):,} images were trained on: evaluated on the "
        f"{len(rest):,} held-out images"
    )
