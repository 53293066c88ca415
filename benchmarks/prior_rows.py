"""The rows that the ImageNet prior is fitted to: networks with accuracies, from three sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.prior import REFERENCE_ERROR
from mnv3search.accuracy.prior_features import FloatArray

SOURCES = ("once_for_all", "accel_nasbench", "published")
PUBLISHED = SOURCES.index("published")
IntArray = NDArray[np.intp]


def from_top1(top1: FloatArray) -> FloatArray:
    """Top-1 in percent on the scale on which effects add, ``-25 ln(error / 25)``: what ``prior.to_top1`` inverts."""
    return np.asarray(-REFERENCE_ERROR * np.log((100.0 - top1) / REFERENCE_ERROR), dtype=np.float64)


@dataclass(frozen=True)
class Rows:
    """Networks with accuracies.

    Attributes:
        raw: features (n, d).
        source: index into ``SOURCES`` (n,).
        top1: percent (n,).
        group: one name for each effective network (n,).
        family: of a published network, else empty (n,).
        recipe_std: how far recipes other than the papers' own move a figure, points at 75 % (n,).
        alike: networks of one ablation, trained alike: their figures are surer than others' (n,).
    """

    raw: FloatArray
    source: IntArray
    top1: FloatArray
    group: NDArray[np.str_]
    family: NDArray[np.str_]
    recipe_std: FloatArray
    alike: NDArray[np.bool_]

    @property
    def figure(self) -> FloatArray:
        """Top-1 on the fitted scale."""
        return from_top1(self.top1)

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Rows:
        return Rows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.top1)


def joined(parts: list[Rows]) -> Rows:
    """The rows of all the parts."""
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__dataclass_fields__))


def standardisation(rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Centre and scale of the raw features: around the published networks, spread of all rows, rounded to ship."""
    center = rows.raw[rows.source == PUBLISHED].mean(axis=0)
    scale = np.maximum(rows.raw.std(axis=0) + 0.05, 0.15)
    return np.round(center, 3), np.round(scale, 3)


def source_means(rows: Rows) -> FloatArray:
    """Mean figure of each source's rows, 0 where there are none."""
    found = [rows.figure[rows.source == s] for s in range(len(SOURCES))]
    return np.array([figures.mean() if len(figures) else 0.0 for figures in found])
