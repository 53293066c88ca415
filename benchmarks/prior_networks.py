"""Published networks beside the papers' own: what they are, and their top-1 by ordinary recipes.

Their definitions are facts of their papers (arXiv:1905.11946, 2010.14819, 2109.15099, 2102.11646, 1812.03443,
1904.02877; EfficientNet-Lite of tensorflow/tpu), counted here exactly as published; their figures are those of
``published_networks.csv``, the mean over recipes without other data, distillation or a schedule of thousands of epochs.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import Activation, BlockSpec, SqueezeExciteSpec
from mnv3search.families import parse_network
from mnv3search.families.rows import inverted_residuals
from mnv3search.families.scaling import scale_width

FIGURES_FILE = "published_networks.csv"
RECIPES = ("in1k", "aa_in1k", "ra_in1k", "ra2_in1k", "rmsp_in1k", "lamb_in1k", "ft_in1k", "miil_green_in1k")
_COMPOUND = {"b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4)}
_TINY = {"a": (1.0, 1.2), "b": (0.75, 1.1), "c": (0.54, 0.85), "d": (0.54, 0.695), "e": (0.51, 0.6)}
_LITE = {"1": (1.0, 1.1), "2": (1.1, 1.2), "3": (1.2, 1.4)}
_LC_ROWS = ((3, 1, 32), (3, 2, 64), (3, 1, 64), (3, 2, 128), (3, 1, 128), (3, 2, 256), *((5, 1, 256),) * 5,
            (5, 2, 512), (5, 1, 512))  # fmt: skip
_HARDCORE_WIDTHS = (24, 40, 80, 112, 192)
_HARDCORE = {  # kernel and expansion ratio of every block, + for squeeze-excite; stages apart
    "a": "53 53+|53 56+|56+ 56+|56+ 56+|56+ 56+",
    "b": "53 53+ 33|53 53 53|53 53 33 33|53 33 33 33|56+ 56+ 33+",
    "c": "53 53+|53 53 53 53|54 56+ 33 33|56+ 33 33 33|56+ 56+ 33+",
    "d": "53+ 53+|53+ 54+ 33+|54+ 33+ 33+ 33+|34+ 54+ 33+ 53+|56+ 56+ 56+ 36+",
    "e": "53+ 53+|56+ 54+ 54+ 33+|54+ 36+|56+ 56+ 56+ 53+|56+ 56+ 56+ 36+",
    "f": "53+ 53+|56+ 56+|56+ 56+ 33+ 33+|36+ 56+ 56+ 33+|56+ 56+ 36+ 36+",
}


@dataclass(frozen=True, slots=True)
class OtherNetwork:
    """A network with its family, its top-1 in percent and, in millions, the parameters that its source states."""

    name: str
    family: str
    architecture: Architecture
    top1: float
    parameters_m: float


def deepened(base: Architecture, width: float, depth: float, *, up: bool = True, ends: bool = True) -> Architecture:
    """Width and depth multipliers as EfficientNet compounds them; ``ends``: the first and last stage too."""
    stages = [list(stage) for _, stage in groupby(base.blocks, lambda b: b.out_channels)]
    blocks: list[BlockSpec] = []
    channels = base.stem.out_channels
    for index, stage in enumerate(stages):
        wanted = len(stage) * depth
        number = max(math.ceil(wanted - 1e-9) if up else round(wanted), 1)
        number = len(stage) if not ends and index in (0, len(stages) - 1) else number
        first, out = stage[0], stage[0].out_channels
        more = replace(first, stride=1).resized(out, first.expanded_channels // channels * out, out)
        blocks += [first, *[more] * (number - 1)]
        channels = out
    return scale_width(replace(base, blocks=tuple(blocks)), width)


def _compound(base: str, width: float, depth: float, *, fixed_stem: bool, **how: bool) -> Architecture:
    plain = parse_network(base)
    network = deepened(plain, width, depth, **how)
    if not fixed_stem:
        return network
    first = network.blocks[0].resized(32, 32, network.blocks[0].out_channels)
    return replace(network, stem=plain.stem, blocks=(first, *network.blocks[1:]), head=plain.head)


def _lcnet(width: float) -> Architecture:
    blocks, channels = [], 16
    for index, (kernel, stride, out) in enumerate(_LC_ROWS):
        se = SqueezeExciteSpec(channels // 4, relative_to="input") if index >= len(_LC_ROWS) - 2 else None
        blocks.append(
            BlockSpec(
                kernel, channels, out, stride, "hard_swish", se, "depthwise", linear_bottleneck=False, shortcut="none"
            )
        )
        channels = out
    return scale_width(Architecture(StemSpec(16), tuple(blocks), HeadSpec(None, 1280)), width)


def _hardcore(text: str) -> Architecture:
    channels, rows = 16, [(3, 32, 16, False, "relu", 1)]
    for index, stage in enumerate(text.split("|")):
        activation: Activation = "relu" if index < 2 else "hard_swish"
        for number, block in enumerate(stage.split()):
            stride = 2 if number == 0 and index != 3 else 1
            expanded = channels * int(block[1])
            rows.append((int(block[0]), expanded, _HARDCORE_WIDTHS[index], block.endswith("+"), activation, stride))
            channels = _HARDCORE_WIDTHS[index]
    return Architecture(StemSpec(32), inverted_residuals(rows), HeadSpec(960, 1280))  # type: ignore[arg-type]


def _networks() -> Iterator[tuple[str, str, Architecture]]:
    """(name in the figures' source without its version, family, network)."""
    yield "efficientnet_b0", "efficientnet", parse_network("efficientnet_b0")
    for name, (width, depth) in _COMPOUND.items():
        yield f"efficientnet_{name}", "efficientnet", _compound("efficientnet_b0", width, depth, fixed_stem=False)
    yield "efficientnet_lite0", "efficientnet_lite", parse_network("efficientnet_lite0")
    for name, (width, depth) in _LITE.items():
        lite = _compound("efficientnet_lite0", width, depth, fixed_stem=True, ends=False)
        yield f"efficientnet_lite{name}", "efficientnet_lite", lite
    for name, (width, depth) in _TINY.items():
        yield f"tinynet_{name}", "tinynet", _compound("efficientnet_b0", width, depth, fixed_stem=True, up=False)
    for name, width, depth in (("110d", 1.1, 1.2), ("120d", 1.2, 1.4)):
        deep = _compound("mobilenet_v2", width, depth, fixed_stem=True, ends=False)
        yield f"mobilenetv2_{name}", "mobilenet_v2_deep", deep
    for name, width in (("100", 1.0), ("075", 0.75), ("050", 0.5)):
        yield f"lcnet_{name}", "lcnet", _lcnet(width)
    for name, text in _HARDCORE.items():
        yield f"hardcorenas_{name}", "hardcorenas", _hardcore(text)
    yield "fbnetc_100", "fbnet", parse_network("fbnet_c")
    yield "spnasnet_100", "single_path_nas", parse_network("single_path_nas")
    yield "mnasnet_100", "mnasnet", parse_network("mnasnet_b1")
    yield "semnasnet_075", "mnasnet", parse_network("mnasnet_a1@0.75")


def other_networks(folder: Path) -> list[OtherNetwork]:
    """Every network at every resolution that ``published_networks.csv`` has an ordinary recipe's figure for."""
    printed: dict[tuple[str, int], list[float]] = {}
    parameters: dict[str, float] = {}
    with (folder / FIGURES_FILE).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            name, _, recipe = row["model"].removeprefix("tf_").partition(".")
            if row["source"].startswith("timm") and recipe in RECIPES:
                printed.setdefault((name, int(float(row["resolution"]))), []).append(float(row["top1"]))
                parameters[name] = float(row["params_m"])
    known = {name: (family, network) for name, family, network in _networks()}
    return [
        OtherNetwork(
            f"{name}/{resolution}", known[name][0], known[name][1].with_resolution(resolution), sum(top1) / len(top1),
            parameters[name],
        )
        for (name, resolution), top1 in printed.items() if name in known
    ]  # fmt: skip
