"""The prior's features of an architecture: smooth structural numbers, summed over the blocks of each stage.

A stage is a level (how often the input has been halved); the two deepest levels have two each: the second begins where
the width changes, and how much of a block counts to it grows smoothly with the change. No feature jumps when a channel
count changes by a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, HeadSpec, StemSpec, check_architecture, out_size
from mnv3search.blocks import BlockSpec
from mnv3search.cost import unit_cost
from mnv3search.errors import EvaluatorError
from mnv3search.layers import Unit

FloatArray = NDArray[np.float64]

STAGES = ("/2", "/4", "/8", "/16a", "/16b", "/32a", "/32b")
_REFERENCE_WIDTHS = np.log2([16.0, 24.0, 40.0, 80.0, 112.0, 160.0, 320.0])
_STAGE_OF_LEVEL = (0, 0, 1, 2, 3, 5)
_NEW_STAGE_LOG_WIDTH = 0.2
_RESOLUTION = 224
_MAX_ROWS = 1 << 17
_SUMS = ("blocks", "entry_ratio", "ratio", "late_ratio", "entry_kernel", "kernel", "late_kernel", "entry_se", "se",
         "width", "swish", "madds", "parameters", "separable", "residual")  # fmt: skip
_KINDS = ("blocks", "entry_ratio", "ratio", "late_ratio", "entry_kernel", "kernel", "late_kernel", "entry_se", "se",
          "width", "log_madds", "log_parameters")  # fmt: skip
_GLOBALS = ("log_madds", "log_parameters", "resolution", "stem_width", "feature_width", "hidden", "swish_early",
            "swish_middle", "swish_late", "swish_ends", "separable", "residual", "depth",
            "inverse_resolution", "inverse_root_madds", "inverse_root_both", "inverse_root_parameters")  # fmt: skip
FEATURE_NAMES = tuple(f"{kind}{stage}" for kind in _KINDS for stage in STAGES) + _GLOBALS
KIND_OF_FEATURE = tuple(kind for kind in _KINDS for _ in STAGES) + tuple(f"net_{name}" for name in _GLOBALS)


def _is_swish(activation: str) -> float:
    return 1.0 if activation in {"hard_swish", "swish"} else 0.0


def _block_numbers(unit: Unit, resolution: int) -> tuple[float, ...]:
    """First stage of the block's level, how much the block begins the second, entry, then the sums from "ratio" on."""
    spec = unit.spec
    assert isinstance(spec, BlockSpec)
    level = min(max(round(math.log2(resolution / out_size(unit.in_size, spec.stride))), 0), len(_STAGE_OF_LEVEL) - 1)
    change = math.log(spec.out_channels / unit.in_channels) / _NEW_STAGE_LOG_WIDTH
    new_stage = 1.0 - math.exp(-change * change)
    cost = unit_cost(unit)
    return (
        float(_STAGE_OF_LEVEL[level]),
        0.0 if spec.stride > 1 else new_stage,
        1.0 if spec.stride > 1 else new_stage,
        math.log2(spec.expanded_channels / unit.in_channels + 0.5),
        math.log2(spec.kernel_size / 3),
        1.0 if spec.squeeze_excite else 0.0,
        math.log2(spec.out_channels),
        _is_swish(spec.activation),
        cost.madds / 1e6 * (_RESOLUTION / resolution) ** 2,
        cost.parameters / 1e4,
        0.0 if spec.linear_bottleneck else 1.0,
        1.0 if spec.shortcut != "none" else 0.0,
    )


@lru_cache(maxsize=1 << 12)
def _end_numbers(stem: Unit, head: Unit) -> tuple[float, ...]:
    """Of stem and head: M MAdds at 224 px, 10,000 parameters, four globals from "resolution" on, "swish_ends"."""
    stem_spec, head_spec = stem.spec, head.spec
    assert isinstance(stem_spec, StemSpec)
    assert isinstance(head_spec, HeadSpec)
    stem_cost, head_cost = unit_cost(stem), unit_cost(head)
    hidden = head_spec.hidden_channels
    last = hidden or head_spec.feature_channels or head.in_channels
    return (
        (stem_cost.madds + head_cost.madds) / 1e6 * (_RESOLUTION / stem.in_size) ** 2,
        (stem_cost.parameters + head_cost.parameters) / 1e4,
        math.log2(stem.in_size / _RESOLUTION),
        math.log2(stem_spec.out_channels / 32),
        math.log2(last / 1280),
        1.0 if hidden else 0.0,
        0.5 * (_is_swish(stem_spec.activation) + _is_swish(head_spec.activation)),
    )


class _BlockTable:
    """Numbers of every block met so far, one row each; a row is found by a key of plain values, which hash fast."""

    def __init__(self) -> None:
        self._index: dict[tuple[object, ...], int] = {}
        self._rows: list[tuple[float, ...]] = []
        self._array: FloatArray = np.empty((0, 0))

    def index(self, architecture: Architecture) -> tuple[list[int], int]:
        """Rows of the architecture's blocks, in order; and the side of the last one's output."""
        index, found = self._index, []
        resolution, bias = architecture.resolution, architecture.conv_bias
        channels, size = architecture.stem.out_channels, out_size(resolution, architecture.stem.stride)
        for b in architecture.blocks:
            if b.kind != BlockSpec.kind:
                raise EvaluatorError(
                    f"the prior was fitted to inverted residuals and knows no {b.kind} ({b}); take --evaluator proxy "
                    "or zero_cost:NAME"
                )
            se = b.squeeze_excite
            key = (
                channels, size, resolution, bias, b.kernel_size, b.expanded_channels, b.out_channels, b.stride,
                b.activation, b.expansion, b.linear_bottleneck, b.shortcut,
                None if se is None else (se.squeeze_channels, se.position, se.use_norm, se.use_bias),
            )  # fmt: skip
            row = index.get(key)
            if row is None:
                row = len(self._rows)
                self._rows.append(_block_numbers(Unit(b, channels, size, architecture.padding, bias), resolution))
                index[key] = row
            found.append(row)
            channels = b.out_channels
            if b.stride > 1:
                size = out_size(size, b.stride)
        return found, size

    def gather(self, index: list[int]) -> FloatArray:
        """The numbers of the rows, shape (12, len(index))."""
        if self._array.shape[1] != len(self._rows):
            self._array = np.ascontiguousarray(np.array(self._rows).T)
        return np.take(self._array, np.array(index, dtype=np.intp), axis=1)

    def trim(self) -> None:
        """Forget everything once there is too much of it."""
        if len(self._rows) > _MAX_ROWS:
            self._index.clear()
            self._rows.clear()
            self._array = np.empty((0, 0))


_TABLE = _BlockTable()
_TABLE_LOCK = Lock()


def _restarting_cumsum(values: FloatArray, restart: NDArray[np.bool_]) -> FloatArray:
    """Cumulative sum that begins again, at 0, where ``restart``; ``values`` are not negative, and 0 there."""
    total = np.cumsum(values)
    base = np.where(restart, total, -1.0)
    return np.asarray(total - np.maximum.accumulate(base), dtype=np.float64)


def _stage_sums(rows: FloatArray, starts: NDArray[np.intp]) -> FloatArray:
    """Sums over the blocks of each stage; ``rows`` (12, blocks); shape (len(_SUMS), networks, stages)."""
    level = rows[0].astype(np.intp)
    first = np.zeros(len(level), dtype=bool)
    first[starts] = True
    new_level = first.copy()
    new_level[1:] |= level[1:] != level[:-1]
    new_stage = np.where(new_level, 0.0, rows[1])
    share_of_second = np.minimum(_restarting_cumsum(new_stage, new_level), 1.0)
    entry = np.where(first, 1.0, rows[2])
    rest = 1.0 - entry
    so_far = _restarting_cumsum(np.where(new_level, 0.0, rest), new_level)
    late = rest * np.maximum(so_far - _restarting_cumsum(new_stage * so_far, new_level), 0.0)
    ratio, kernel, se = rows[3:6]
    values = np.stack(
        [np.ones(len(level)), entry * ratio, rest * ratio, late * ratio, entry * kernel, rest * kernel, late * kernel,
         entry * se, rest * se, *rows[6:]]
    )  # fmt: skip
    run = np.flatnonzero(new_level)  # a level's blocks stand together
    network, stage = np.cumsum(first)[run] - 1, level[run]
    total = np.add.reduceat(values, run, axis=1)
    values *= share_of_second
    in_second = np.add.reduceat(values, run, axis=1)
    sums = np.zeros((len(values), len(starts), len(STAGES)))
    divided = stage >= STAGES.index("/16a")
    sums[:, network, stage] = total - np.where(divided, in_second, 0.0)
    sums[:, network[divided], stage[divided] + 1] = in_second[:, divided]
    return sums


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.asarray(part / np.maximum(whole, 1e-3), dtype=np.float64)


def features(architectures: Sequence[Architecture]) -> FloatArray:
    """The structural features, shape (n, len(FEATURE_NAMES)); logarithms are to base 2."""
    index: list[int] = []
    starts, ends = [], []
    with _TABLE_LOCK:
        _TABLE.trim()
        for architecture in architectures:
            check_architecture(architecture)
            starts.append(len(index))
            found, size = _TABLE.index(architecture)
            index += found
            # counts do not depend on the padding
            stem = Unit(architecture.stem, 3, architecture.resolution, "symmetric", architecture.conv_bias)
            last = architecture.blocks[-1].out_channels
            head = Unit(architecture.head, last, size, "symmetric", architecture.conv_bias, architecture.classes)
            ends.append(_end_numbers(stem, head))
        rows = _TABLE.gather(index)
    end = np.array(ends).T
    column = dict(zip(_SUMS, _stage_sums(rows, np.array(starts, dtype=np.intp)), strict=True))
    blocks = column["blocks"]
    occupied = np.minimum(blocks, 1.0)
    by_stage = [column[kind] for kind in _KINDS[:9]]
    by_stage.append((_share(column["width"], blocks) - _REFERENCE_WIDTHS) * occupied)
    by_stage.append(np.log2(column["madds"] + 2.0) - np.log2(20.0))
    by_stage.append(np.log2(column["parameters"] + 0.5) - np.log2(10.0))
    depth = blocks.sum(axis=1)
    swish = column["swish"]
    zones = [_share(swish[:, z].sum(axis=1), blocks[:, z].sum(axis=1)) for z in (slice(0, 3), slice(3, 4), slice(4, 7))]
    madds, parameters = column["madds"].sum(axis=1) + end[0], column["parameters"].sum(axis=1) + end[1]
    coarse, starved = 2.0 ** -end[2], np.sqrt(220 / madds)
    whole = [np.log2(madds / 220), np.log2(parameters / 400), *end[2:6], *zones, end[6],
             _share(column["separable"].sum(axis=1), depth), _share(column["residual"].sum(axis=1), depth),
             np.log2(depth / 16), coarse - 1.0, starved - 1.0, coarse * starved - 1.0,
             np.sqrt(400 / parameters) - 1.0]  # fmt: skip
    return np.concatenate([*by_stage, np.stack(whole, axis=1)], axis=1)
