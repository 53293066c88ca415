"""What a latency model's answers must be, whoever asks."""

from __future__ import annotations

import numpy as np
import pytest
from search_fakes import UnitLatency, small_space

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.model import checked_latencies

NETWORKS = small_space("blocks").sample(2, 0)


class _Answering:
    def __init__(self, answer: object) -> None:
        self._answer = answer

    def latency_ms(self, architectures: list[Architecture]) -> object:
        return self._answer


def test_answers_that_can_be_pass_as_they_are() -> None:
    assert checked_latencies(_Answering([2, 3.5]), NETWORKS).tolist() == [2.0, 3.5]  # type: ignore[arg-type]
    assert (checked_latencies(UnitLatency(), NETWORKS) == UnitLatency().latency_ms(NETWORKS)).all()
    assert checked_latencies(_Answering([]), []).shape == (0,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.ones(3), r"shape \(3,\) for 2 networks"),
        (np.ones((2, 1)), r"shape \(2, 1\) for 2 networks"),
        (5.0, r"shape \(\) for 2 networks"),
        ([1.0, float("nan")], "latency of nan ms"),
        ([1.0, float("inf")], "latency of inf ms"),
        ([1.0, 0.0], "latency of 0.0 ms"),
        ([-2.0, 1.0], "latency of -2.0 ms"),
        (["a", "b"], "no numbers"),
        (None, "shape"),
    ],
)
def test_answers_that_cannot_be_are_refused_by_the_models_name(answer: object, said: str) -> None:
    with pytest.raises(DeviceError, match=f"_Answering gave .*{said}"):
        checked_latencies(_Answering(answer), NETWORKS)  # type: ignore[arg-type]
