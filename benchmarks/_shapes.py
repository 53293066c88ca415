"""An easy set of images, drawn: five shapes, each near a hue of its own, under noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.splits import DataSplits

SIDE = 32
SHAPES = ("disc", "square", "triangle", "cross", "bar")
HUES = np.array([(200, 70, 70), (70, 180, 80), (80, 90, 200), (190, 180, 70), (180, 80, 180)])


@dataclass(eq=False)
class DrawnShapes:
    """Images that are drawn from their names ``SEED/LABEL/NUMBER``."""

    name: str = "drawn shapes"

    def read(self, file: str) -> NDArray[np.uint8]:
        """One image, (32, 32, 3)."""
        seed, label, number = map(int, file.split("/"))
        return drawn(label, np.random.default_rng((seed, label, number)))


def drawn(label: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """A shape of class ``label``, somewhere near the middle, of some size, under noise."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2 - generator.uniform(-5, 5, (2, 1, 1))
    size = generator.uniform(6, 11)
    inside = (
        rows**2 + columns**2 < size**2,
        np.maximum(abs(rows), abs(columns)) < 0.9 * size,
        (rows < 0.8 * size) & (rows > 2 * abs(columns) - size),
        (np.minimum(abs(rows), abs(columns)) < 0.3 * size) & (np.maximum(abs(rows), abs(columns)) < size),
        (abs(rows) < 0.35 * size) & (abs(columns) < 1.3 * size),
    )[label]
    colour = HUES[label] + generator.normal(0, 25, 3)
    pixels = 90 + generator.normal(0, 25, 3) + inside[:, :, None] * (colour - 90)
    image: NDArray[np.uint8] = np.clip(pixels + generator.normal(0, 20, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    return image


def shapes(train: int, val: int, seed: int = 0) -> DataSplits:
    """``train`` and ``val`` images, the classes in turn."""
    return DataSplits(_split(seed, 0, train), _split(seed, 1, val), None)


def _split(seed: int, part: int, count: int) -> LabelledImages:
    labels = np.arange(count) % len(SHAPES)
    files = tuple(f"{2 * seed + part}/{label}/{number}" for number, label in enumerate(labels))
    return LabelledImages(DrawnShapes(), files, labels.astype(np.int64), SHAPES)
