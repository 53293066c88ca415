"""A table speaks of its last sittings: one that went wrong before them is not held against it for ever."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.measured.measuring import Round
from mnv3search.latency.measured.table import LatencyTable, TableKey

KEY = TableKey(Fingerprint("a CPU", 4, "x86_64"), "known", "1", 1, "fp32", "a reference")
STEADY = [1.0] * 16
UNEVEN = [1.0, 1.1] * 8


def add_sitting(table: LatencyTable, entry: str, ms: Sequence[float], *, whole: bool = False) -> None:
    """Sixteen rounds of an entry and of another whose odd rounds are short where its own are long."""
    others = ms[1:] + ms[:1]  # type: ignore[operator]
    runs = table.start_sitting({entry: 0, f"{entry}'": 0}, (entry, f"{entry}'") if whole else ())
    for one, other in zip(ms, others, strict=True):
        table.add_round(runs, Round(np.array([one, other]), np.array([10.0])))


def test_halves_are_of_the_last_sittings() -> None:
    table = LatencyTable(KEY)
    add_sitting(table, "a", UNEVEN)
    uneven = table.halves_disagreement
    assert uneven > 0.05
    add_sitting(table, "net", STEADY, whole=True)  # the units' last is still the first
    assert table.halves_disagreement == pytest.approx(uneven)
    add_sitting(table, "b", STEADY)
    assert table.halves_disagreement == pytest.approx(0)
    add_sitting(table, "late net", UNEVEN, whole=True)
    assert table.halves_disagreement == pytest.approx(uneven)


def test_the_pace_is_of_the_last_sitting_of_units() -> None:
    table = LatencyTable(KEY)
    wandering = table.start_sitting({"a": 0})
    for pace in (1.0,) * 8 + (1.4,) * 8:
        table.add_round(wandering, Round(np.array([pace]), np.array([10 * pace])))
    assert table.level_error > 0.1
    add_sitting(table, "net", STEADY, whole=True)
    assert table.level_error > 0.1
    add_sitting(table, "b", STEADY)
    assert table.level_error == pytest.approx(0)
