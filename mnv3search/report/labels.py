"""Where labels go on a plot so that none covers another: a pure function of boxes and points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ANGLES = tuple(math.radians(a) for a in (0, 180, 45, -45, 135, -135, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110))
_DISTANCES = (10.0, 16.0, 28.0, 44.0, 64.0, 90.0, 120.0)
LEADER_FROM = 18.0
_OUTSIDE, _COVERS_LABEL = 1e6, 1e5


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Shared area in square pixels."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0


class Label(NamedTuple):
    """A label to place: the point that it names and its own size, in pixels."""

    x: float
    y: float
    width: float
    height: float


def place_labels(
    labels: Sequence[Label], obstacles: NDArray[np.float64], bounds: Box, taken: Sequence[Box] = ()
) -> list[Box]:
    """A box for each label, the most important first: near its point, inside ``bounds``, off the others and ``taken``.

    ``obstacles`` of shape (n, 3) are x, y and weight of what should stay visible (marks, lines as points). A label that
    finds no free position takes the least bad one.
    """
    points = np.array([(label.x, label.y, 40.0) for label in labels], dtype=float).reshape(-1, 3)
    everything = np.concatenate([np.asarray(obstacles, dtype=float).reshape(-1, 3), points])
    placed: list[Box] = list(taken)
    for label in labels:
        choices = [_box(label, angle, distance) for distance in _DISTANCES for angle in _ANGLES]
        costs = [_cost(box, label, everything, bounds, placed) for box in choices]
        placed.append(choices[int(np.argmin(costs))])
    return placed[len(taken) :]


def _box(label: Label, angle: float, distance: float) -> Box:
    """The label's box whose nearest edge or corner is ``distance`` from the point, in direction ``angle``."""
    dx, dy = math.cos(angle), math.sin(angle)
    x = label.x + distance * dx + label.width / 2 * _side(dx)
    y = label.y + distance * dy + label.height / 2 * _side(dy)
    return Box(x - label.width / 2, y - label.height / 2, x + label.width / 2, y + label.height / 2)


def _side(component: float) -> float:
    return 0.0 if abs(component) < 0.1 else math.copysign(1.0, component)


def _cost(box: Box, label: Label, obstacles: NDArray[np.float64], bounds: Box, placed: Sequence[Box]) -> float:
    pad = 2.0
    inside = (
        (obstacles[:, 0] > box.x0 - pad) & (obstacles[:, 0] < box.x1 + pad)
        & (obstacles[:, 1] > box.y0 - pad) & (obstacles[:, 1] < box.y1 + pad)
    )  # fmt: skip
    cost = float(obstacles[inside, 2].sum())
    if box.x0 < bounds.x0 or box.y0 < bounds.y0 or box.x1 > bounds.x1 or box.y1 > bounds.y1:
        cost += _OUTSIDE
    padded = Box(box.x0 - pad, box.y0 - pad, box.x1 + pad, box.y1 + pad)
    cost += sum(_COVERS_LABEL + padded.overlap(other) for other in placed if padded.overlap(other))
    near_x, near_y = nearest_point(box, label.x, label.y)
    away = math.hypot(near_x - label.x, near_y - label.y)
    # a label that needs a leader line is worse than one that touches a line or two
    return cost + 0.8 * away + 1.2 * max(0.0, away - LEADER_FROM)


def nearest_point(box: Box, x: float, y: float) -> tuple[float, float]:
    """The box's point nearest to (x, y): where a leader line ends."""
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)


def along(points: Sequence[tuple[float, float]], weight: float, spacing: float = 6.0) -> NDArray[np.float64]:
    """A polyline as obstacles: points every ``spacing`` pixels, shape (n, 3)."""
    found: list[tuple[float, float, float]] = []
    for (x0, y0), (x1, y1) in pairwise(points):
        pieces = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / spacing))
        found += [(x0 + (x1 - x0) * i / pieces, y0 + (y1 - y0) * i / pieces, weight) for i in range(pieces + 1)]
    return np.array(found, dtype=float).reshape(-1, 3)
