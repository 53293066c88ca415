"""A space as values: a skeleton whose stages hold choices in place of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from mnv3search.architecture import Architecture, HeadSpec, Padding, StemSpec
from mnv3search.blocks import BLOCK_KINDS, Block, BlockPosition, ChoiceValue, SqueezeExciteSpec
from mnv3search.errors import ArchitectureError

SKIP = "skip"
PAPER_SQUEEZE_EXCITE = SqueezeExciteSpec(8)
Option = tuple[tuple[str, ChoiceValue], ...]
"""One whole choice for a block: a value for each of the names in its kind's ``choices``."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that a search may choose, with its values in the file's order."""

    name: str  # stage2.depth, stage2.block1.kernel_size, stage3.expansion_ratio …; stages and blocks from 1
    choices: tuple[ChoiceValue, ...]


@dataclass(frozen=True, slots=True)
class BlockChoices:
    """What may be chosen for a block: independent lists, or a list of whole options."""

    kind: str  # in BLOCK_KINDS
    lists: tuple[tuple[str, tuple[ChoiceValue, ...]], ...] = ()  # names and values, in the order of the kind's choices
    options: tuple[tuple[str, Option | None], ...] = ()  # labels and options; None leaves the block out
    settings: Option = ()  # what is the same for every choice

    @property
    def can_skip(self) -> bool:
        """Whether leaving the block out is among the options."""
        return any(option is None for _, option in self.options)

    def axes(self, *, skippable: bool) -> tuple[tuple[str, tuple[ChoiceValue, ...]], ...]:
        """The independent axes, each a name and its values, the slowest first."""
        names = tuple(name for name, option in self.options if skippable or option is not None)
        return (("option", names),) if self.options else self.lists

    def combinations(self, *, skippable: bool) -> tuple[Option | None, ...]:
        """Every whole choice, in the row-major order of :meth:`axes`; None where the block is left out."""
        if self.options:
            return tuple(option for _, option in self.options if skippable or option is not None)
        names = [name for name, _ in self.lists]
        return tuple(tuple(zip(names, values, strict=True)) for values in product(*(v for _, v in self.lists)))

    def combination_count(self) -> int:
        """How many whole choices there are, known without building them."""
        return len(self.options) or math.prod(len(values) for _, values in self.lists)


def option_label(kind: type[Block], option: Option) -> str:
    """The name of a whole choice: ``k5_e3_se_relu``."""
    parts = []
    for name, value in option:
        label = kind.choices[name].label
        if isinstance(value, bool):
            parts += [label or name] if value else []
        else:
            parts.append(f"{label}{value}" if isinstance(value, str) else f"{label}{value:g}")
    return "_".join(parts)


@dataclass(frozen=True, slots=True)
class StageChoices:
    """A run of blocks of one width, the first of them with the stride."""

    out_channels: tuple[int, ...]
    depth: tuple[int, ...]
    stride: int
    block: BlockChoices
    per_stage: bool = False  # all blocks of the stage share one choice

    def first_skippable(self, widths_in: tuple[int, ...]) -> bool:
        """Whether the first block may be left out: stride 1, and one width only, which is the input's too."""
        return self.stride == 1 and len(self.out_channels) == 1 and widths_in == self.out_channels


@dataclass(frozen=True, slots=True)
class Skeleton:
    """All of a space but its names and defaults: what is the same in every network, and the stages."""

    stem: StemSpec
    stages: tuple[StageChoices, ...]
    head: HeadSpec
    resolution: int = 224
    classes: int = 1000
    padding: Padding = "symmetric"
    conv_bias: bool = False
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    squeeze_excite: SqueezeExciteSpec = PAPER_SQUEEZE_EXCITE  # the squeeze_channels follow each block's widths
    # expanded channels are make_divisible(in_channels * expansion_ratio, expansion_divisor), the input's at ratio 1
    expansion_divisor: int = 8

    def widths_in(self, stage: int) -> tuple[int, ...]:
        """The widths that may enter a stage."""
        return self.stages[stage - 1].out_channels if stage else (self.stem.out_channels,)

    def architecture(self, blocks: tuple[Block, ...]) -> Architecture:
        """The architecture with these blocks."""
        return Architecture(
            self.stem, blocks, self.head, self.resolution, self.classes, self.padding, self.conv_bias, self.norm_eps,
            self.norm_momentum,
        )  # fmt: skip

    def block(self, choices: BlockChoices, option: Option, in_channels: int, out: int, stride: int) -> Block:
        """The block that an option means at its position; an ArchitectureError where there is none."""
        position = BlockPosition(in_channels, out, stride, self.expansion_divisor, self.squeeze_excite)
        block = BLOCK_KINDS[choices.kind].from_choices({**dict(choices.settings), **dict(option)}, position)
        try:
            block.check_input(in_channels)
        except ArchitectureError as error:
            raise ArchitectureError(f"the block {block} {error}") from None
        return block
