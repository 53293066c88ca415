"""What is done at random to training images, as named values of a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mnv3search.errors import TrainingError

CROPS = ("none", "pad", "random_resized")
STRONGEST = 30.0  # RandAugment's scale ends here, as in torchvision


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training images; the default changes nothing.

    Attributes:
        crop: ``none``: the middle, as for judging. ``pad``: a square of the resolution out of the image padded with
            black by ``pad`` pixels. ``random_resized``: a part of ``least_area`` to 1 of the image with an aspect of
            3/4 to 4/3, resized.
        pad: pixels on each side, for ``crop: pad``.
        least_area: smallest share of the image, for ``crop: random_resized``.
        flip: mirror half of the images left to right: each one in every other epoch, so that two epochs in a row show
            both sides; which half comes first is random.
        randaugment: magnitude of RandAugment, 0 to 30 (9 is usual), or None for none.
        randaugment_count: how many of its operations are done to an image.
        jitter: brightness, contrast and saturation each change by a factor of 1 - ``jitter`` to 1 + ``jitter``.
        cutout: side of a square set to the mean colour, pixels; 0 for none.
        erase: probability that a rectangle of 2 to 33 % of the area is set to the mean colour.
        mixup: alpha of MixUp; 0 for none.
        cutmix: alpha of CutMix; 0 for none. With both, each batch gets one of them at random.

    Raises:
        TrainingError: a value out of its range.
    """

    crop: str = "none"
    pad: int = 4
    least_area: float = 0.08
    flip: bool = False
    randaugment: float | None = None
    randaugment_count: int = 2
    jitter: float = 0.0
    cutout: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

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
        """Plain values for YAML and JSON; :meth:`from_mapping` reads them back."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Augmentation:
        """Read a mapping of a recipe; what is left out keeps its default.

        Raises:
            TrainingError: an unknown name, or a value of the wrong kind or out of its range.
        """
        known = cls.__dataclass_fields__
        if unknown := [name for name in mapping if name not in known]:
            raise TrainingError(f"augmentation has no {unknown[0]!r}; it has {', '.join(known)}")
        return cls(**mapping)  # type: ignore[arg-type]  # checked value by value when made


_RANGES = (
    ("pad", 0, 64),
    ("least_area", 0.01, 1),
    ("randaugment", 0, STRONGEST),
    ("randaugment_count", 1, 10),
    ("jitter", 0, 1),
    ("cutout", 0, 1024),
    ("erase", 0, 1),
    ("mixup", 0, 10),
    ("cutmix", 0, 10),
)
