"""What a trained network, or its exported model, says of images that have no labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.export.exported import load_exported
from mnv3search.export.exporting import SUFFIX
from mnv3search.export.parity import network_logits
from mnv3search.export.pixels import Pixels, Squares

if TYPE_CHECKING:
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork

PATTERN = frozenset("*?[")
MAX_FILES = 1_000_000
_NOT_FINITE = "the network's answer is not finite: its weights are damaged or too large; take an earlier checkpoint"


class Predictor(Protocol):
    """Something with classes that gives logits."""

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


@dataclass(frozen=True, slots=True, eq=False)
class NetworkPredictor:
    """A trained network as a predictor."""

    trained: TrainedNetwork

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the logits."""
        return self.trained.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """From an image to the network's input."""
        return self.trained.preprocessing

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """(n, R, R, 3) uint8 RGB, resized and cropped, to (n, classes)."""
        return network_logits(self.trained, Squares(pixels, np.full(len(pixels), -1, dtype=np.int64)))


@dataclass(frozen=True, slots=True)
class Guess:
    """One class and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What was said of one file.

    Attributes:
        file: its path.
        guesses: the most probable classes, most probable first; none where there is an error.
        pixels: (R, R, 3) what the network saw; None where there is an error.
        error: why it could not be read, or why the network has no answer; None where it has one.
    """

    file: Path
    guesses: tuple[Guess, ...] = ()
    pixels: Pixels | None = None
    error: str | None = None


def load_predictor(run: str | Path) -> Predictor:
    """The predictor of a training's folder, a ``.safetensors`` file or an exported ``.onnx``.

    Raises:
        WeightsError: no such folder or file, or one of another kind.
        ExportError: an ``.onnx`` that mnv3search did not export.
    """
    run = Path(run)
    if run.suffix == SUFFIX:
        return load_exported(run)
    from mnv3search.training.trained import load_trained

    return NetworkPredictor(load_trained(run))


def image_files(named: Sequence[str], on_missing: Callable[[str], None] | None = None) -> list[Path]:
    """The files that are meant: each as it is named, all images of a folder and what is below it, or of a pattern.

    In the order in which they are named, those of a folder or pattern sorted, and each file once.

    Args:
        named: files, folders and patterns.
        on_missing: told of each folder or pattern without an image; the others are then given all the same.

    Raises:
        DataError: a folder or pattern without an image, where nobody is told; or none with any.
    """
    found: dict[Path, None] = {}
    for name in named:
        path = Path(name).expanduser()
        if path.is_dir():
            members = sorted(member for member in path.rglob("*") if _is_image(member, path))
        elif PATTERN & set(name) and not path.exists():
            members = sorted(_matching(path))
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
    from mnv3search.training.data.decoding import SUFFIXES

    hidden = any(part.startswith(".") for part in member.relative_to(below).parts)
    return member.suffix.lower() in SUFFIXES and not hidden and member.is_file()


def _matching(pattern: Path) -> list[Path]:
    """Files that a pattern means; quoted patterns reach us as they are, the shell has resolved others."""
    import glob

    return [path for path in map(Path, glob.glob(str(pattern), recursive=True)) if path.is_file()]


def predict(predictor: Predictor, files: Sequence[Path], top: int = 5) -> Iterator[Prediction]:
    """What ``predictor`` says of each of ``files``, in order; one that cannot be read, or answered, says why.

    Args:
        predictor: of :func:`load_predictor`.
        files: image files.
        top: classes for each, at most as many as there are.
    """
    from mnv3search.training.data.sources import FolderSource

    for file in files:
        try:
            image = FolderSource(file.parent).read(file.name)
            square = predictor.preprocessing.squares(image[None])
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
