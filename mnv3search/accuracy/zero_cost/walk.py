"""Going through a network layer by layer, with parts of it left out, as some of the scores ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mnv3search.network.build import MobileNetwork
    from mnv3search.network.modules import ConvNormActivation, InvertedResidual

    Layer = Callable[[ConvNormActivation, Tensor], Tensor]


def feature_maps(
    network: MobileNetwork, images: Tensor, layer: Layer, *, residuals: bool = True, gates: bool = True,
    after_block: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """The maps before the global pool, (N, C, H, W): the network's own forward pass with every layer by ``layer``.

    Args:
        network: in training mode, so that norms use the batch.
        images: (N, 3, R, R).
        layer: runs one convolution with its norm and activation.
        residuals: whether blocks add their input.
        gates: whether squeeze-excite scales channels.
        after_block: what is done with the maps between two blocks.
    """
    maps = layer(network.stem, images)
    for block in network.blocks:
        maps = _block(block, maps, layer, residuals, gates)  # type: ignore[arg-type]
        maps = maps if after_block is None else after_block(maps)
    if network.head.feature is not None:
        maps = layer(network.head.feature, maps)
        if gates and network.head.squeeze_excite is not None:
            maps = network.head.squeeze_excite(maps)
    return maps


def _block(block: InvertedResidual, entered: Tensor, layer: Layer, residuals: bool, gates: bool) -> Tensor:
    maps = entered if block.expansion is None else layer(block.expansion, entered)
    maps = layer(block.depthwise, maps)
    if gates and block.se_position == "depthwise":
        maps = block.squeeze_excite(maps)
    maps = layer(block.projection, maps)
    if gates and block.se_position == "projection":
        maps = block.squeeze_excite(maps)
    if not (residuals and block.has_residual):
        return maps
    return maps + (entered if block.shortcut is None else layer(block.shortcut, entered))
