"""Whether one architecture is a narrowing of another: the same layers, none of them wider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, SqueezeExciteSpec

_WHOLE = ("classes", "padding", "conv_bias", "norm_eps")
_BLOCK = ("kernel_size", "stride", "activation", "linear_bottleneck")
_SQUEEZE = ("activation", "gate", "position", "use_norm", "use_bias")
_HEAD = ("activation", "hidden_norm", "hidden_bias")
_LAYERS = frozenset(
    {"expansion", "residual", "convolution in its shortcut", "squeeze-excite", "feature_layer", "hidden_layer"}
)


class Fault(NamedTuple):
    """One thing in which an architecture is no narrowing of another.

    Attributes:
        where: ``the network``, ``the stem``, ``block 3``, ``the head``.
        what: a field of its spec, or a layer.
        wide, narrow: its two values; for a layer, whether it is there.
    """

    where: str
    what: str
    wide: object
    narrow: object

    def told(self, other: str) -> str:
        """Such as ``block 3 has stride 1, OTHER 2``."""
        if isinstance(self.wide, bool) and self.what in _LAYERS:
            no, found = ("", "none") if self.wide else ("no ", "one")
            return f"{self.where} has {no}{self.what}, {other} {found}"
        return f"{self.where} has {self.what} {self.wide}, {other} {self.narrow}"


class _Pair(NamedTuple):
    """A block and its input channels, in the wide and in the narrow architecture."""

    wide: BlockSpec
    wide_in: int
    narrow: BlockSpec
    narrow_in: int


def narrowing_faults(wide: Architecture, narrow: Architecture) -> Iterator[Fault]:
    """What keeps ``narrow`` from being a narrowing of ``wide``, in the order of the layers; nothing where it is one.

    Resolution, dropout, initial spreads and the norms' momentum are free. Expansions and shortcuts are compared by
    what is there: a block whose expansion came to equal its input keeps it by ``expansion="always"``. A projected
    shortcut may fall away where its two widths came to agree.
    """
    yield from _differing("the network", _WHOLE, wide, narrow)
    yield from _differing("the stem", ("kernel_size", "stride", "activation"), wide.stem, narrow.stem)
    yield from _wider("the stem", "out_channels", wide.stem.out_channels, narrow.stem.out_channels)
    if len(wide.blocks) != len(narrow.blocks):
        yield Fault("the network", "block count", len(wide.blocks), len(narrow.blocks))
        return
    pairs = map(_Pair, wide.blocks, wide.in_channels(), narrow.blocks, narrow.in_channels())
    for index, pair in enumerate(pairs):
        yield from _block_faults(f"block {index}", pair)
    yield from _head_faults(wide.head, narrow.head)


def _block_faults(where: str, pair: _Pair) -> Iterator[Fault]:
    wide, wide_in, narrow, narrow_in = pair
    yield from _differing(where, _BLOCK, wide, narrow)
    yield from _presence(where, "expansion", wide.has_expansion(wide_in), narrow.has_expansion(narrow_in))
    yield from _presence(where, "residual", wide.has_residual(wide_in), narrow.has_residual(narrow_in))
    if narrow.has_projected_shortcut(narrow_in) and not wide.has_projected_shortcut(wide_in):
        yield from _presence(where, "convolution in its shortcut", False, True)
    yield from _wider(where, "out_channels", wide.out_channels, narrow.out_channels)
    yield from _wider(where, "expanded_channels", wide.expanded_channels, narrow.expanded_channels)
    if not wide.has_expansion(wide_in) and not narrow.has_expansion(narrow_in):
        multipliers = wide.expanded_channels // wide_in, narrow.expanded_channels // narrow_in
        yield from _wider(where, "depthwise outputs per input channel", *multipliers)
    yield from _squeeze_faults(where, wide.squeeze_excite, narrow.squeeze_excite)


def _head_faults(wide: HeadSpec, narrow: HeadSpec) -> Iterator[Fault]:
    yield from _differing("the head", _HEAD, wide, narrow)
    for name in ("feature_channels", "hidden_channels"):
        before, after = getattr(wide, name), getattr(narrow, name)
        yield from _presence("the head", name.replace("channels", "layer"), before is not None, after is not None)
        yield from _wider("the head", name, before, after)
    yield from _squeeze_faults("the head", wide.squeeze_excite, narrow.squeeze_excite)


def _squeeze_faults(where: str, wide: SqueezeExciteSpec | None, narrow: SqueezeExciteSpec | None) -> Iterator[Fault]:
    yield from _presence(where, "squeeze-excite", wide is not None, narrow is not None)
    if wide is not None and narrow is not None:
        yield from _differing(f"squeeze-excite of {where}", _SQUEEZE, wide, narrow)
        yield from _wider(where, "squeeze_channels", wide.squeeze_channels, narrow.squeeze_channels)


def _differing(where: str, names: tuple[str, ...], wide: object, narrow: object) -> Iterator[Fault]:
    for name in names:
        before, after = getattr(wide, name), getattr(narrow, name)
        if before != after:
            yield Fault(where, name, before, after)


def _presence(where: str, what: str, before: bool, after: bool) -> Iterator[Fault]:
    if before != after:
        yield Fault(where, what, before, after)


def _wider(where: str, name: str, before: int | None, after: int | None) -> Iterator[Fault]:
    if before is not None and after is not None and after > before:
        yield Fault(where, name, before, after)
