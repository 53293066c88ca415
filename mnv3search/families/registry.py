"""Which networks there are, who published them, and the width rule that each uses unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mnv3search.architecture import Architecture
from mnv3search.errors import UnknownNameError
from mnv3search.families import efficientnet, mnasnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, searched
from mnv3search.scaling import WidthRule, scale_width


@dataclass(frozen=True, slots=True)
class PublishedNetwork:
    """One network of the literature: how to build it at 1.0 and 224, and how its width is scaled by default."""

    build: Callable[[], Architecture]
    family: str
    width_rule: WidthRule = "paper"

    @property
    def summary(self) -> str:
        """The first line of the builder's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


_PAPER = (
    (mobilenet_v1, ("mobilenet_v1", "mobilenet_v1_fanrencli")),
    (mobilenet_v2, ("mobilenet_v2", "mobilenet_v2_fanrencli")),
    (
        mobilenet_v3,
        (
            "mobilenet_v3_large", "mobilenet_v3_large_minimalistic", "mobilenet_v3_large_preprint",
            "mobilenet_v3_large_reduced_tail", "mobilenet_v3_large_relu", "mobilenet_v3_large_hswish16",
            "mobilenet_v3_large_hswish112", "mobilenet_v3_large_xiaolai", "mobilenet_v3_small",
            "mobilenet_v3_small_minimalistic", "mobilenet_v3_small_preprint", "mobilenet_v3_small_reduced_tail",
            "mobilenet_v3_small_xiaolai",
        ),
    ),
    (mnasnet, ("mnasnet_a1", "mnasnet_b1", "mnasnet_small")),
    (efficientnet, ("efficientnet_b0", "efficientnet_lite0")),
    (searched, ("fbnet_c", "single_path_nas")),
)  # fmt: skip

NETWORKS: Mapping[str, PublishedNetwork] = MappingProxyType(
    {
        name: PublishedNetwork(getattr(module, name), module.__name__.rsplit(".", 1)[-1])
        for module, names in _PAPER
        for name in names
    }
    | {
        "mobilenet_v3_small_fanrencli": PublishedNetwork(
            mobilenet_v3.mobilenet_v3_small_fanrencli, "mobilenet_v3", "out_channels"
        )
    }
)


def published(
    name: str, width_mult: float = 1.0, resolution: int | None = None, width_rule: WidthRule | None = None
) -> Architecture:
    """A published network by name.

    Args:
        name: as listed in :data:`NETWORKS`.
        width_mult: multiplier of its channels.
        resolution: side of the input in pixels; 224 where not given.
        width_rule: ``paper``, ``torchvision`` or ``out_channels``; the network's own where not given.

    Raises:
        UnknownNameError: no such network; the message names the nearest.
        ArchitectureError: a width or resolution out of range.
    """
    entry = NETWORKS.get(name)
    if entry is None:
        raise UnknownNameError("network", name, NETWORKS)
    architecture = scale_width(entry.build(), width_mult, width_rule or entry.width_rule)
    return architecture if resolution is None else architecture.with_resolution(resolution)
