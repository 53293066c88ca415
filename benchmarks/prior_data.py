"""The prior's rows: the two tables and the papers' figures as features, sources and groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.prior_networks import OtherNetwork, other_networks
from benchmarks.prior_rows import PUBLISHED, Rows, joined
from benchmarks.row_data import AccuracyRow, anb_rows, ofa_rows
from mnv3search.accuracy.prior_features import FloatArray, features
from mnv3search.architecture import Architecture
from mnv3search.families import NETWORKS, parse_network
from mnv3search.families.figures import published_figures

RECIPE_STD = 0.5
"""Points at 75 % by which ordinary recipes differ on one network: V3-Large has 75.2 to 75.8, V2 71.8 to 72.9."""
ABLATION = (
    "mobilenet_v3_large", "mobilenet_v3_large_relu", "mobilenet_v3_large_hswish16", "mobilenet_v3_large_hswish112",
)  # fmt: skip
"""Table 5 of the V3 paper: the same network but for its activations."""
PAPER_VERSIONS = ("v5", "v1", "zoo", "zoo-v1")
GRID_NETWORKS = (
    "efficientnet_b0", "efficientnet_lite0", "fbnet_c",
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


def grid_features() -> FloatArray:
    """Raw features of the published families over widths and resolutions, where inducing points are placed."""
    names = [f"{n}@{w}/{r}" for n in GRID_NETWORKS for w in GRID_WIDTHS for r in GRID_RESOLUTIONS]
    return features([parse_network(name) for name in names])


def _table(rows: list[AccuracyRow], source: int) -> Rows:
    raw, number = features([row.architecture for row in rows]), len(rows)
    top1, groups = np.array([row.top1 for row in rows]), np.array([row.effective for row in rows])
    return Rows(
        raw, np.full(number, source), top1, groups, np.full(number, ""), np.zeros(number), np.zeros(number, dtype=bool)
    )


def _published(names: list[str], families: list[str], networks: list[Architecture], top1: list[float]) -> Rows:
    number = len(names)
    source, recipe_std = np.full(number, PUBLISHED), np.zeros(number)
    return Rows(
        features(networks),
        source,
        np.array(top1),
        np.array(names),
        np.array(families),
        recipe_std,
        np.isin(names, ABLATION),
    )


def paper_rows() -> Rows:
    """The networks of the papers' own recipes."""
    found = published_top1()
    return _published(list(found), [family(n) for n in found], [parse_network(n) for n in found], list(found.values()))


def other_rows(others: list[OtherNetwork]) -> Rows:
    """Networks published by other recipes; each recipe moves its figure."""
    names, families = [n.name for n in others], [n.family for n in others]
    rows = _published(names, families, [n.architecture for n in others], [n.top1 for n in others])
    return replace(rows, recipe_std=np.full(len(rows), RECIPE_STD))


def load_rows(folder: Path) -> Rows:
    """All rows: once-for-all, Accel-NASBench, published; a group is one effective network."""
    others = other_rows(other_networks(folder))
    return joined([_table(ofa_rows(folder), 0), _table(anb_rows(folder), 1), paper_rows(), others])


def fitted_networks(folder: Path) -> dict[str, list[Architecture]]:
    """The networks that each recipe of the shipped prior learns from: published ones share what the tables teach."""
    ofa, anb = ([row.architecture for row in rows] for rows in (ofa_rows(folder), anb_rows(folder)))
    published = [parse_network(name) for name in published_top1()] + [n.architecture for n in other_networks(folder)]
    return {"once_for_all": ofa, "accel_nasbench": anb, "published": [*published, *ofa, *anb]}
