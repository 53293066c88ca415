"""The prior's rows: the two tables and the papers' figures as features, sources and groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.row_data import AccuracyRow, anb_rows, ofa_rows
from mnv3search.accuracy.prior_features import FloatArray, features
from mnv3search.accuracy.prior_rows import PUBLISHED, Rows
from mnv3search.families import NETWORKS, parse_network
from mnv3search.families.figures import published_figures

PAPER_VERSIONS = ("v5", "v1", "zoo", "zoo-v1")
GRID_NETWORKS = (
    "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mobilenet_v1", "mobilenet_v3_large_minimalistic",
    "mobilenet_v3_small_minimalistic", "mnasnet_a1", "mnasnet_small", "mobilenet_v3_large_relu",
    "mobilenet_v3_large_hswish16", "mobilenet_v3_large_hswish112",
)  # fmt: skip
GRID_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.4)
GRID_RESOLUTIONS = (96, 128, 160, 192, 224, 256)


def family(network: str) -> str:
    """The family of a network as the command line writes it."""
    return NETWORKS[network.partition("@")[0].partition("/")[0]].family


def published_top1() -> dict[str, float]:
    """Top-1 of each network of the papers' own recipes: the mean of the distinct figures printed for it.

    The preprint's rows stand under the final network: the counts that it prints are that network's.
    """
    printed: dict[str, set[float]] = {}
    for figure in published_figures():
        if figure.network and figure.top1 is not None and figure.version in PAPER_VERSIONS:
            printed.setdefault(figure.network.replace("_preprint", ""), set()).add(figure.top1)
    return {network: float(np.mean(sorted(values))) for network, values in printed.items()}


def other_recipes() -> list[tuple[str, str, float]]:
    """(label, network, top-1) of networks trained otherwise: never fitted, a check from outside."""
    return [
        (figure.label, figure.network, figure.top1)
        for figure in published_figures()
        if figure.version == "timm" and figure.network and figure.top1 is not None
    ]


def grid_features() -> FloatArray:
    """Raw features of the published families over widths and resolutions, where inducing points are placed."""
    names = [f"{n}@{w}/{r}" for n in GRID_NETWORKS for w in GRID_WIDTHS for r in GRID_RESOLUTIONS]
    return features([parse_network(name) for name in names])


def _table(rows: list[AccuracyRow], source: int) -> Rows:
    raw = features([row.architecture for row in rows])
    top1 = np.array([row.top1 for row in rows])
    return Rows(raw, np.full(len(rows), source), top1, np.array([row.effective for row in rows]))


def load_rows(folder: Path) -> Rows:
    """All rows: once-for-all, Accel-NASBench, published; a group is one effective network."""
    published = published_top1()
    raw = features([parse_network(name) for name in published])
    top1 = np.array(list(published.values()))
    parts = [
        _table(ofa_rows(folder), 0),
        _table(anb_rows(folder), 1),
        Rows(raw, np.full(len(published), PUBLISHED), top1, np.array(list(published))),
    ]
    return Rows(
        np.concatenate([part.raw for part in parts]),
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.top1 for part in parts]),
        np.concatenate([part.group for part in parts]),
    )
