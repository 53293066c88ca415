"""Architectures as values: frozen, hashable, equal by content, free of torch; and their JSON.

An :class:`Architecture` is a stem, a sequence of blocks and a head, with the few conventions that hold for the
whole network. Input channels are never stored: a block's are the block's before it. Everything in which frameworks and
re-implementations differ (rounding, padding, norms, gates, biases, where squeeze-excite stands) is a field.

A JSON file is ``{"format": "mnv3search.architecture", "version": 1, "architecture": {…}}``; a run's ``best.json``,
whose ``architecture`` has the same content, is read as well. Fields at their defaults are left out.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mnv3search.errors import ArchitectureError, NotAListError
from mnv3search.reading import parse_json, read_bounded, utf8

Activation = Literal["relu", "relu6", "hard_swish", "swish"]
Gate = Literal["hard_sigmoid", "sigmoid", "hard_swish"]
Shortcut = Literal["identity", "projected", "none"]
Expansion = Literal["where_needed", "always", "depthwise"]
Padding = Literal["symmetric", "same"]

MAX_CHANNELS = 65_536
MAX_RESOLUTION = 4_096
MAX_BLOCKS = 512


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round ``value`` to the nearest multiple of ``divisor``, at least ``divisor``, never below 90 % of ``value``.

    Source: ``_make_divisible`` of tensorflow/models, slim/nets/mobilenet.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _check_int(owner: str, name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be an integer from {low} to {high}")


def _check_choice(owner: str, name: str, value: object, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def _check_kernel(owner: str, value: int) -> None:
    _check_int(owner, "kernel_size", value, 1, 31)
    if value % 2 == 0:
        raise ArchitectureError(f"{owner}.kernel_size is {value}; it must be odd")


def _check_number(owner: str, name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be a number from {low:g} to {high:g}")


def _check_bool(owner: str, name: str, value: object) -> None:
    if value is not True and value is not False:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be true or false")


def _check_part(owner: str, name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be a {kind.__name__}")


@dataclass(frozen=True, slots=True)
class SqueezeExciteSpec:
    """Global pool → 1×1 convolution → activation → 1×1 convolution → gate → scale.

    Attributes:
        squeeze_channels: channels between the two convolutions.
        activation, gate: after the first and the second convolution.
        position: after the depthwise convolution (on the expanded channels) or after the projection (on the output's).
        use_norm: a batch norm after each of the two convolutions.
        use_bias: biases in both convolutions.
        ratio, relative_to, divisor: how ``squeeze_channels`` follows when the block's widths change; a ``divisor`` of 1
            truncates, any other rounds with :func:`make_divisible`.
    """

    squeeze_channels: int
    activation: Activation = "relu"
    gate: Gate = "hard_sigmoid"
    position: Literal["depthwise", "projection"] = "depthwise"
    use_norm: bool = False
    use_bias: bool = True
    ratio: float = 0.25
    relative_to: Literal["input", "expanded", "output"] = "expanded"
    divisor: int = 8

    def __post_init__(self) -> None:
        _check_int("SqueezeExciteSpec", "squeeze_channels", self.squeeze_channels, 1, MAX_CHANNELS)
        _check_choice("SqueezeExciteSpec", "activation", self.activation, get_args(Activation))
        _check_choice("SqueezeExciteSpec", "gate", self.gate, get_args(Gate))
        _check_choice("SqueezeExciteSpec", "position", self.position, ("depthwise", "projection"))
        _check_choice("SqueezeExciteSpec", "relative_to", self.relative_to, ("input", "expanded", "output"))
        _check_bool("SqueezeExciteSpec", "use_norm", self.use_norm)
        _check_bool("SqueezeExciteSpec", "use_bias", self.use_bias)
        _check_number("SqueezeExciteSpec", "ratio", self.ratio, 1e-6, 64)
        _check_int("SqueezeExciteSpec", "divisor", self.divisor, 1, 256)

    def following(self, in_channels: int, expanded_channels: int, out_channels: int) -> SqueezeExciteSpec:
        """This squeeze-excite for a block of other widths."""
        base = {"input": in_channels, "expanded": expanded_channels, "output": out_channels}[self.relative_to]
        squeeze = (
            max(1, int(base * self.ratio)) if self.divisor == 1 else make_divisible(base * self.ratio, self.divisor)
        )
        return self if squeeze == self.squeeze_channels else replace(self, squeeze_channels=squeeze)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One inverted residual, or one depthwise-separable block (``linear_bottleneck=False``, ``expansion="depthwise"``).

    Attributes:
        kernel_size, stride: of the depthwise convolution.
        expanded_channels: channels of the depthwise convolution's output.
        out_channels: channels of the projection's output.
        activation: after the expansion and the depthwise convolution; after the projection too in a separable block.
        squeeze_excite: or None.
        expansion: ``where_needed``: a 1×1 expansion only where it changes the width; ``always``: even where it does
            not; ``depthwise``: the depthwise convolution itself multiplies the channels (V1's depth multiplier).
        linear_bottleneck: no activation after the projection.
        shortcut: ``identity``: added where stride is 1 and the widths agree; ``projected``: at every stride 1, through
            a 1×1 convolution and norm where the widths differ; ``none``.
    """

    kernel_size: int
    expanded_channels: int
    out_channels: int
    stride: int = 1
    activation: Activation = "relu"
    squeeze_excite: SqueezeExciteSpec | None = None
    expansion: Expansion = "where_needed"
    linear_bottleneck: bool = True
    shortcut: Shortcut = "identity"

    def __post_init__(self) -> None:
        _check_kernel("BlockSpec", self.kernel_size)
        _check_int("BlockSpec", "expanded_channels", self.expanded_channels, 1, MAX_CHANNELS)
        _check_int("BlockSpec", "out_channels", self.out_channels, 1, MAX_CHANNELS)
        _check_int("BlockSpec", "stride", self.stride, 1, 4)
        _check_choice("BlockSpec", "activation", self.activation, get_args(Activation))
        _check_choice("BlockSpec", "expansion", self.expansion, get_args(Expansion))
        _check_choice("BlockSpec", "shortcut", self.shortcut, get_args(Shortcut))
        _check_bool("BlockSpec", "linear_bottleneck", self.linear_bottleneck)
        if self.squeeze_excite is not None:
            _check_part("BlockSpec", "squeeze_excite", self.squeeze_excite, SqueezeExciteSpec)

    def has_expansion(self, in_channels: int) -> bool:
        """Whether a 1×1 expansion convolution stands before the depthwise one."""
        if self.expansion == "where_needed":
            return self.expanded_channels != in_channels
        return self.expansion == "always"

    def has_residual(self, in_channels: int) -> bool:
        """Whether the block's input is added to its output."""
        if self.stride != 1 or self.shortcut == "none":
            return False
        return self.shortcut == "projected" or in_channels == self.out_channels

    def has_projected_shortcut(self, in_channels: int) -> bool:
        """Whether the residual goes through a convolution."""
        return self.has_residual(in_channels) and in_channels != self.out_channels

    def resized(self, in_channels: int, expanded_channels: int, out_channels: int) -> BlockSpec:
        """The same block at other widths, its squeeze-excite following."""
        se = self.squeeze_excite
        return replace(
            self,
            expanded_channels=expanded_channels,
            out_channels=out_channels,
            squeeze_excite=se.following(in_channels, expanded_channels, out_channels) if se else None,
        )


@dataclass(frozen=True, slots=True)
class StemSpec:
    """The first full convolution, on a 3-channel image, with its norm and activation."""

    out_channels: int
    kernel_size: int = 3
    stride: int = 2
    activation: Activation = "hard_swish"

    def __post_init__(self) -> None:
        _check_int("StemSpec", "out_channels", self.out_channels, 1, MAX_CHANNELS)
        _check_kernel("StemSpec", self.kernel_size)
        _check_int("StemSpec", "stride", self.stride, 1, 4)
        _check_choice("StemSpec", "activation", self.activation, get_args(Activation))


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """From the last block to the logits.

    ``[1×1 convolution, norm, activation, squeeze-excite] → pool → [linear, norm, activation] → dropout → linear``

    Attributes:
        feature_channels: of the 1×1 convolution before the pool (V3's 960, V2's 1280), or None.
        squeeze_excite: on that convolution's output (the first preprint's V3-Small), or None.
        hidden_channels: of the layer after the pool (V3's 1280), or None; with or without norm and bias.
        activation: of both.
        dropout: the probability of dropping, before the classifier.
        linear_std: standard deviation of the classifier's initial weights.
    """

    feature_channels: int | None
    hidden_channels: int | None = None
    activation: Activation = "hard_swish"
    squeeze_excite: SqueezeExciteSpec | None = None
    hidden_norm: bool = False
    hidden_bias: bool = True
    dropout: float = 0.2
    linear_std: float = 0.01

    def __post_init__(self) -> None:
        for name in ("feature_channels", "hidden_channels"):
            value = getattr(self, name)
            if value is not None:
                _check_int("HeadSpec", name, value, 1, MAX_CHANNELS)
        _check_choice("HeadSpec", "activation", self.activation, get_args(Activation))
        _check_bool("HeadSpec", "hidden_norm", self.hidden_norm)
        _check_bool("HeadSpec", "hidden_bias", self.hidden_bias)
        _check_number("HeadSpec", "dropout", self.dropout, 0, 0.999)
        _check_number("HeadSpec", "linear_std", self.linear_std, 1e-9, 10)
        if self.squeeze_excite is not None:
            _check_part("HeadSpec", "squeeze_excite", self.squeeze_excite, SqueezeExciteSpec)
        if self.squeeze_excite is not None and self.feature_channels is None:
            raise ArchitectureError(
                "HeadSpec.squeeze_excite needs feature_channels: it acts on that convolution's output"
            )


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole network as a value.

    Attributes:
        stem, blocks, head: in this order.
        resolution: side of the square input in pixels.
        classes: number of logits.
        padding: ``symmetric`` (torch: kernel // 2 on each side) or ``same`` (TensorFlow: what the stride needs,
            the odd pixel at the end). Output sizes agree: ceil(size / stride).
        conv_bias: a bias in every stem, block and feature convolution, beside its norm.
        norm_eps, norm_momentum: of every batch norm; momentum in torch's sense (the share of the new batch).
    """

    stem: StemSpec
    blocks: tuple[BlockSpec, ...]
    head: HeadSpec
    resolution: int = 224
    classes: int = 1000
    padding: Padding = "symmetric"
    conv_bias: bool = False
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        _check_part("Architecture", "stem", self.stem, StemSpec)
        _check_part("Architecture", "head", self.head, HeadSpec)
        _check_part("Architecture", "blocks", self.blocks, tuple)
        _check_int("Architecture", "resolution", self.resolution, 1, MAX_RESOLUTION)
        _check_int("Architecture", "classes", self.classes, 1, 10_000_000)
        _check_choice("Architecture", "padding", self.padding, get_args(Padding))
        _check_bool("Architecture", "conv_bias", self.conv_bias)
        _check_number("Architecture", "norm_eps", self.norm_eps, 0, 1)
        _check_number("Architecture", "norm_momentum", self.norm_momentum, 0, 1)
        if not 1 <= len(self.blocks) <= MAX_BLOCKS:
            raise ArchitectureError(f"an architecture has 1 to {MAX_BLOCKS} blocks, not {len(self.blocks)}")
        for index, block in enumerate(self.blocks):
            _check_part("Architecture", f"blocks[{index}]", block, BlockSpec)
        for index, (block, in_channels) in enumerate(zip(self.blocks, self.in_channels(), strict=True)):
            if block.expansion == "depthwise" and block.expanded_channels % in_channels:
                raise ArchitectureError(
                    f"block {index} multiplies {in_channels} channels to {block.expanded_channels} in its depthwise "
                    f"convolution; the second must be a multiple of the first"
                )

    def __hash__(self) -> int:
        if not self._hash:
            content = (self.stem, self.blocks, self.head, self.resolution, self.classes, self.padding, self.conv_bias)
            object.__setattr__(self, "_hash", hash(content) or 1)
        return self._hash

    def __getstate__(self) -> list[object]:
        """All fields but the hash, which is another in every process."""
        return [0 if known.name == "_hash" else getattr(self, known.name) for known in fields(self)]

    def __iter__(self) -> Iterator[Any]:
        """None: a single architecture where several are taken is refused in words."""
        raise NotAListError(f"one architecture was given where a list is taken: write [architecture]; it is {self}")

    def in_channels(self) -> Iterator[int]:
        """Input channels of each block, in order."""
        channels = self.stem.out_channels
        for block in self.blocks:
            yield channels
            channels = block.out_channels

    def with_resolution(self, resolution: int) -> Architecture:
        """The same network for another input size."""
        return replace(self, resolution=resolution)

    def with_classes(self, classes: int) -> Architecture:
        """The same network with another number of logits."""
        return replace(self, classes=classes)

    def map_blocks(self, change: Callable[[BlockSpec], BlockSpec]) -> Architecture:
        """The same network with ``change`` applied to every block."""
        return replace(self, blocks=tuple(change(block) for block in self.blocks))

    def __str__(self) -> str:
        """One short line: ``224px s16 | k3e16c16 k3e64c24s2 … | f960 h1280``; ``+`` marks SE, ``~`` h-swish."""
        marks = {"relu": "", "relu6": "'", "hard_swish": "~", "swish": "≈"}
        parts = [
            f"k{b.kernel_size}e{b.expanded_channels}c{b.out_channels}"
            f"{f's{b.stride}' if b.stride > 1 else ''}{'+' if b.squeeze_excite else ''}{marks[b.activation]}"
            for b in self.blocks
        ]
        head = [f"f{self.head.feature_channels}"] if self.head.feature_channels else []
        head += [f"h{self.head.hidden_channels}"] if self.head.hidden_channels else []
        return f"{self.resolution}px s{self.stem.out_channels} | {' '.join(parts)} | {' '.join(head) or 'pool'}"


def check_architecture(value: object) -> None:
    """Pass where ``value`` is one architecture.

    Raises:
        ArchitectureError: it is something else, such as a list of them or a name.
    """
    if not isinstance(value, Architecture):
        raise ArchitectureError(
            f"one architecture is taken, not {type(value).__name__} {reprlib.repr(value)}; "
            "give an Architecture, such as parse_network makes of a name"
        )


def out_size(size: int, stride: int) -> int:
    """Side of a convolution's output for an odd kernel, under either padding: ceil(size / stride)."""
    return math.ceil(size / stride)


def residual_groups(architecture: Architecture) -> tuple[tuple[int, ...], ...]:
    """Blocks whose outputs are added to one another, and must therefore keep one width.

    A group is a run of block indices: its first member starts the bottleneck, the others add to it through an identity
    shortcut. Index -1 stands for the stem where the first block adds the stem's output.
    """
    groups: list[list[int]] = [[-1]]
    for index, (block, in_channels) in enumerate(zip(architecture.blocks, architecture.in_channels(), strict=True)):
        joined = block.has_residual(in_channels) and not block.has_projected_shortcut(in_channels)
        if joined:
            groups[-1].append(index)
        else:
            groups.append([index])
    return tuple(tuple(group) for group in groups)


def spec_fields(cls: type) -> tuple[str, ...]:
    """Names of the constructor's fields of a spec class."""
    return tuple(f.name for f in fields(cls) if f.init)


FORMAT = "mnv3search.architecture"
VERSION = 1
MAX_FILE_BYTES = 4_000_000

_Spec = SqueezeExciteSpec | BlockSpec | StemSpec | HeadSpec | Architecture


def to_mapping(spec: _Spec) -> dict[str, Any]:
    """A plain mapping of a spec's fields, those at their defaults left out."""
    found: dict[str, Any] = {}
    for f in fields(spec):
        if not f.init:
            continue
        value = getattr(spec, f.name)
        if f.default is not MISSING and value == f.default:
            continue
        if isinstance(value, tuple):
            found[f.name] = [to_mapping(block) for block in value]
        else:
            found[f.name] = to_mapping(value) if isinstance(value, _Spec) else value
    return found


def from_mapping(mapping: object) -> Architecture:
    """The architecture of a plain mapping.

    Raises:
        ArchitectureError: an unknown or missing field, or a value that breaks a rule; the message says where.
    """
    values = _checked(mapping, Architecture, "architecture")
    values["stem"] = _build(values.get("stem"), StemSpec, "stem")
    values["head"] = _build(values.get("head"), HeadSpec, "head")
    blocks = values.get("blocks")
    if not isinstance(blocks, list):
        raise ArchitectureError("architecture.blocks must be a list of blocks")
    values["blocks"] = tuple(_build(block, BlockSpec, f"blocks[{i}]") for i, block in enumerate(blocks))
    return Architecture(**values)


def _checked(mapping: object, cls: type, where: str) -> dict[str, Any]:
    if not isinstance(mapping, Mapping):
        raise ArchitectureError(f"{where} must be an object, not {type(mapping).__name__}")
    known = spec_fields(cls)
    for key in mapping:
        if key not in known:
            raise ArchitectureError(f"{where}.{key} is unknown; the fields are {', '.join(known)}")
    required = [f.name for f in fields(cls) if f.init and f.default is MISSING]
    missing = [name for name in required if name not in mapping]
    if missing:
        raise ArchitectureError(f"{where} lacks {', '.join(missing)}")
    return dict(mapping)


def _build(mapping: object, cls: type[Any], where: str) -> Any:
    values = _checked(mapping, cls, where)
    if values.get("squeeze_excite") is not None:
        values["squeeze_excite"] = _build(values["squeeze_excite"], SqueezeExciteSpec, f"{where}.squeeze_excite")
    try:
        return cls(**values)
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def dump_architecture(architecture: Architecture) -> str:
    """The JSON text of an architecture file."""
    content = {"format": FORMAT, "version": VERSION, "architecture": to_mapping(architecture)}
    return json.dumps(content, indent=1) + "\n"


def parse_architecture(text: str, where: str = "architecture") -> Architecture:
    """The architecture of a JSON text; ``where`` names it in errors."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ArchitectureError(f"{where} is not JSON that can be read: {error}") from None
    if not isinstance(content, dict) or "architecture" not in content:
        raise ArchitectureError(f"{where} has no 'architecture'; it must be a {FORMAT} file or a run's best.json")
    found = content.get("format", FORMAT)  # a run's best.json has none
    if found != FORMAT:
        raise ArchitectureError(f"{where} is of format {found!r:.60}; an architecture's file has {FORMAT!r}, or none")
    if "format" in content and content.get("version") != VERSION:
        raise ArchitectureError(f"{where} has version {content.get('version')!r}; this release reads version {VERSION}")
    try:
        return from_mapping(content["architecture"])
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def load_architecture(path: str | Path) -> Architecture:
    """The architecture in a JSON file.

    Raises:
        ArchitectureError: the file is missing, too large, not JSON, or breaks a rule.
    """
    try:
        text = utf8(read_bounded(path, MAX_FILE_BYTES))
    except OSError as error:
        raise ArchitectureError(
            f"cannot read {path}: {error.strerror or error}; give the path of a network's JSON file, such as a run's "
            "best.json"
        ) from None
    except ValueError as error:
        raise ArchitectureError(f"cannot read {path}: {error}") from None
    return parse_architecture(text, str(path))
