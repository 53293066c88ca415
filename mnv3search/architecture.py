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
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mnv3search.blocks import (
    BLOCK_KINDS,
    MAX_CHANNELS,
    Activation,
    Block,
    BlockSpec,
    LayerBuilder,
    SqueezeExciteSpec,
    check_bool,
    check_choice,
    check_int,
    check_kernel,
    check_number,
    check_part,
)
from mnv3search.errors import ArchitectureError, NotAListError
from mnv3search.reading import parse_json, read_bounded, utf8

Padding = Literal["symmetric", "same"]
MAX_RESOLUTION = 4_096
MAX_BLOCKS = 512


@dataclass(frozen=True, slots=True)
class StemSpec:
    """The first full convolution, on a 3-channel image, with its norm and activation."""

    out_channels: int
    kernel_size: int = 3
    stride: int = 2
    activation: Activation = "hard_swish"

    def __post_init__(self) -> None:
        check_int("StemSpec", "out_channels", self.out_channels, 1, MAX_CHANNELS)
        check_kernel("StemSpec", self.kernel_size)
        check_int("StemSpec", "stride", self.stride, 1, 4)
        check_choice("StemSpec", "activation", self.activation, get_args(Activation))

    def add_layers(self, layers: LayerBuilder) -> None:
        """Adds its convolution."""
        layers.conv("conv", layers.entered, self.out_channels, self.kernel_size, self.stride, self.activation, "stem")


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
                check_int("HeadSpec", name, value, 1, MAX_CHANNELS)
        check_choice("HeadSpec", "activation", self.activation, get_args(Activation))
        check_bool("HeadSpec", "hidden_norm", self.hidden_norm)
        check_bool("HeadSpec", "hidden_bias", self.hidden_bias)
        check_number("HeadSpec", "dropout", self.dropout, 0, 0.999)
        check_number("HeadSpec", "linear_std", self.linear_std, 1e-9, 10)
        if self.squeeze_excite is not None:
            check_part("HeadSpec", "squeeze_excite", self.squeeze_excite, SqueezeExciteSpec)
        if self.squeeze_excite is not None and self.feature_channels is None:
            raise ArchitectureError(
                "HeadSpec.squeeze_excite needs feature_channels: it acts on that convolution's output"
            )

    def add_layers(self, layers: LayerBuilder) -> None:
        """Adds what it has of feature convolution, squeeze-excite, pool, hidden layer, classifier."""
        x = layers.entered
        if self.feature_channels is not None:
            x = layers.conv("feature", x, self.feature_channels, 1, 1, self.activation, "feature")
            if self.squeeze_excite is not None:
                x = layers.squeeze_excite(x, self.squeeze_excite)
        x = layers.pool(x)
        if self.hidden_channels is not None:
            x = layers.linear(
                "hidden", x, self.hidden_channels, self.activation, bias=self.hidden_bias, norm=self.hidden_norm
            )
        layers.linear("classifier", x, layers.classes)


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
    blocks: tuple[Any, ...]  # each a Block; Any, so that code for one kind may read its fields
    head: HeadSpec
    resolution: int = 224
    classes: int = 1000
    padding: Padding = "symmetric"
    conv_bias: bool = False
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        check_part("Architecture", "stem", self.stem, StemSpec)
        check_part("Architecture", "head", self.head, HeadSpec)
        check_part("Architecture", "blocks", self.blocks, tuple)
        check_int("Architecture", "resolution", self.resolution, 1, MAX_RESOLUTION)
        check_int("Architecture", "classes", self.classes, 1, 10_000_000)
        check_choice("Architecture", "padding", self.padding, get_args(Padding))
        check_bool("Architecture", "conv_bias", self.conv_bias)
        check_number("Architecture", "norm_eps", self.norm_eps, 0, 1)
        check_number("Architecture", "norm_momentum", self.norm_momentum, 0, 1)
        if not 1 <= len(self.blocks) <= MAX_BLOCKS:
            raise ArchitectureError(f"an architecture has 1 to {MAX_BLOCKS} blocks, not {len(self.blocks)}")
        channels = self.stem.out_channels
        for index, block in enumerate(self.blocks):
            if BLOCK_KINDS.get(getattr(block, "kind", "")) is not type(block):
                kinds = ", ".join(cls.__name__ for cls in BLOCK_KINDS.values())
                raise ArchitectureError(f"Architecture.blocks[{index}] is {block!r}; it must be a {kinds}")
            try:
                block.check_input(channels)
            except ArchitectureError as error:
                raise ArchitectureError(f"block {index} {error}") from None
            channels = block.out_channels

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

    def map_blocks(self, change: Callable[[Any], Block]) -> Architecture:
        """The same network with ``change`` applied to every block."""
        return replace(self, blocks=tuple(change(block) for block in self.blocks))

    def __str__(self) -> str:
        """One short line: ``224px s16 | k3e16c16 k3e64c24s2 … | f960 h1280``; ``+`` marks SE, ``~`` h-swish."""
        head = [f"f{self.head.feature_channels}"] if self.head.feature_channels else []
        head += [f"h{self.head.hidden_channels}"] if self.head.hidden_channels else []
        blocks = " ".join(map(str, self.blocks))
        return f"{self.resolution}px s{self.stem.out_channels} | {blocks} | {' '.join(head) or 'pool'}"


def check_architecture(value: object) -> None:
    """Pass where ``value`` is one architecture; raises ArchitectureError for a list of them, or a name, say."""
    if not isinstance(value, Architecture):
        raise ArchitectureError(
            f"one architecture is taken, not {type(value).__name__} {reprlib.repr(value)}; "
            "give an Architecture, such as parse_network makes of a name"
        )


def out_size(size: int, stride: int) -> int:
    """Side of a convolution's output for an odd kernel, under either padding: ceil(size / stride)."""
    return math.ceil(size / stride)


def same_padding(size: int, kernel_size: int, stride: int) -> int:
    """Pixels that TensorFlow's ``SAME`` adds in one direction, both ends together."""
    return max((-(-size // stride) - 1) * stride + kernel_size - size, 0)


def spec_fields(cls: type) -> tuple[str, ...]:
    """Names of the constructor's fields of a spec class."""
    return tuple(f.name for f in fields(cls) if f.init)


FORMAT = "mnv3search.architecture"
VERSION = 1
MAX_FILE_BYTES = 4_000_000
_OMITTED_KIND = BlockSpec.kind


def to_mapping(spec: Any) -> dict[str, Any]:
    """A plain mapping of the fields of an architecture or one of its specs, those at their defaults left out.

    A block says its kind, but for an inverted residual.
    """
    kind = getattr(spec, "kind", _OMITTED_KIND)
    found: dict[str, Any] = {} if kind == _OMITTED_KIND else {"kind": kind}
    for f in fields(spec):
        if not f.init:
            continue
        value = getattr(spec, f.name)
        if f.default is not MISSING and value == f.default:
            continue
        if isinstance(value, tuple):
            found[f.name] = [to_mapping(block) for block in value]
        else:
            found[f.name] = to_mapping(value) if is_dataclass(value) else value
    return found


def from_mapping(mapping: object) -> Architecture:
    """The architecture of a plain mapping, as :func:`to_mapping` makes it, else an ArchitectureError."""
    values = _checked(mapping, Architecture, "architecture")
    values["stem"] = _build(values.get("stem"), StemSpec, "stem")
    values["head"] = _build(values.get("head"), HeadSpec, "head")
    blocks = values.get("blocks")
    if not isinstance(blocks, list):
        raise ArchitectureError("architecture.blocks must be a list of blocks")
    values["blocks"] = tuple(block_from_mapping(block, f"blocks[{i}]") for i, block in enumerate(blocks))
    return Architecture(**values)


def block_from_mapping(mapping: object, where: str = "block") -> Block:
    """The block of a plain mapping: of the kind that it names, or an inverted residual."""
    if not isinstance(mapping, Mapping):
        raise ArchitectureError(f"{where} must be an object, not {type(mapping).__name__}")
    kind = mapping.get("kind", _OMITTED_KIND)
    cls = BLOCK_KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ArchitectureError(f"{where}.kind is {kind!r:.60}; the kinds are {', '.join(BLOCK_KINDS)}")
    block: Block = _build({name: value for name, value in mapping.items() if name != "kind"}, cls, where)
    return block


def _checked(mapping: object, cls: type, where: str) -> dict[str, Any]:
    if not isinstance(mapping, Mapping):
        raise ArchitectureError(f"{where} must be an object, not {type(mapping).__name__}")
    known = spec_fields(cls)
    for key in mapping:
        if key not in known:
            raise ArchitectureError(f"{where}.{key} is unknown; the fields are {', '.join(known)}")
    missing = [f.name for f in fields(cls) if f.init and f.default is MISSING and f.name not in mapping]
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
        remedy = "give the path of a network's JSON file, such as a run's best.json"
        raise ArchitectureError(f"cannot read {path}: {error.strerror or error}; {remedy}") from None
    except ValueError as error:
        raise ArchitectureError(f"cannot read {path}: {error}") from None
    return parse_architecture(text, str(path))
