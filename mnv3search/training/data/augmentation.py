"""Augmentation: a recipe's named values, the random parameters of a batch, and the transforms that they control.

All random parameters of a batch are drawn from a generator that is given, for all processes alike and before any image
is read, so that a batch can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import TrainingError
from mnv3search.training.data.preprocessing import as_tensor

if TYPE_CHECKING:
    import torch

CROPS = ("none", "pad", "random_resized")
STRONGEST = 30.0  # RandAugment's scale ends here, as in torchvision


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random transforms of training images; the default changes nothing.

    ``crop`` is ``none`` (the middle, as for evaluation), ``pad`` (a square of the resolution out of the padded image)
    or ``random_resized`` (a part of the image with an aspect of 3/4 to 4/3, resized). ``flip`` mirrors half of the
    images left to right: each one in every other epoch, so that two epochs in a row show both sides. With MixUp and
    CutMix each batch gets one of them at random. A value out of its range raises :class:`TrainingError`.
    """

    crop: str = "none"
    pad: int = 4  # black pixels on each side, for crop: pad
    least_area: float = 0.08  # smallest share of the image, for crop: random_resized
    flip: bool = False
    randaugment: float | None = None  # magnitude of RandAugment, 0 to 30 (9 is usual)
    randaugment_count: int = 2  # how many of its operations are done to an image
    jitter: float = 0.0  # brightness, contrast and saturation each change by a factor of 1 - jitter to 1 + jitter
    cutout: int = 0  # side of a square set to the mean colour, pixels
    erase: float = 0.0  # probability that a rectangle of 2 to 33 % of the area is set to the mean colour
    mixup: float = 0.0  # alpha
    cutmix: float = 0.0  # alpha

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise TrainingError(f"augmentation crop {self.crop!r} must be one of {', '.join(CROPS)}")
        if not isinstance(self.flip, bool):
            raise TrainingError(f"augmentation flip {self.flip!r} must be true or false")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            whole = name in {"pad", "cutout", "randaugment_count"}
            if value is None and name == "randaugment":
                continue
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                raise TrainingError(f"augmentation {name} {value!r} must be {kind} of {least:g} to {most:g}")

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return self.mixup > 0 or self.cutmix > 0

    def to_mapping(self) -> dict[str, object]:
        """Plain values for YAML and JSON."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Augmentation:
        """Read a mapping of a recipe; what is left out keeps its default."""
        known = cls.__dataclass_fields__
        if unknown := [name for name in mapping if name not in known]:
            raise TrainingError(f"augmentation has no {unknown[0]!r}; it has {', '.join(known)}")
        return cls(**mapping)  # type: ignore[arg-type]  # checked value by value when made


_RANGES = (
    ("pad", 0, 64), ("least_area", 0.01, 1), ("randaugment", 0, STRONGEST), ("randaugment_count", 1, 10),
    ("jitter", 0, 1), ("cutout", 0, 1024), ("erase", 0, 1), ("mixup", 0, 10), ("cutmix", 0, 10),
)  # fmt: skip
ASPECT = 4 / 3
TRIES = 10
# RandAugment's fourteen operations, in torchvision's order and strengths.
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
SIGNED = frozenset(OPERATIONS[1:10])


@dataclass(frozen=True, slots=True)
class Operations:
    """RandAugment's operations on each image, one after the other, after colour jitter."""

    chosen: NDArray[np.int64]  # (N, rounds) indices into OPERATIONS
    signs: NDArray[np.int64]  # (N, rounds) -1 or 1
    magnitude: float  # RandAugment's, 0 to 30
    jitter: NDArray[np.float64] | None  # (N, 3) factors of brightness, contrast and saturation

    def share(self, part: slice) -> Operations:
        """Those of some images."""
        jitter = None if self.jitter is None else self.jitter[part]
        return Operations(self.chosen[part], self.signs[part], self.magnitude, jitter)


@dataclass(frozen=True, slots=True)
class RandomParameters:
    """The random parameters of a batch's transforms."""

    flips: NDArray[np.bool_]  # (N,) mirrored or not
    corners: NDArray[np.int64] | None  # (N, 2) of the windows in padded images
    regions: NDArray[np.float64] | None  # (N, TRIES, 4), see crop_region
    operations: Operations | None
    boxes: tuple[NDArray[np.int64], ...]  # (N, 4) each, set to the mean colour

    def share(self, part: slice) -> RandomParameters:
        """Those of some images of the batch."""
        return RandomParameters(
            self.flips[part],
            None if self.corners is None else self.corners[part],
            None if self.regions is None else self.regions[part],
            None if self.operations is None else self.operations.share(part),
            tuple(boxes[part] for boxes in self.boxes),
        )


def draw_parameters(
    generator: np.random.Generator, flips: NDArray[np.bool_], augmentation: Augmentation, side: int
) -> RandomParameters:
    """Draw for ``len(flips)`` images that become crops of ``side`` pixels."""
    count = len(flips)
    corners, regions, boxes = None, None, []
    if augmentation.crop == "pad" and augmentation.pad:
        corners = generator.integers(2 * augmentation.pad + 1, size=(count, 2))
    if augmentation.crop == "random_resized":
        regions = draw_regions(generator, count, augmentation.least_area)
    operations = draw_operations(generator, count, augmentation)
    if augmentation.cutout:
        boxes.append(draw_boxes(generator, count, side, augmentation.cutout))
    if augmentation.erase:
        boxes.append(draw_erasures(generator, count, side, augmentation.erase))
    return RandomParameters(flips, corners, regions, operations, tuple(boxes))


def draw_regions(generator: np.random.Generator, count: int, least_area: float) -> NDArray[np.float64]:
    """What :func:`crop_region` needs of each image, whatever its size: (count, TRIES, 4) of area, aspect, position."""
    drawn = generator.random((count, TRIES, 4))
    drawn[..., 0] = least_area + (1 - least_area) * drawn[..., 0]
    drawn[..., 1] = np.exp((2 * drawn[..., 1] - 1) * np.log(ASPECT))
    return drawn


def crop_region(drawn: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    """The region (top, left, height, width) of an image of this size: the first of (TRIES, 4) drawn that fits."""
    for area, aspect, down, across in drawn:
        wide = round(float(np.sqrt(height * width * area * aspect)))
        high = round(float(np.sqrt(height * width * area / aspect)))
        if 0 < wide <= width and 0 < high <= height:
            return int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide
    high, wide = min(height, round(width * ASPECT)), min(width, round(height * ASPECT))
    return (height - high) // 2, (width - wide) // 2, high, wide


def draw_operations(generator: np.random.Generator, count: int, augmentation: Augmentation) -> Operations | None:
    """Draw for ``count`` images; None where the recipe asks for neither RandAugment nor jitter."""
    strength, jitter = augmentation.randaugment, augmentation.jitter
    if strength is None and not jitter:
        return None
    rounds = 0 if strength is None else augmentation.randaugment_count
    return Operations(
        chosen=generator.integers(len(OPERATIONS), size=(count, rounds)),
        signs=2 * generator.integers(2, size=(count, rounds)) - 1,
        magnitude=strength or 0.0,
        jitter=generator.uniform(1 - jitter, 1 + jitter, size=(count, 3)) if jitter else None,
    )


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


def pad_and_crop(images: NDArray[np.uint8], pad: int, corners: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A window of each image's size (N, H, W, 3), at ``corners`` (N, 2) of the image padded with black."""
    count, height, width, channels = images.shape
    if count == 0:  # a process that has no part in the last batch
        return images
    padded = np.zeros((count, height + 2 * pad, (width + 2 * pad) * channels), np.uint8)
    padded[:, pad : pad + height, pad * channels : (pad + width) * channels] = images.reshape(count, height, -1)
    # Rows of pixels as rows of bytes: windows are then copied a row at a time.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width * channels), axis=(1, 2))
    cut: NDArray[np.uint8] = windows[np.arange(count), corners[:, 0], corners[:, 1] * channels]
    return cut.reshape(images.shape)


def blank(images: torch.Tensor, boxes: NDArray[np.int64]) -> torch.Tensor:
    """Set a box (N, 4) of each normalised image (N, 3, R, R) to 0, which is the mean colour; in place."""
    for image, (top, left, bottom, right) in zip(images, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = 0
    return images


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch is mixed with itself: image i with image ``partners[i]``, which counts ``1 - kept``."""

    partners: NDArray[np.int64]  # (N,) a permutation
    kept: float  # share of the image itself, 0 to 1
    box: tuple[int, int, int, int] | None  # top, left, bottom, right that the partner fills; None for MixUp


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


def apply_operations(images: NDArray[np.uint8], operations: Operations) -> NDArray[np.uint8]:
    """Do the operations: (N, R, R, 3) uint8 to the same; equal ones go through torchvision together."""
    import torch

    pixels = as_tensor(images).permute(0, 3, 1, 2)
    if operations.jitter is not None:
        pixels = _jittered(pixels, torch.from_numpy(operations.jitter))
    for chosen, signs in zip(operations.chosen.T, operations.signs.T, strict=True):
        pixels = pixels.clone(memory_format=torch.channels_last)
        kinds = np.where([OPERATIONS[kind] in SIGNED for kind in chosen], chosen * signs, chosen)
        for kind in np.unique(kinds):
            if (name := OPERATIONS[abs(int(kind))]) != "identity":
                members = torch.from_numpy(np.flatnonzero(kinds == kind))
                pixels[members] = _apply(pixels[members], name, operations.magnitude, -1 if kind < 0 else 1)
    out: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).numpy()
    return out


def _apply(pixels: torch.Tensor, name: str, magnitude: float, sign: int) -> torch.Tensor:
    """One operation on (N, 3, R, R) uint8."""
    from torchvision.transforms.v2 import functional as transforms

    part, side = magnitude / STRONGEST, pixels.shape[-1]
    adjusted = {"color": "saturation", "brightness": name, "contrast": name, "sharpness": name}
    if name in adjusted:
        out = getattr(transforms, f"adjust_{adjusted[name]}")(pixels, 1.0 + sign * 0.9 * part)
    elif name in {"autocontrast", "equalize"}:
        out = getattr(transforms, name)(pixels)
    elif name == "posterize":
        out = transforms.posterize(pixels, bits=8 - round(4 * part))
    elif name == "solarize":
        out = transforms.solarize(pixels, threshold=255 * (1 - part))
    elif name == "rotate":
        out = transforms.rotate(pixels, angle=sign * 30.0 * part)
    else:
        out = _moved(pixels, name, sign * part, side)
    transformed: torch.Tensor = out
    return transformed


def _moved(pixels: torch.Tensor, name: str, part: float, side: int) -> torch.Tensor:
    """Shear (up to 0.3) or translate (up to 150/331 of the side), as RandAugment does."""
    from torchvision.transforms.v2 import functional as transforms

    shear, shift, centre = [0.0, 0.0], [0, 0], None
    axis = 0 if name.endswith("x") else 1
    if name.startswith("shear"):
        shear[axis] = math.degrees(math.atan(0.3 * part))
        centre = [0.0, 0.0]
    else:
        shift[axis] = int(150.0 / 331.0 * side * part)
    out: torch.Tensor = transforms.affine(pixels, angle=0.0, translate=shift, scale=1.0, shear=shear, center=centre)
    return out


def _jittered(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Each image's brightness, contrast and saturation by its own factors, as torchvision computes them."""
    import torch

    weights = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    factors = factors.to(torch.float32)
    brightness, contrast, saturation = (factors[:, axis].view(-1, 1, 1, 1) for axis in range(3))
    out = (pixels * brightness).clamp_(0, 255)
    grey = (out * weights).sum(dim=1, keepdim=True)
    out = torch.lerp(grey.mean(dim=(2, 3), keepdim=True), out, contrast).clamp_(0, 255)
    grey = (out * weights).sum(dim=1, keepdim=True)
    return torch.lerp(grey, out, saturation).clamp_(0, 255).to(torch.uint8)
