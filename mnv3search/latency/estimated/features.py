"""What an estimated device prices: counts of a unit, by kind of work.

Every MAdd pays one rate (``madds``), whatever runs it; stems, depthwise and linear layers, which run slower per MAdd
than a pointwise convolution, pay a surcharge. So a kernel of 7 or a stem is never free, whatever a fit says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.layers import Layer, Unit, unit_layers, units

FEATURES: dict[str, str] = {
    "madds": "M MAdds of all convolutions and linear layers",
    "stem_madds": "M MAdds of the stem, beside the rate for all",
    "depthwise_madds": "M MAdds of depthwise convolutions of kernel 3 or less, beside the rate for all",
    "wide_depthwise_madds": "M MAdds of depthwise convolutions of kernel 5 or more, beside the rate for all",
    "linear_madds": "M MAdds of the linear layers after the pool, beside the rate for all",
    "elements": "M activation elements that convolutions and the last pool read and write (4 bytes each)",
    "weights": "M parameters read (4 bytes each)",
    "channels": "thousands of channels into and out of pointwise convolutions",
    "squeeze_excite_elements": "M elements that a squeeze-excite's pool and scaling read",
    "squeeze_excites": "squeeze-excites",
    "hard_swish_elements": "M elements that go through an h-swish or swish",
    "layers": "convolutions and linear layers, those of squeeze-excites apart",
}
"""The features in their order; the unit is what one of each counts, a coefficient is milliseconds for one."""

FEATURE_NAMES = tuple(FEATURES)
_THOUSAND, _MILLION = 1e3, 1e6
_SWISHES = ("hard_swish", "swish")


def _convolution(layer: Layer) -> dict[str, float]:
    madds = layer.madds / _MILLION
    read, written = layer.in_channels * layer.in_size**2, layer.out_channels * layer.out_size**2
    found = {"madds": madds, "weights": layer.parameters / _MILLION, "elements": (read + written) / _MILLION}
    found["layers"] = 1.0
    if layer.kind == "stem":
        found["stem_madds"] = madds
    elif layer.kind == "depthwise":
        found["depthwise_madds" if layer.kernel_size <= 3 else "wide_depthwise_madds"] = madds
    elif layer.kind in ("hidden", "classifier"):
        found["linear_madds"] = madds
    else:
        found["channels"] = (layer.in_channels + layer.out_channels) / _THOUSAND
    if layer.activation in _SWISHES:
        found["hard_swish_elements"] = written / _MILLION
    return found


def _layer_features(layer: Layer) -> dict[str, float]:
    elements = layer.in_channels * layer.in_size**2 / _MILLION
    if layer.kind == "add":  # not priced: a residual that appears where two widths meet must not raise the latency
        return {}
    if layer.kind == "pool":
        return {"elements": elements}
    if layer.kind == "squeeze_pool":
        return {"squeeze_excites": 1.0, "squeeze_excite_elements": elements}
    if layer.kind == "scale":
        return {"squeeze_excite_elements": elements}
    if layer.kind in ("squeeze_reduce", "squeeze_expand"):
        return {"madds": layer.madds / _MILLION, "weights": layer.parameters / _MILLION}
    return _convolution(layer)


@lru_cache(maxsize=1 << 17)
def unit_features(unit: Unit) -> tuple[float, ...]:
    """The counts of one unit in the order of :data:`FEATURES`; equal units are counted once."""
    total = dict.fromkeys(FEATURE_NAMES, 0.0)
    for layer in unit_layers(unit):
        for name, value in _layer_features(layer).items():
            total[name] += value
    return tuple(total.values())


def architecture_features(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """The counts of whole networks; shape (n, features)."""
    rows = [np.sum([unit_features(unit) for unit in units(a)], axis=0) for a in architectures]
    return np.array(rows, dtype=np.float64).reshape(len(architectures), len(FEATURE_NAMES))
