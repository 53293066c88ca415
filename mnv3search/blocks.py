"""Blocks as values, free of torch: one class a kind, in :data:`BLOCK_KINDS`.

A kind (:class:`Block`) gives its layers to a :class:`LayerBuilder`, and what a space may choose of it; counts, modules,
graphs, slices, NetAdapt's sites, latency keys and spaces follow. A new kind needs its class, a space, tests and docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self, get_args

from mnv3search.errors import ArchitectureError

Activation = Literal["relu", "relu6", "hard_swish", "swish"]
Gate = Literal["hard_sigmoid", "sigmoid", "hard_swish"]
Shortcut = Literal["identity", "projected", "none"]
Expansion = Literal["where_needed", "always", "depthwise"]
LayerKind = Literal[
    "stem", "convolution", "expansion", "depthwise", "projection", "shortcut", "feature",
    "squeeze_pool", "squeeze_reduce", "squeeze_expand", "scale", "add", "pool", "hidden", "classifier",
]  # fmt: skip

MAX_CHANNELS = 65_536
ACTIVATION_MARKS: Mapping[str, str] = {"relu": "", "relu6": "'", "hard_swish": "~", "swish": "≈"}
"""How texts of blocks show their activation."""


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round ``value`` to the nearest multiple of ``divisor``, at least ``divisor``, never below 90 % of ``value``.

    Source: ``_make_divisible`` of tensorflow/models, slim/nets/mobilenet.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def check_int(owner: str, name: str, value: object, low: int, high: int) -> None:
    """Pass where ``value`` is an integer from ``low`` to ``high``, else raise ArchitectureError, as the next ones."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be an integer from {low} to {high}")


def check_choice(owner: str, name: str, value: object, choices: tuple[Any, ...]) -> None:
    """Pass where ``value`` is one of ``choices``."""
    if value not in choices:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def check_kernel(owner: str, value: int) -> None:
    """Pass where ``value`` is an odd kernel size."""
    check_int(owner, "kernel_size", value, 1, 31)
    if value % 2 == 0:
        raise ArchitectureError(f"{owner}.kernel_size is {value}; it must be odd")


def check_number(owner: str, name: str, value: object, low: float, high: float) -> None:
    """Pass where ``value`` is a number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be a number from {low:g} to {high:g}")


def check_bool(owner: str, name: str, value: object) -> None:
    """Pass where ``value`` is true or false."""
    if value is not True and value is not False:
        raise ArchitectureError(f"{owner}.{name} is {value!r}; it must be true or false")


def check_part(owner: str, name: str, value: object, kind: type) -> None:
    """Pass where ``value`` is an object of class ``kind``."""
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
        check_int("SqueezeExciteSpec", "squeeze_channels", self.squeeze_channels, 1, MAX_CHANNELS)
        check_choice("SqueezeExciteSpec", "activation", self.activation, get_args(Activation))
        check_choice("SqueezeExciteSpec", "gate", self.gate, get_args(Gate))
        check_choice("SqueezeExciteSpec", "position", self.position, ("depthwise", "projection"))
        check_choice("SqueezeExciteSpec", "relative_to", self.relative_to, ("input", "expanded", "output"))
        check_bool("SqueezeExciteSpec", "use_norm", self.use_norm)
        check_bool("SqueezeExciteSpec", "use_bias", self.use_bias)
        check_number("SqueezeExciteSpec", "ratio", self.ratio, 1e-6, 64)
        check_int("SqueezeExciteSpec", "divisor", self.divisor, 1, 256)

    def following(self, in_channels: int, expanded_channels: int, out_channels: int) -> SqueezeExciteSpec:
        """This squeeze-excite for a block of other widths."""
        base = {"input": in_channels, "expanded": expanded_channels, "output": out_channels}[self.relative_to]
        width = base * self.ratio
        squeeze = max(1, int(width)) if self.divisor == 1 else make_divisible(width, self.divisor)
        return self if squeeze == self.squeeze_channels else replace(self, squeeze_channels=squeeze)


ChoiceValue = int | float | bool | str


@dataclass(frozen=True, slots=True)
class ChoiceRule:
    """One thing that a space lets be chosen of a block.

    Attributes:
        schema: the JSON schema of one value; its ``description`` says what is valid.
        noun: what several values are called: ``kernel sizes``.
        label: what stands before the value in the name of a whole choice; of a flag, what stands for true.
        default: where a space says nothing of it; None where every space has to.
    """

    schema: Mapping[str, Any]
    noun: str
    label: str = ""
    default: ChoiceValue | None = None


@dataclass(frozen=True, slots=True)
class BlockPosition:
    """Where a block of a space stands, and the rules of the space for all its blocks.

    Attributes:
        in_channels, out_channels, stride: of the block.
        expansion_divisor: expanded channels are rounded to its multiples.
        squeeze_excite: the rule; its ``squeeze_channels`` follow the block's widths.
    """

    in_channels: int
    out_channels: int
    stride: int
    expansion_divisor: int
    squeeze_excite: SqueezeExciteSpec


LayerRow = tuple[str, LayerKind, int, int, int, int, int, int, int, bool, bool, str, int, int]
"""A :class:`mnv3search.layers.Layer` without its live elements, as a plain tuple in the order of its fields: made in a
fifth of the time, and a search prices thousands of new blocks."""


class LayerBuilder:
    """Takes the layers of a stem, block or head, one call each, in the order in which they run.

    A call returns the number of the tensor that its layer makes; :attr:`entered` is the number of the input. The last
    layer makes the output. A layer may read any earlier tensor.

    Args:
        in_channels, in_size: of the square map that enters.
        conv_bias: whether convolutions have a bias as well as their norm.
        classes: number of logits; 0 but for a head.
    """

    __slots__ = ("_bias", "_shapes", "classes", "entered", "in_channels", "rows")

    def __init__(self, in_channels: int, in_size: int, conv_bias: bool, classes: int) -> None:
        self.entered, self.in_channels, self.classes, self._bias = 0, in_channels, classes, conv_bias
        self.rows: list[LayerRow] = []
        self._shapes = [(in_channels, in_size)]  # of tensors, by their numbers

    def conv(
        self, name: str, source: int, out_channels: int, kernel_size: int = 1, stride: int = 1,
        activation: str = "", kind: LayerKind = "convolution",
    ) -> int:  # fmt: skip
        """A full convolution with its norm and, where given, activation."""
        channels, size = self._shapes[source]
        out = -(-size // stride)
        self.rows.append((name, kind, channels, out_channels, kernel_size, stride, 1, size, out, self._bias, True,
                          activation, source, -1))  # fmt: skip
        self._shapes.append((out_channels, out))
        return len(self.rows)

    def depthwise(
        self, name: str, source: int, kernel_size: int, stride: int = 1, activation: str = "",
        out_channels: int | None = None,
    ) -> int:  # fmt: skip
        """A depthwise convolution with its norm; ``out_channels`` may be a multiple of the source's."""
        channels, size = self._shapes[source]
        out, out_channels = -(-size // stride), out_channels or channels
        self.rows.append((name, "depthwise", channels, out_channels, kernel_size, stride, channels, size, out,
                          self._bias, True, activation, source, -1))  # fmt: skip
        self._shapes.append((out_channels, out))
        return len(self.rows)

    def squeeze_excite(self, source: int, spec: SqueezeExciteSpec) -> int:
        """Pool, two convolutions and the scaling of ``source`` by their gate; one in a block."""
        channels, size = self._shapes[source]
        squeeze, bias, norm, pooled = spec.squeeze_channels, spec.use_bias, spec.use_norm, len(self.rows) + 1
        self.rows += [
            ("squeeze_excite.pool", "squeeze_pool", channels, channels, 0, 1, 1, size, 1, False, False, "", source, -1),
            ("squeeze_excite.reduce", "squeeze_reduce", channels, squeeze, 1, 1, 1, 1, 1, bias, norm, spec.activation,
             pooled, -1),
            ("squeeze_excite.expand", "squeeze_expand", squeeze, channels, 1, 1, 1, 1, 1, bias, norm, spec.gate,
             pooled + 1, -1),
            ("squeeze_excite.scale", "scale", channels, channels, 0, 1, 1, size, size, False, False, "", source,
             pooled + 2),
        ]  # fmt: skip
        self._shapes += ((channels, 1), (squeeze, 1), (channels, 1), (channels, size))
        return len(self.rows)

    def add(self, source: int, other: int) -> int:
        """The sum of two tensors of one shape."""
        channels, size = self._shapes[source]
        self.rows.append(("add", "add", channels, channels, 0, 1, 1, size, size, False, False, "", source, other))
        self._shapes.append((channels, size))
        return len(self.rows)

    def pool(self, source: int) -> int:
        """The global average pool; linear layers alone may follow."""
        channels, size = self._shapes[source]
        self.rows.append(("pool", "pool", channels, channels, 0, 1, 1, size, 1, False, False, "", source, -1))
        self._shapes.append((channels, 1))
        return len(self.rows)

    def linear(
        self, name: LayerKind, source: int, out_channels: int, activation: str = "", *, bias: bool = True,
        norm: bool = False,
    ) -> int:  # fmt: skip
        """A linear layer."""
        channels, _ = self._shapes[source]
        self.rows.append((name, name, channels, out_channels, 1, 1, 1, 1, 1, bias, norm, activation, source, -1))
        self._shapes.append((out_channels, 1))
        return len(self.rows)


class Block(Protocol):
    """A block of any kind: a frozen dataclass of plain fields, in :data:`BLOCK_KINDS` by its ``kind``.

    Its fields are its JSON, a ``squeeze_excite`` among them may be a :class:`SqueezeExciteSpec`; ``__post_init__``
    raises ArchitectureError for values that break a rule. ``str(block)`` is its short text.

    Attributes:
        kind: its name in JSON and spaces.
        choices: what a space may list for a block of this kind, by name.
        settings: the JSON schemas of what a space may set for all blocks of a stage, by name.
        expanded_channels: the width inside that can be chosen apart from its input and output; a kind without one has
            ``out_channels`` here, and ignores what it is given.
    """

    kind: ClassVar[str]
    choices: ClassVar[Mapping[str, ChoiceRule]]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]]

    @classmethod
    def from_choices(cls, values: Mapping[str, Any], position: BlockPosition) -> Self:
        """The block of one value for each of ``choices`` and of the ``settings`` that the space gives.

        Raises ArchitectureError where there is no such block at this position.
        """
        ...

    @property
    def stride(self) -> int: ...  # noqa: D102

    @property
    def expanded_channels(self) -> int: ...  # noqa: D102

    @property
    def out_channels(self) -> int: ...  # noqa: D102

    def check_input(self, in_channels: int) -> None:
        """Pass where the block can follow ``in_channels`` channels; raise ArchitectureError elsewhere."""
        ...

    def add_layers(self, layers: LayerBuilder) -> None:
        """Its layers, in order."""
        ...

    def resized(self, in_channels: int, expanded_channels: int, out_channels: int) -> Self:
        """The same block at other widths, as a width multiplier makes it; a squeeze-excite follows."""
        ...

    def narrowed(self, in_channels: int, new_in_channels: int, expanded_channels: int, out_channels: int) -> Self:
        """The same block at other widths with exactly the layers that it has behind ``in_channels`` channels.

        An addition must not appear where two widths come to agree, nor an expansion vanish: NetAdapt narrows layers
        and removes none.
        """
        ...


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

    kind: ClassVar[str] = "inverted_residual"
    choices: ClassVar[Mapping[str, ChoiceRule]] = {
        "kernel_size": ChoiceRule(
            {
                "description": "an odd number from 1 to 31; e.g. 3, 5, 7",
                "type": "integer", "minimum": 1, "maximum": 31, "not": {"multipleOf": 2},
            },
            "kernel sizes", "k",
        ),
        "expansion_ratio": ChoiceRule(
            {
                "description": "a number from 0.1 to 64; e.g. 3, 4, 6",
                "type": "number", "minimum": 0.1, "maximum": 64,
            },
            "expansion ratios", "e",
        ),
        "squeeze_excite": ChoiceRule(
            {"description": "true (with squeeze-excite) or false (without)", "type": "boolean"},
            "values of squeeze-excite, true and false", "se", default=False,
        ),
        "activation": ChoiceRule(
            {
                "description": f"one of {', '.join(get_args(Activation))}",
                "type": "string", "enum": list(get_args(Activation)),
            },
            "activations", default="relu",
        ),
    }  # fmt: skip
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "expansion": {
            "description": "where_needed (an expansion convolution where it changes the width) or always",
            "type": "string", "enum": ["where_needed", "always"],
        },
        "shortcut": {
            "description": "identity, projected or none", "type": "string", "enum": list(get_args(Shortcut)),
        },
    }  # fmt: skip
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
        check_kernel("BlockSpec", self.kernel_size)
        check_int("BlockSpec", "expanded_channels", self.expanded_channels, 1, MAX_CHANNELS)
        check_int("BlockSpec", "out_channels", self.out_channels, 1, MAX_CHANNELS)
        check_int("BlockSpec", "stride", self.stride, 1, 4)
        check_choice("BlockSpec", "activation", self.activation, get_args(Activation))
        check_choice("BlockSpec", "expansion", self.expansion, get_args(Expansion))
        check_choice("BlockSpec", "shortcut", self.shortcut, get_args(Shortcut))
        check_bool("BlockSpec", "linear_bottleneck", self.linear_bottleneck)
        if self.squeeze_excite is not None:
            check_part("BlockSpec", "squeeze_excite", self.squeeze_excite, SqueezeExciteSpec)

    @classmethod
    def from_choices(cls, values: Mapping[str, Any], position: BlockPosition) -> BlockSpec:
        """As :meth:`Block.from_choices`; a ratio of 1 keeps the input's own channels."""
        channels, out, ratio = position.in_channels, position.out_channels, values["expansion_ratio"]
        expanded = channels if ratio == 1 else make_divisible(channels * ratio, position.expansion_divisor)
        se = position.squeeze_excite.following(channels, expanded, out) if values["squeeze_excite"] else None
        return cls(
            values["kernel_size"], expanded, out, position.stride, values["activation"], se,
            values.get("expansion", "where_needed"), shortcut=values.get("shortcut", "identity"),
        )  # fmt: skip

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
        following = se.following(in_channels, expanded_channels, out_channels) if se else None
        return replace(self, expanded_channels=expanded_channels, out_channels=out_channels, squeeze_excite=following)

    def narrowed(self, in_channels: int, new_in_channels: int, expanded_channels: int, out_channels: int) -> BlockSpec:
        """As :meth:`Block.narrowed`; without an expansion the depthwise convolution keeps its outputs per input."""
        if not self.has_expansion(in_channels):
            expanded_channels = new_in_channels * (self.expanded_channels // in_channels)
        narrowed = self.resized(new_in_channels, expanded_channels, out_channels)
        if self.has_expansion(in_channels) and not narrowed.has_expansion(new_in_channels):
            narrowed = replace(narrowed, expansion="always")
        if not self.has_residual(in_channels) and narrowed.has_residual(new_in_channels):
            narrowed = replace(narrowed, shortcut="none")
        return narrowed

    def check_input(self, in_channels: int) -> None:
        """As :meth:`Block.check_input`."""
        if self.expansion == "depthwise" and self.expanded_channels % in_channels:
            raise ArchitectureError(
                f"multiplies {in_channels} channels to {self.expanded_channels} in its depthwise "
                "convolution; the second must be a multiple of the first"
            )

    def add_layers(self, layers: LayerBuilder) -> None:
        """Expansion, depthwise convolution, projection, shortcut; squeeze-excite by its position."""
        channels, x, se = layers.in_channels, layers.entered, self.squeeze_excite
        if self.has_expansion(channels):
            x = layers.conv("expansion", x, self.expanded_channels, 1, 1, self.activation, "expansion")
        x = layers.depthwise("depthwise", x, self.kernel_size, self.stride, self.activation, self.expanded_channels)
        if se is not None and se.position == "depthwise":
            x = layers.squeeze_excite(x, se)
        activation = "" if self.linear_bottleneck else self.activation
        x = layers.conv("projection", x, self.out_channels, 1, 1, activation, "projection")
        if se is not None and se.position == "projection":
            x = layers.squeeze_excite(x, se)
        if self.has_residual(channels):
            side = layers.entered
            if channels != self.out_channels:
                side = layers.conv("shortcut", side, self.out_channels, kind="shortcut")
            layers.add(x, side)

    def __str__(self) -> str:
        """Such as ``k3e64c24s2+~``; ``+`` marks SE, ``~`` h-swish."""
        stride = f"s{self.stride}" if self.stride > 1 else ""
        marks = ("+" if self.squeeze_excite else "") + ACTIVATION_MARKS[self.activation]
        return f"k{self.kernel_size}e{self.expanded_channels}c{self.out_channels}{stride}{marks}"


BLOCK_KINDS: dict[str, type[Block]] = {BlockSpec.kind: BlockSpec}
