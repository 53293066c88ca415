from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mnv3search.report.labels import Box, Label, along, nearest_point, place_labels

BOUNDS = Box(0, 0, 900, 600)
EMPTY = np.empty((0, 3))


def test_a_lone_label_stands_beside_its_point() -> None:
    (box,) = place_labels([Label(400, 300, 80, 12)], EMPTY, BOUNDS)
    x, y = nearest_point(box, 400, 300)
    assert abs(x - 400) + abs(y - 300) <= 12


def test_a_label_at_the_edge_turns_inwards() -> None:
    (box,) = place_labels([Label(895, 300, 80, 12)], EMPTY, BOUNDS)
    assert box.x1 <= 900


def test_a_label_avoids_a_line() -> None:
    line = along([(400, 300), (600, 300)], 15.0)
    (box,) = place_labels([Label(400, 300, 80, 12)], line, BOUNDS)
    covered = (line[:, 0] > box.x0) & (line[:, 0] < box.x1) & (line[:, 1] > box.y0) & (line[:, 1] < box.y1)
    assert not covered.any()


def test_taken_places_are_avoided() -> None:
    taken = Box(400, 200, 900, 400)
    (box,) = place_labels([Label(400, 300, 80, 12)], EMPTY, BOUNDS, [taken])
    assert box.overlap(taken) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(150, 750), st.floats(100, 500)), min_size=1, max_size=8))
def test_labels_never_cover_one_another(points: list[tuple[float, float]]) -> None:
    boxes = place_labels([Label(x, y, 120, 14) for x, y in points], EMPTY, BOUNDS)
    assert len(boxes) == len(points)
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= 900
        assert box.y1 <= 600
        assert all(box.overlap(other) == 0 for other in boxes[:i])


def test_along_is_spaced() -> None:
    line = along([(0, 0), (60, 0)], 2.0, spacing=6.0)
    assert line.shape == (11, 3)
    assert along([(0, 0)], 2.0).shape == (0, 3)
