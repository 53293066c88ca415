"""RandAugment and colour jitter: torchvision's operations, chosen and drawn here so that a batch can be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data.augmentation import STRONGEST, Augmentation
from mnv3search.training.data.preprocessing import as_tensor

if TYPE_CHECKING:
    import torch

# RandAugment's fourteen operations, in torchvision's order and strengths.
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
SIGNED = frozenset(OPERATIONS[1:10])
JITTER = ("brightness", "contrast", "color")


@dataclass(frozen=True, slots=True)
class Operations:
    """What is done to each image, one after the other.

    Attributes:
        chosen: (N, rounds) indices into ``OPERATIONS``.
        signs: (N, rounds) -1 or 1.
        magnitude: RandAugment's, 0 to 30.
        jitter: (N, 3) factors of brightness, contrast and saturation, or None.
    """

    chosen: NDArray[np.int64]
    signs: NDArray[np.int64]
    magnitude: float
    jitter: NDArray[np.float64] | None

    def share(self, part: slice) -> Operations:
        """Those of some images."""
        jitter = None if self.jitter is None else self.jitter[part]
        return Operations(self.chosen[part], self.signs[part], self.magnitude, jitter)


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


def changed(images: NDArray[np.uint8], operations: Operations) -> NDArray[np.uint8]:
    """Do the operations: (N, R, R, 3) uint8 to the same.

    Images to which the same happens go through torchvision together.
    """
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
    simple = {
        "brightness": transforms.adjust_brightness,
        "color": transforms.adjust_saturation,
        "contrast": transforms.adjust_contrast,
        "sharpness": transforms.adjust_sharpness,
    }
    if name in simple:
        out = simple[name](pixels, 1.0 + sign * 0.9 * part)
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
    changed_pixels: torch.Tensor = out
    return changed_pixels


def _moved(pixels: torch.Tensor, name: str, part: float, side: int) -> torch.Tensor:
    """Shear (up to 0.3) or translate (up to 150/331 of the side), as RandAugment does."""
    import math

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
