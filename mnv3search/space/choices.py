"""A space as values: a skeleton whose stages hold choices in place of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from mnv3search.architecture import (
    Activation,
    BlockSpec,
    Expansion,
    HeadSpec,
    Padding,
    Shortcut,
    SqueezeExciteSpec,
    StemSpec,
    make_divisible,
)

Value = int | float | bool | str
SKIP = "skip"
PAPER_SQUEEZE_EXCITE = SqueezeExciteSpec(8)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that a search may choose.

    Attributes:
        name: ``stage2.depth``, ``stage2.block1.kernel_size``, ``stage3.expansion_ratio`` …; stages and blocks from 1.
        choices: the values, in the file's order.
    """

    name: str
    choices: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class BlockOption:
    """One whole choice for a block."""

    kernel_size: int
    expansion_ratio: float
    use_se: bool = False
    activation: Activation = "relu"

    @property
    def label(self) -> str:
        """Its name among options: ``k5_e3_se_relu``."""
        return f"k{self.kernel_size}_e{self.expansion_ratio:g}{'_se' if self.use_se else ''}_{self.activation}"


@dataclass(frozen=True, slots=True)
class BlockChoices:
    """What may be chosen for a block: four independent lists, or a list of whole options.

    Attributes:
        kernel_size, expansion_ratio, squeeze_excite, activation: the lists; not looked at where ``options`` is given.
        options: pairs of a name and an option; None as the option leaves the block out.
        expansion, shortcut: as in :class:`~mnv3search.architecture.BlockSpec`, the same for every choice.
    """

    kernel_size: tuple[int, ...] = (3,)
    expansion_ratio: tuple[float, ...] = (1,)
    squeeze_excite: tuple[bool, ...] = (False,)
    activation: tuple[Activation, ...] = ("relu",)
    options: tuple[tuple[str, BlockOption | None], ...] = ()
    expansion: Expansion = "where_needed"
    shortcut: Shortcut = "identity"

    @property
    def can_skip(self) -> bool:
        """Whether leaving the block out is among the options."""
        return any(option is None for _, option in self.options)

    def axes(self, *, skippable: bool) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        """The independent axes, each a name and its values, the slowest first."""
        if self.options:
            return (("option", tuple(name for name, option in self.options if skippable or option is not None)),)
        return (
            ("kernel_size", self.kernel_size),
            ("expansion_ratio", self.expansion_ratio),
            ("squeeze_excite", self.squeeze_excite),
            ("activation", self.activation),
        )

    def combinations(self, *, skippable: bool) -> tuple[BlockOption | None, ...]:
        """Every whole choice, in the row-major order of :meth:`axes`; None where the block is left out."""
        if self.options:
            return tuple(option for _, option in self.options if skippable or option is not None)
        lists = (self.kernel_size, self.expansion_ratio, self.squeeze_excite, self.activation)
        return tuple(BlockOption(*values) for values in product(*lists))

    def combination_count(self) -> int:
        """How many whole choices there are, known without building them."""
        if self.options:
            return len(self.options)
        lists = (self.kernel_size, self.expansion_ratio, self.squeeze_excite, self.activation)
        return math.prod(len(values) for values in lists)


@dataclass(frozen=True, slots=True)
class StageChoices:
    """A run of blocks of one width, the first of them with the stride.

    Attributes:
        out_channels, depth: the values to choose from.
        stride: of the first block.
        block: the choices of each block.
        per_stage: all blocks of the stage share one choice.
    """

    out_channels: tuple[int, ...]
    depth: tuple[int, ...]
    stride: int
    block: BlockChoices
    per_stage: bool = False

    def first_skippable(self, widths_in: tuple[int, ...]) -> bool:
        """Whether the first block may be left out: stride 1, and one width only, which is the input's too."""
        return self.stride == 1 and len(self.out_channels) == 1 and widths_in == self.out_channels


@dataclass(frozen=True, slots=True)
class Skeleton:
    """All of a space but its names and defaults: what holds for every network, and the stages.

    Attributes:
        squeeze_excite: the rule; its ``squeeze_channels`` follow each block's widths.
        expansion_divisor: expanded channels are ``make_divisible(in_channels * expansion_ratio, expansion_divisor)``,
            or the input's own at ratio 1.
    """

    stem: StemSpec
    stages: tuple[StageChoices, ...]
    head: HeadSpec
    resolution: int = 224
    classes: int = 1000
    padding: Padding = "symmetric"
    conv_bias: bool = False
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    squeeze_excite: SqueezeExciteSpec = PAPER_SQUEEZE_EXCITE
    expansion_divisor: int = 8

    def widths_in(self, stage: int) -> tuple[int, ...]:
        """The widths that may enter a stage."""
        return self.stages[stage - 1].out_channels if stage else (self.stem.out_channels,)

    def block(self, choices: BlockChoices, option: BlockOption, in_channels: int, out: int, stride: int) -> BlockSpec:
        """The block that an option stands for at its place."""
        ratio = option.expansion_ratio
        expanded = in_channels if ratio == 1 else make_divisible(in_channels * ratio, self.expansion_divisor)
        se = self.squeeze_excite.following(in_channels, expanded, out) if option.use_se else None
        return BlockSpec(
            option.kernel_size, expanded, out, stride, option.activation, se, choices.expansion,
            shortcut=choices.shortcut,
        )  # fmt: skip
