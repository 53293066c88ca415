"""The random changes themselves, on whole batches, each drawn from a generator that is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

ASPECT = 4 / 3
TRIES = 10


def pad_and_crop(images: NDArray[np.uint8], pad: int, corners: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A window of the images' own size out of each image padded with black.

    Args:
        images: (N, H, W, 3).
        pad: pixels on each side.
        corners: (N, 2): top and left of each window in the padded image, 0 to ``2 * pad``.
    """
    count, height, width, channels = images.shape
    if count == 0:  # a process that has no part in the last batch
        return images
    padded = np.zeros((count, height + 2 * pad, (width + 2 * pad) * channels), np.uint8)
    padded[:, pad : pad + height, pad * channels : (pad + width) * channels] = images.reshape(count, height, -1)
    # Rows of pixels as rows of bytes: windows are then copied a row at a time.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width * channels), axis=(1, 2))
    cut: NDArray[np.uint8] = windows[np.arange(count), corners[:, 0], corners[:, 1] * channels]
    return cut.reshape(images.shape)


def random_parts(generator: np.random.Generator, count: int, least_area: float) -> NDArray[np.float64]:
    """What :func:`part_of` needs of each image, whatever its size: (count, TRIES, 4) of area, aspect and place."""
    drawn = generator.random((count, TRIES, 4))
    drawn[..., 0] = least_area + (1 - least_area) * drawn[..., 0]
    drawn[..., 1] = np.exp((2 * drawn[..., 1] - 1) * np.log(ASPECT))
    return drawn


def part_of(drawn: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    """The part (top, left, height, width) of an image of this size: the first of the draws that fits into it.

    Args:
        drawn: (TRIES, 4) of :func:`random_parts`.
        height: of the image, pixels.
        width: of the image, pixels.
    """
    for area, aspect, down, across in drawn:
        wide = round(float(np.sqrt(height * width * area * aspect)))
        high = round(float(np.sqrt(height * width * area / aspect)))
        if 0 < wide <= width and 0 < high <= height:
            return int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide
    high, wide = min(height, round(width * ASPECT)), min(width, round(height * ASPECT))
    return (height - high) // 2, (width - wide) // 2, high, wide


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch is mixed with itself: image i with image ``partners[i]``, which counts ``1 - kept``.

    Attributes:
        partners: (N,) a permutation.
        kept: share of the image itself, 0 to 1.
        box: (top, left, bottom, right) that the partner fills, for CutMix; None for MixUp.
    """

    partners: NDArray[np.int64]
    kept: float
    box: tuple[int, int, int, int] | None


def draw_mix(generator: np.random.Generator, count: int, side: int, mixup: float, cutmix: float) -> Mix:
    """MixUp or CutMix for one batch; one of the two at random where both have an alpha above 0."""
    both = mixup > 0 and cutmix > 0
    cut = bool(generator.random() < 0.5) if both else cutmix > 0
    kept = float(generator.beta(cutmix, cutmix) if cut else generator.beta(mixup, mixup))
    partners = generator.permutation(count)
    if not cut:
        return Mix(partners, kept, None)
    half = np.sqrt(1 - kept) * side / 2
    row, column = generator.integers(side, size=2)
    top, bottom = (int(np.clip(round(row + way * half), 0, side)) for way in (-1, 1))
    left, right = (int(np.clip(round(column + way * half), 0, side)) for way in (-1, 1))
    return Mix(partners, 1 - (bottom - top) * (right - left) / side**2, (top, left, bottom, right))


def mix_images(images: torch.Tensor, mix: Mix) -> torch.Tensor:
    """(N, 3, R, R) mixed; where a box is cut, ``images`` itself is changed."""
    import torch

    partners = images[torch.from_numpy(mix.partners)]
    if mix.box is None:
        return partners.lerp_(images, mix.kept)
    top, left, bottom, right = mix.box
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return images


def mix_labels(labels: torch.Tensor, classes: int, mix: Mix) -> torch.Tensor:
    """(N,) int64 to (N, classes) float32: shares of the two classes."""
    import torch

    whole = torch.nn.functional.one_hot(labels, classes).to(torch.float32)
    return mix.kept * whole + (1 - mix.kept) * whole[torch.from_numpy(mix.partners)]


def draw_boxes(generator: np.random.Generator, count: int, side: int, cutout: int) -> NDArray[np.int64]:
    """(count, 4) of top, left, bottom, right: squares of ``cutout`` around any pixel, cut at the border."""
    centres = generator.integers(side, size=(count, 2))
    first = centres - cutout // 2
    boxes: NDArray[np.int64] = np.clip(np.concatenate([first, first + cutout], axis=1), 0, side)
    return boxes


def draw_erasures(generator: np.random.Generator, count: int, side: int, share: float) -> NDArray[np.int64]:
    """(count, 4) of top, left, bottom, right: empty boxes but for about ``share`` of the images."""
    drawn = generator.random((count, 5))
    area = (0.02 + 0.31 * drawn[:, 0]) * side * side
    aspect = np.exp((2 * drawn[:, 1] - 1) * np.log(10 / 3))
    high = np.clip(np.rint(np.sqrt(area / aspect)), 1, side).astype(np.int64)
    wide = np.clip(np.rint(np.sqrt(area * aspect)), 1, side).astype(np.int64)
    top = (drawn[:, 2] * (side - high + 1)).astype(np.int64)
    left = (drawn[:, 3] * (side - wide + 1)).astype(np.int64)
    boxes = np.stack([top, left, top + high, left + wide], axis=1)
    boxes[drawn[:, 4] >= share] = 0
    return boxes


def blank(images: torch.Tensor, boxes: NDArray[np.int64]) -> torch.Tensor:
    """Set a box of each image to 0, which is the mean colour once normalised; in place.

    Args:
        images: (N, 3, R, R) normalised.
        boxes: (N, 4) of top, left, bottom, right.
    """
    for image, (top, left, bottom, right) in zip(images, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = 0
    return images
