"""Targets are read as people write them, and refused with the remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.errors import TargetError
from mnv3search.latency.model import parse_target


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("50ms", 50),
        ("50 ms", 50),
        ("0.05s", 50),
        ("800us", 0.8),
        ("800µs", 0.8),
        ("800μs", 0.8),
        ("1e3us", 1),
        (".5s", 500),
    ],
)
def test_units(text: str, milliseconds: float) -> None:
    target = parse_target(text)
    assert not target.relative
    assert target.milliseconds(reference_ms=7.0) == pytest.approx(milliseconds)


def test_a_relative_target_multiplies_the_reference() -> None:
    assert parse_target("0.8x").milliseconds(reference_ms=50.0) == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("50", "no unit"), ("ms", "not a number"), ("", "not a number"), ("0ms", "positive"), ("-5ms", "positive"),
        ("nanms", "positive"), ("infms", "positive"), ("-infs", "positive"), ("1e999ms", "positive"),
        ("50 parsecs", "'parsecs'"), ("50MS", "'MS'"), ("0x", "positive"), ("5ms ms", "not a number"),
    ],
)  # fmt: skip
def test_what_is_no_target_is_named_with_what_would_be(text: str, words: str) -> None:
    with pytest.raises(TargetError, match=r"50ms, 0\.05s, 800us or 0\.8x") as caught:
        parse_target(text)
    assert words in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.floats(1e-6, 1e6), st.sampled_from(["ms", "s", "us", "µs"]))
def test_any_positive_number_with_a_unit_is_a_target(value: float, unit: str) -> None:
    factor = {"ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3}[unit]
    assert parse_target(f"{value!r}{unit}").milliseconds(1.0) == pytest.approx(value * factor)
