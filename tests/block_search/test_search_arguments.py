"""What a search may be given, and what it refuses in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnv3search import Architecture, Evaluation, ImagenetPrior, load_device, load_space, search
from mnv3search.errors import EvaluatorError, Mnv3SearchError, TargetError

SPACE, PIXEL = load_space("mnv3_small"), load_device("pixel1")


def test_accuracy_alone_needs_no_latency_model_and_no_target() -> None:
    found = search(SPACE, None, ImagenetPrior(), trials=200)
    millions = [c.madds / 1e6 for c in found.candidates]
    assert [c.latency_ms for c in found.candidates] == pytest.approx(millions, rel=1e-6)
    assert found.best.top1 == max(c.top1 for c in found.candidates)
    assert (found.evaluated, found.binding, found.objective) == (200, False, "top-1")


def test_without_a_target_nothing_is_refused() -> None:
    found = search(SPACE, PIXEL, ImagenetPrior(), trials=50)
    assert (found.refused, found.binding) == (0, False)
    with pytest.raises(TargetError, match="needs a target"):
        search(SPACE, PIXEL, ImagenetPrior(), trials=5, hard=False)


def test_numbers_of_numpy_are_numbers() -> None:
    numpys: dict[str, Any] = {
        "target_latency_ms": np.float32(14.0), "trials": np.int64(20), "seed": np.uint8(3),
        "reward_exponent": np.float64(0),
    }  # fmt: skip
    plain = {"target_latency_ms": 14.0, "trials": 20, "seed": 3, "reward_exponent": 0.0}
    found, same = (search(SPACE, PIXEL, ImagenetPrior(), **given) for given in (numpys, plain))
    assert found.candidates == same.candidates


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trials", 8.0),
        ("trials", True),
        ("trials", 0),
        ("seed", "1"),
        ("reward_exponent", "x"),
        ("reward_exponent", 0.1),
    ],
)
def test_what_is_no_such_number_is_refused_in_words(name: str, value: object) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(Mnv3SearchError, match=f"{name} is {value!r}"):
        search(SPACE, PIXEL, ImagenetPrior(), 14.0, **given)


def test_progress_is_told_after_every_costly_network() -> None:
    class Costly:
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
            return ImagenetPrior().evaluate(architectures)

    done: list[int] = []
    search(SPACE, PIXEL, Costly(), 14.0, 24, progress=lambda told: done.append(told.done))
    assert sorted({*done}) == list(range(1, 25))


@pytest.mark.parametrize("std", [float("nan"), -1.0, "1"])
def test_a_deviation_that_cannot_be_is_refused_before_it_is_saved(tmp_path: Path, std: Any) -> None:
    class Wrong:
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
            return [Evaluation(70.0, std) for _ in architectures]

    with pytest.raises(EvaluatorError, match="top1_std"):
        search(SPACE, PIXEL, Wrong(), 14.0, 8, storage=tmp_path / "study.log")


def test_answers_that_are_all_equal_and_numpys_are_searched_quietly() -> None:
    class Equal:
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
            return [Evaluation(np.float32(70.0), np.float32(1.0)) for _ in architectures]  # type: ignore[arg-type]

    found = search(SPACE, PIXEL, Equal(), 14.0, 24)
    assert {type(c.top1) for c in found.candidates} == {float}
