"""Whether an exported model does what the trained network does, image by image: stated, and refused where it does not.

The network's own logits, in fp32, are the truth. A model in fp32 may differ by 1e-3 of their root mean square (rounding
comes to 1e-5) and must predict the same class wherever the network's two best logits are further apart than twice that.
A model in int8 rounds to 256 steps: all its logits together may differ by half of that root mean square (MobileNetV3
at 32×32 comes to 0.05, MobileNetV2 with ImageNet weights on images of another kind to 0.4, an unrelated output to 1.4)
and, where the images have labels, it may lose 5 points of accuracy and what chance explains. These bounds stop a file
that is broken; the figures are for the user to decide by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import ExportError
from mnv3search.export.exported import ExportedModel, Logits, PixelChunk

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

MAX_FP32_DIFFERENCE = 1e-3
MAX_INT8_DIFFERENCE = 0.5
MAX_INT8_LOSS = 5.0
SURE = 3.0  # standard errors of the lost accuracy that chance is given
RULES = {
    "fp32": f"logits within {MAX_FP32_DIFFERENCE:g} of their root mean square, and the same class on every image",
    "int8": f"logits, all together, within {MAX_INT8_DIFFERENCE:g} of their root mean square; at most "
    f"{MAX_INT8_LOSS:g} points of top-1 lost, but for chance",
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How an exported model compares with its network.

    Attributes:
        precision: of the model.
        source: of the images, for a reader; ``noise`` where there were none.
        images: number of images.
        max_difference: largest difference of a logit, as a share of the root mean square of the network's.
        rms_difference: root mean square of all differences, as the same share.
        agreement: percent of images on which both predict the same class.
        network_top1, model_top1: percent of images whose label each predicts; None without labels.
        top1_error: one standard deviation of the difference of the two, points; None without labels.
    """

    precision: str
    source: str
    images: int
    max_difference: float
    rms_difference: float
    agreement: float
    network_top1: float | None = None
    model_top1: float | None = None
    top1_error: float | None = None

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "rule": RULES[self.precision]}


def compare(trained: TrainedNetwork, model: ExportedModel, images: Iterable[PixelChunk], source: str) -> Parity:
    """Run both on ``images``."""
    chunks = [(trained.logits(chunk.pixels), model.logits(chunk.pixels), chunk.labels) for chunk in images]
    if not chunks:
        raise ExportError(f"{source} gives no images to check the exported model on; give at least one")
    truth, found, labels = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    if not (np.isfinite(truth).all() and np.isfinite(found).all()):
        raise ExportError(f"logits on {source} are not finite; train the network again")
    return compare_logits(truth, found, labels, model.description.precision, source)


def compare_logits(truth: Logits, found: Logits, labels: NDArray[np.int64], precision: str, source: str) -> Parity:
    """How logits ``found`` (n, classes) compare with the network's; ``labels`` (n,) are -1 where there are none."""
    rms = float(np.sqrt(np.mean(np.square(truth, dtype=np.float64)))) or 1.0
    difference = np.abs(found.astype(np.float64) - truth) / rms
    first, second = truth.argmax(axis=1), found.argmax(axis=1)
    same = first == second
    if precision == "fp32":  # classes that are equal but for rounding may come in either order
        order = np.sort(truth, axis=1)
        same |= order[:, -1] - order[:, -min(2, order.shape[1])] <= 2 * MAX_FP32_DIFFERENCE * rms
    figures = (len(truth), float(difference.max()), float(np.sqrt(np.mean(difference**2))), 100.0 * float(same.mean()))
    if (labels < 0).any():
        return Parity(precision, source, *figures)
    network_right, model_right = first == labels, second == labels
    changes = model_right.astype(np.float64) - network_right
    error = 100.0 * float(changes.std()) / math.sqrt(len(changes))
    top1 = (100.0 * float(network_right.mean()), 100.0 * float(model_right.mean()))
    return Parity(precision, source, *figures, *top1, error)


def check_parity(parity: Parity) -> None:
    """Refuse a model that does not do what its network does.

    Raises:
        ExportError: the figures are outside the bounds of this module; names them.
    """
    where = f"on {parity.images} images ({parity.source})"
    if parity.precision == "fp32":
        if parity.max_difference > MAX_FP32_DIFFERENCE or parity.agreement < 100.0:
            raise ExportError(
                f"the exported model differs from the network by {parity.max_difference:.2g} of its logits' root mean "
                f"square and predicts the same class {parity.agreement:.2f} % of the time {where}; "
                f"{MAX_FP32_DIFFERENCE:g} and 100 % are the rule, so no file was written: this is a fault of the "
                "runtime or of mnv3search"
            )
        return
    remedy = (
        "so no file was written: calibrate on more images (--calibration-images), by another --calibration, or with "
        "--reduce-range on an x86 processor without VNNI; or export fp32"
    )
    if parity.rms_difference > MAX_INT8_DIFFERENCE:
        raise ExportError(
            f"in int8 the logits are off by {parity.rms_difference:.2g} of their root mean square, and their class is "
            f"the same {parity.agreement:.1f} % of the time {where}; {MAX_INT8_DIFFERENCE:g} is the rule, {remedy}"
        )
    if parity.network_top1 is None or parity.model_top1 is None or parity.top1_error is None:
        return
    lost = parity.network_top1 - parity.model_top1
    if lost - SURE * parity.top1_error > MAX_INT8_LOSS:
        raise ExportError(
            f"in int8 top-1 falls from {parity.network_top1:.2f} to {parity.model_top1:.2f} % {where}; at most "
            f"{MAX_INT8_LOSS:g} points is the rule, {remedy}"
        )
