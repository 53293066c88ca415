"""Where a network lies outside those that the prior was fitted to: there its top-1 is an extrapolation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnv3search.architecture import Architecture
from mnv3search.cost import count

Range = tuple[float, float]
_ROUNDING = 0.02  # a width rounded to 8 channels is no new ratio


@dataclass(frozen=True, slots=True)
class OutsideRange:
    """A quantity of a network, its value, and the smallest and largest among the fitted networks."""

    quantity: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        fitted = f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.quantity} {self.value:.4g} (fitted: {fitted})"


def quantities(architecture: Architecture) -> dict[str, Range]:
    """What can be out of range, in words, each with its smallest and largest value within the network."""
    blocks = architecture.blocks
    ins = list(architecture.in_channels())
    ratios = [b.expanded_channels / c for b, c in zip(blocks, ins, strict=True) if b.expanded_channels != c]
    cost, head = count(architecture), architecture.head
    last = head.hidden_channels or head.feature_channels or blocks[-1].out_channels
    several: dict[str, Sequence[float]] = {
        "expansion ratio": ratios,
        "kernel size": [b.kernel_size for b in blocks],
        "channels of a block": [b.out_channels for b in blocks],
        "stem filters": [architecture.stem.out_channels],
        "blocks": [len(blocks)],
        "channels before the classifier": [last],
        "input px": [architecture.resolution],
        "M MAdds": [cost.madds / 1e6],
        "classes": [architecture.classes],
    }
    return {name: (float(min(values)), float(max(values))) for name, values in several.items() if values}


def ranges(architectures: Iterable[Architecture]) -> dict[str, Range]:
    """The ranges of all the networks together."""
    found: dict[str, Range] = {}
    for architecture in architectures:
        for name, (low, high) in quantities(architecture).items():
            known = found.get(name, (low, high))
            found[name] = (min(known[0], low), max(known[1], high))
    return found


def outside(architecture: Architecture, fitted: Mapping[str, Range]) -> list[OutsideRange]:
    """Every quantity of the network that lies outside the fitted ranges."""
    found = []
    for name, (low, high) in quantities(architecture).items():
        least, most = fitted.get(name, (low, high))
        if low < least * (1 - _ROUNDING):
            found.append(OutsideRange(name, low, least, most))
        if high > most * (1 + _ROUNDING):
            found.append(OutsideRange(name, high, least, most))
    return found
