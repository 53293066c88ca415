"""The figures that papers and READMEs print for the published networks, each with its source and version.

They are transcribed, not measured: what a network costs is counted in ``cost``, and where a printed count differs from
it by more than its last digit, the row's note says why (or that no reason is known).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

FIGURES_FILE = "published.csv"


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One printed row.

    Attributes:
        network: as ``parse_network`` reads it; empty where the network cannot be built here.
        label: as a table or plot shows it.
        source: paper with its table, README or results file.
        version: the campaign of the figures: ``v1`` (preprint, May 2019), ``v5`` (ICCV version), ``v5-int8``,
            ``v5-unoptimised`` (without the optimised h-swish kernel), ``zoo`` and ``zoo-v1`` (the model zoo's V2 and V1
            tables), ``once-for-all``, ``timm``. Latencies are comparable only within one version.
        top1: ImageNet top-1 in percent.
        madds_m, parameters_m: in millions, as printed.
        pixel1_ms, pixel2_ms, pixel3_ms: TensorFlow Lite, one large core, batch 1, in milliseconds.
        note: what must be known of the figures; above all why one cannot be reproduced.
    """

    network: str
    label: str
    source: str
    version: str
    top1: float | None
    madds_m: float | None
    parameters_m: float | None
    pixel1_ms: float | None
    pixel2_ms: float | None
    pixel3_ms: float | None
    note: str


_NUMBERS = frozenset({"top1", "madds_m", "parameters_m", "pixel1_ms", "pixel2_ms", "pixel3_ms"})


def _number(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{FIGURES_FILE} holds {text!r}; a figure must be a positive number")
    return value


@lru_cache(maxsize=1)
def published_figures() -> tuple[PublishedFigure, ...]:
    """All printed rows, in the order of the file: the V3 paper, the model zoo, once-for-all, timm."""
    text = (files("mnv3search.families") / FIGURES_FILE).read_text(encoding="utf-8")
    values: Iterator[dict[str, Any]] = (
        {name: _number(value) if name in _NUMBERS else value for name, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    )
    return tuple(PublishedFigure(**row) for row in values)
