"""What a training says of its speed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from training_fakes import PREPROCESSING, RECIPE, splits, tiny_network

from mnv3search.training.loop import train_network
from mnv3search.training.progress import SilentProgress, rate_text, speed_text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(1234.4, "1234"), (10.4, "10"), (9.96, "10"), (9.94, "9.9"), (0.42, "0.4"), (0.04, "0.04"), (0, "0.0")],
)
def test_slow_rates_keep_a_decimal_and_never_read_as_nothing(rate: float, text: str) -> None:
    assert rate_text(rate) == text
    assert speed_text(rate) == f"{text} images/s"


def test_a_slow_training_says_how_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    details: list[str] = []

    class Heard(SilentProgress):
        def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
            details.append(detail)

    clock = iter(range(0, 10**6, 20))  # each look at the clock finds it 20 seconds later: 8 images take that long
    monkeypatch.setattr("mnv3search.training.steps.time.perf_counter", lambda: float(next(clock)))
    one = replace(RECIPE, epochs=1, batch_size=8)
    train_network(tiny_network(), splits(), one, preprocessing=PREPROCESSING, progress=Heard())
    assert [detail.rpartition(", ")[2] for detail in details if "images/s" in detail] == ["0.4 images/s"] * 6
