"""Images as an exported model takes them: squares of pixels, read a few at a time, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mnv3search.export.description import Input
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing

NOISE_SEED = 0
CHUNK_PIXELS = 32 * 32 * 1024  # about 12 MB of normalised pixels at a time
Pixels = NDArray[np.uint8]


class Squares(NamedTuple):
    """Some images: (n, R, R, 3) uint8 RGB, resized and cropped, and their labels, (n,); -1 where there are none."""

    pixels: Pixels
    labels: NDArray[np.int64]


def squares_of(images: LabelledImages, preprocessing: Preprocessing, most: int | None = None) -> Iterator[Squares]:
    """All ``images``, in order, in chunks of bounded memory, and of at most ``most`` images.

    Raises:
        DataError: an image cannot be read.
    """
    size = min(chunk_size(preprocessing.resolution), most or len(images) or 1)
    for first in range(0, len(images), size):
        numbers = range(first, min(first + size, len(images)))
        pixels = np.concatenate([preprocessing.squares(images.read(number)[None]) for number in numbers])
        yield Squares(pixels, images.labels[first : first + size])


def noise_squares(count: int, resolution: int, seed: int = NOISE_SEED) -> Iterator[Squares]:
    """Seeded pixels in place of images: blocks of even colour of every size, as flat and as busy as photographs are."""
    rng, size = np.random.default_rng(seed), chunk_size(resolution)
    for first in range(0, count, size):
        number = min(size, count - first)
        pixels = np.stack([_noise(rng, resolution) for _ in range(number)])
        yield Squares(pixels, np.full(number, -1, dtype=np.int64))


def _noise(rng: np.random.Generator, side: int) -> Pixels:
    cells = int(rng.integers(2, max(side // 2, 2) + 1))
    coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    places = np.arange(side) * cells // side
    return coarse[places][:, places]


def chunk_size(resolution: int) -> int:
    """Images in one chunk."""
    return max(1, CHUNK_PIXELS // resolution**2)


def model_input(pixels: Pixels, preprocessing: Preprocessing, kind: Input) -> NDArray[Any]:
    """What a model with this kind of input takes for (n, R, R, 3) pixels, contiguous."""
    if kind == "uint8":
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(preprocessing.normalised(pixels).numpy())
