"""The rows that the ImageNet prior is fitted to: networks with accuracies, from three sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.prior_features import FloatArray

SOURCES = ("once_for_all", "accel_nasbench", "published")
PUBLISHED = SOURCES.index("published")
OFFSET_VARIANCE = 100.0
"""Prior variance of each source's offset from its mean, points²."""
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Rows:
    """Networks with accuracies: raw features (n, d), source index (n,), top-1 in percent (n,), a group name each."""

    raw: FloatArray
    source: IntArray
    top1: FloatArray
    group: NDArray[np.str_]

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Rows:
        return Rows(self.raw[index], self.source[index], self.top1[index], self.group[index])

    def __len__(self) -> int:
        return len(self.top1)


def standardisation(rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Centre and scale of the raw features: around the published networks, spread of all rows, rounded to ship."""
    center = rows.raw[rows.source == PUBLISHED].mean(axis=0)
    scale = np.maximum(rows.raw.std(axis=0) + 0.05, 0.15)
    return np.round(center, 3), np.round(scale, 3)


def source_means(rows: Rows) -> FloatArray:
    """Mean top-1 of each source's rows, 0 where there are none."""
    return np.array([rows.top1[rows.source == s].mean() if (rows.source == s).any() else 0.0 for s in range(3)])
