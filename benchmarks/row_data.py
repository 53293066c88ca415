"""Reading the third-party row data: each row of the two accuracy tables as an architecture.

The folder is named by the environment variable ``MNV3SEARCH_DATA``. Nothing of it is shipped.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec, make_divisible

DATA_VARIABLE = "MNV3SEARCH_DATA"
OFA_FILE = "ofa_mbv3_subnets_imagenet.csv"
ANB_FILE = "accel_nasbench_mnasnet_imagenet.csv"

_OFA_STAGES = (  # out channels, stride, squeeze-excite, activation
    (24, 2, False, "relu"), (40, 2, True, "relu"), (80, 2, False, "hard_swish"), (112, 1, True, "hard_swish"),
    (160, 2, True, "hard_swish"),
)  # fmt: skip
_OFA_POSITIONS = 4
_ANB_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_ANB_STRIDES = (1, 2, 2, 2, 1, 2, 1)


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One network of a table: its ImageNet top-1 in percent, and the counts that the table states.

    ``effective`` names the network without what a row says of positions that it does not use.
    """

    architecture: Architecture
    top1: float
    parameters: int
    madds: float
    effective: str


def data_folder() -> Path | None:
    """The folder that ``MNV3SEARCH_DATA`` names, or None where it is unset or missing."""
    named = os.environ.get(DATA_VARIABLE)
    folder = Path(named) if named else None
    return folder if folder is not None and folder.is_dir() else None


def ofa_architecture(kernels: str, ratios: str, depths: str) -> Architecture:
    """The once-for-all MobileNetV3 w1.0 subnet of 20 kernel and 20 ratio digits and 5 depth digits."""
    blocks = [BlockSpec(3, 16, 16)]
    channels = 16
    for stage, (out, stride, use_se, activation) in enumerate(_OFA_STAGES):
        for position in range(int(depths[stage])):
            at = stage * _OFA_POSITIONS + position
            expanded = make_divisible(channels * int(ratios[at]))
            se = SqueezeExciteSpec(make_divisible(expanded / 4)) if use_se else None
            blocks.append(
                BlockSpec(int(kernels[at]), expanded, out, stride if position == 0 else 1, activation, se)  # type: ignore[arg-type]
            )
            channels = out
    return Architecture(StemSpec(16), tuple(blocks), HeadSpec(960, 1280, hidden_bias=False))


def anb_architecture(ratios: str, kernels: str, layers: str, squeeze_excites: str) -> Architecture:
    """The Accel-NASBench MnasNet-space network of 7 digits each."""
    se_rule = SqueezeExciteSpec(1, gate="sigmoid", relative_to="input", divisor=1)
    blocks = []
    channels = 32
    for stage, (out, stride) in enumerate(zip(_ANB_WIDTHS, _ANB_STRIDES, strict=True)):
        for layer in range(int(layers[stage])):
            expanded = channels * int(ratios[stage])
            se = se_rule.following(channels, expanded, out) if squeeze_excites[stage] == "1" else None
            blocks.append(BlockSpec(int(kernels[stage]), expanded, out, stride if layer == 0 else 1, squeeze_excite=se))
            channels = out
    return Architecture(
        StemSpec(32, activation="relu"), tuple(blocks), HeadSpec(1280, activation="relu"), norm_eps=1e-5
    )


def _ofa_row(row: Mapping[str, str]) -> AccuracyRow:
    kernels, ratios, depths = row["ks"], row["e"], row["d"]
    used = [s * _OFA_POSITIONS + p for s, depth in enumerate(depths) for p in range(int(depth))]
    effective = f"{''.join(kernels[i] for i in used)}-{''.join(ratios[i] for i in used)}-{depths}"
    architecture = ofa_architecture(kernels, ratios, depths)
    return AccuracyRow(architecture, float(row["top1_mean"]), int(row["params"]), int(row["macs"]), effective)


def _anb_row(row: Mapping[str, str]) -> AccuracyRow:
    ratios, kernels, layers, squeeze_excites = row["e"], row["k"], row["l"], row["se"]
    architecture = anb_architecture(ratios, kernels, layers, squeeze_excites)
    parameters, madds = round(float(row["params_m"]) * 1e6), float(row["macs_m"]) * 1e6
    effective = f"{ratios}-{kernels}-{layers}-{squeeze_excites}"
    return AccuracyRow(architecture, float(row["val_top1"]), parameters, madds, effective)


def _read(path: Path, convert: Callable[[Mapping[str, str]], AccuracyRow]) -> list[AccuracyRow]:
    with path.open(newline="", encoding="utf-8") as stream:
        return [convert(row) for row in csv.DictReader(stream)]


def ofa_rows(folder: Path) -> list[AccuracyRow]:
    """All once-for-all rows; ``parameters`` and ``madds`` equal the architecture's own counts."""
    return _read(folder / OFA_FILE, _ofa_row)


def anb_rows(folder: Path) -> list[AccuracyRow]:
    """All Accel-NASBench rows; ``parameters`` equal the architecture's; ``madds`` also holds norms and pools."""
    return _read(folder / ANB_FILE, _anb_row)
