"""From pixels to the tensor that a network takes: resize, crop the middle, normalise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.records import Record

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
MAX_RESOLUTION = 4096


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to every image before the network sees it; stored with trained weights.

    Images that have the resolution already are neither resized nor cropped. A value out of its range raises
    :class:`DataError`.
    """

    resolution: int  # side of the square that the network takes, pixels
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of red, green and blue, with pixels in 0 to 1
    std: tuple[float, float, float] = IMAGENET_STD
    crop_share: float = (
        0.875  # of the shorter side, for the middle crop: it is first resized to resolution / crop_share
    )
    interpolation: str = "bilinear"  # or bicubic, nearest

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= MAX_RESOLUTION:
            raise DataError(f"resolution {self.resolution!r} must be 1 to {MAX_RESOLUTION} pixels")
        if not 0.1 <= self.crop_share <= 1:
            raise DataError(f"crop_share {self.crop_share!r} must be 0.1 to 1; 1 keeps the whole shorter side")
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"interpolation {self.interpolation!r} must be one of {', '.join(INTERPOLATIONS)}")
        for name, values, least in (("mean", self.mean, -math.inf), ("std", self.std, 1e-6)):
            if len(values) != 3 or not all(math.isfinite(value) and value >= least for value in values):
                raise DataError(f"{name} {values!r} must be three finite figures{' above 0' if name == 'std' else ''}")

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON; :meth:`from_mapping` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_mapping(cls, mapping: object) -> Preprocessing:
        """Read what :meth:`to_mapping` wrote."""
        known = set(cls.__dataclass_fields__)
        if not isinstance(mapping, Mapping) or "resolution" not in mapping or not set(mapping) <= known:
            raise DataError(
                f"pre-processing {mapping!r:.99} must have a resolution and only {', '.join(sorted(known))}"
            )
        try:
            values = Record({**cls(1).to_mapping(), **mapping})
            resolution = values.integer("resolution", 1, MAX_RESOLUTION)
            mean, std = (_three(values, name) for name in ("mean", "std"))
            return cls(resolution, mean, std, values.number("crop_share"), values.text("interpolation"))
        except ValueError as error:
            raise DataError(f"pre-processing {mapping!r:.200} is not usable: {error}") from None

    def resize_and_crop(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize images of one size and crop their middle: (N, H, W, 3) to (N, R, R, 3)."""
        side, (height, width) = self.resolution, images.shape[1:3]
        if (height, width) == (side, side):
            return images
        short = max(side, round(side / self.crop_share))
        scale = short / min(height, width)
        # As torchvision's Resize: the longer side is cut down to whole pixels.
        new_height, new_width = (short, int(short * width / height)) if height <= width else (
            int(short * height / width), short
        )  # fmt: skip
        if scale != 1:
            images = resized(images, new_height, new_width, self.interpolation)
        top, left = round((new_height - side) / 2), round((new_width - side) / 2)
        return images[:, top : top + side, left : left + side]

    def normalised(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """(N, R, R, 3) uint8 to (N, 3, R, R) float32, channels last in memory: ``(pixel / 255 - mean) / std``."""
        import torch

        count, height, width, _ = images.shape
        scale = torch.tensor([1 / (255 * value) for value in self.std]).repeat(width)
        shift = torch.tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)]).repeat(width)
        # Whole rows against a repeated row of factors: three channels at a time would leave the vector units idle.
        rows = as_tensor(images).view(count * height, width * 3).to(torch.float32)
        rows.mul_(scale).add_(shift)
        return rows.view(count, height, width, 3).permute(0, 3, 1, 2)

    def to_tensor(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Images of one size, (N, H, W, 3) uint8, to the (N, 3, R, R) float32 tensor that the network takes."""
        return self.normalised(self.resize_and_crop(images))


def as_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """The same pixels as a contiguous tensor of the same shape; a copy only where the array does not allow another."""
    import torch

    return torch.from_numpy(np.require(images, requirements=["C", "W"]))


def resized(images: NDArray[np.uint8], height: int, width: int, interpolation: str) -> NDArray[np.uint8]:
    """Images of one size, (N, H, W, 3), at another size; antialiased where they shrink."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    tensor = as_tensor(images).permute(0, 3, 1, 2)
    mode = InterpolationMode(interpolation)
    out: torch.Tensor = transforms.resize(tensor, [height, width], interpolation=mode, antialias=True)
    pixels: NDArray[np.uint8] = out.permute(0, 2, 3, 1).numpy()
    return pixels


def _three(values: Record, name: str) -> tuple[float, float, float]:
    listed = values.list(name)
    if len(listed) != 3:
        raise ValueError(f"{name} is {listed!r:.60}; it must be a list of three numbers")
    red, green, blue = (Record({name: one}).number(name) for one in listed)
    return red, green, blue
