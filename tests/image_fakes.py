"""Tiny folders and archives of images whose classes can be learnt in seconds."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = ((220, 40, 40), (40, 200, 60), (50, 70, 220), (220, 200, 40), (200, 60, 200), (60, 200, 200))


def striped(label: int, side: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """An image (side, side, 3) of class ``label``: its colour in stripes, each class by its own slope and width."""
    rows, columns = np.mgrid[0:side, 0:side]
    slope = (rows, columns, rows + columns, rows - columns)[label % 4]
    width = 2 + label % 3
    stripes = (slope + int(generator.integers(2 * width))) // width % 2
    colour = np.array(COLOURS[label % len(COLOURS)])
    noise = generator.normal(0, 12, (side, side, 3))
    image: NDArray[np.uint8] = np.clip(30 + stripes[:, :, None] * colour + noise, 0, 255).astype(np.uint8)
    return image


def make_image_folder(
    root: Path,
    classes: int | Sequence[str] = 3,
    per_class: int = 8,
    side: int = 16,
    seed: int = 0,
    split: Sequence[str] = ("train", "val"),
    suffix: str = ".png",
) -> Path:
    """Write ``root/<split>/<class>/NNNN.png`` and return ``root``; with ``split=()`` ``root/<class>/NNNN.png``."""
    generator = np.random.default_rng(seed)
    names = [f"class_{number}" for number in range(classes)] if isinstance(classes, int) else list(classes)
    for part in split or ("",):
        for label, name in enumerate(names):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                Image.fromarray(striped(label, side, generator)).save(folder / f"{number:04d}{suffix}", quality=95)
    return root


def zip_folder(root: Path, archive: Path, top: str = "") -> Path:
    """Write all files below ``root`` into ``archive`` under the folder ``top`` and return ``archive``."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(root.rglob("*")):
            name = "/".join(part for part in (top, path.relative_to(root).as_posix()) if part)
            out.write(path, name)
    return archive
