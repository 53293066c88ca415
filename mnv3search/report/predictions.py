"""A network's predictions as a figure: each image with bars of its most probable classes."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.files import write_atomic
from mnv3search.report.plots import BEST, DPI, FRONT, INK, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DRAWN = 24
COLUMNS = 3
CELL_INCHES = (4.6, 1.9)
MAX_CLASS, MAX_FILE = 22, 44
BAR_GROUND = "#eaeef2"


class PredictedImage(NamedTuple):
    """One image: its file's name, (R, R, 3) uint8 pixels, and (class, probability), most probable first."""

    file: str
    pixels: NDArray[np.uint8]
    guesses: tuple[tuple[str, float], ...]


def draw_predictions(images: Sequence[PredictedImage], png: Path, more: int = 0) -> str:
    """Draw up to 24 images with their classes, and say how many (``more`` with them) were left out.

    The same images give the same bytes. Gives the characters of names that the font lacks, which are drawn as boxes.
    """
    if not images:
        raise DataError(f"no image could be read, so there is nothing to draw in {png}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = images[:MAX_DRAWN]
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    left_out = len(images) - len(shown) + more
    note = 0.3 if left_out else 0.0
    width, height = CELL_INCHES[0] * columns, CELL_INCHES[1] * rows + note
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    across, down = CELL_INCHES[0] / width, CELL_INCHES[1] / height
    for index, image in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = column * across, 1 - row * down
        square = figure.add_axes((left + 0.03 * across, top - 0.83 * down, 0.32 * across, 0.78 * down))
        _draw_image(square, image)
        bars = figure.add_axes((left + 0.38 * across, top - 0.80 * down, 0.50 * across, 0.70 * down))
        _draw_bars(bars, image)
    if left_out:
        words = f"{left_out} more image{'s' if left_out > 1 else ''} not drawn"
        figure.text(0.01, 0.04 / height + 0.005, words, color=QUIET, fontsize=9, va="bottom")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_atomic(png, lambda path: figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None}))
    lacking = (re.match(r"Glyph (\d+) ", str(one.message)) for one in caught)
    return "".join(sorted({chr(int(found[1])) for found in lacking if found}))


def _draw_image(axes: Axes, image: PredictedImage) -> None:
    axes.imshow(image.pixels, interpolation="nearest" if len(image.pixels) < 96 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d0d7de")
    axes.annotate(
        _short(image.file, MAX_FILE), (0, 0), (0, -4), xycoords="axes fraction", textcoords="offset points", ha="left",
        va="top", fontsize=7.5, color=QUIET, parse_math=False,
    )  # fmt: skip


def _draw_bars(axes: Axes, image: PredictedImage) -> None:
    """Horizontal bars from 0 to 1, the class above each, its percentage at the right; the first in its own colour."""
    count = len(image.guesses)
    axes.barh(range(count), [1.0] * count, height=0.3, color=BAR_GROUND)
    colours = [BEST, *[FRONT] * (count - 1)]
    axes.barh(range(count), [share for _, share in image.guesses], height=0.3, color=colours)
    size = 8.5 if count <= 5 else max(3.5, 42.5 / count)
    for row, (name, share) in enumerate(image.guesses):
        words, weight = _short(name, MAX_CLASS), "normal" if row else "bold"
        axes.text(0, row - 0.2, words, fontsize=size, color=INK, weight=weight, va="bottom", parse_math=False)
        axes.text(1, row - 0.2, f"{100 * share:.1f} %", fontsize=size, color=QUIET, ha="right", va="bottom")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(count, 3) - 0.5, -0.8)
    axes.axis("off")


def _short(text: str, most: int) -> str:
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
