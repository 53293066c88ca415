"""What a run wrote is read as foreign data: every value by its rule, and one line for what breaks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.errors import RunError
from mnv3search.records import LATENCY_MS, TOP1, Record, read_log

GOOD = {"top1": 71.5, "std": None, "trials": 3, "name": "a", "parts": [1], "inner": {"latency_ms": 2}}


def taken(record: Record) -> tuple[Any, ...]:
    return (
        record.number("top1", *TOP1),
        record.optional("std", 0, 100),
        record.integer("trials", 1, 10),
        record.text("name"),
        record.list("parts"),
        record.record("inner").number("latency_ms", *LATENCY_MS),
    )


def written(folder: Path, *lines: object) -> Path:
    log = folder / "log.jsonl"
    log.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return log


def test_values_come_back_as_they_went(tmp_path: Path) -> None:
    assert read_log(written(tmp_path, GOOD, GOOD), taken, "entry") == [(71.5, None, 3, "a", [1], 2.0)] * 2
    assert read_log(tmp_path / "missing", taken, "entry") == []


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("top1", -1, "top1 is -1; it must be from 0 to 100"),
        ("top1", 1e308, "top1 is 1e+308; it must be from 0 to 100"),
        ("top1", "71.5", "top1 is '71.5'; it must be a finite number"),
        ("top1", True, "top1 is True; it must be a finite number"),
        ("std", [], "std is []; it must be a finite number"),
        ("trials", 1.0, "trials is 1.0; it must be a whole number from 1 to 10"),
        ("trials", 10**290, "it must be a whole number from 1 to 10"),
        ("name", None, "name is None; it must be a text"),
        ("parts", {}, "parts is {}; it must be a list"),
        ("inner", 1, "1 is not an object with named values"),
        ("inner", {}, "latency_ms is missing"),
        ("inner", {"latency_ms": 0}, "latency_ms is 0; it must be from 1e-06 to 1e+07"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named_with_file_and_line(
    tmp_path: Path, name: str, value: object, rule: str
) -> None:
    with pytest.raises(RunError) as caught:
        read_log(written(tmp_path, GOOD, GOOD | {name: value}), taken, "entry")
    message = str(caught.value)
    assert "log.jsonl:2: a damaged entry: " in message
    assert rule in message
    assert "remove this line" in message


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**400), 10**400) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), ANY), st.booleans())
def test_no_value_whatever_is_more_than_one_error(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any], deep: bool
) -> None:
    line = json.dumps(GOOD | change)
    log = written(tmp_path_factory.mktemp("log"), "[" * 100_000 + line if deep else line)
    try:
        (found,) = read_log(log, taken, "entry")
    except RunError as error:
        message = str(error)
    else:
        message = f"{log}:1: a damaged entry: " if 0 <= found[0] <= 100 else "taken"
    assert message.startswith(f"{log}:1: a damaged entry: ")
    assert "\n" not in message


def test_a_line_that_was_cut_short_is_cut_away_after_the_others_were_read(tmp_path: Path) -> None:
    log = written(tmp_path, GOOD)
    log.write_bytes(log.read_bytes() + b'{"top1": 7\0\0\0')
    assert len(read_log(log, taken, "entry")) == 1
    assert log.read_text() == json.dumps(GOOD) + "\n"


@pytest.mark.parametrize("content", ["a letter to my aunt", "a letter\nto my aunt", json.dumps(GOOD) + "\nmy aunt"])
def test_a_file_that_no_run_wrote_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(content)
    with pytest.raises(RunError, match=r"log\.jsonl:\d: "):
        read_log(log, taken, "entry")
    assert log.read_text() == content


def test_a_link_to_another_file_is_refused_and_that_file_left_as_it_is(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text('{"a letter": 1')
    (tmp_path / "log.jsonl").symlink_to(letter)
    with pytest.raises(RunError, match="it is a link"):
        read_log(tmp_path / "log.jsonl", taken, "entry")
    assert letter.read_text() == '{"a letter": 1'


def test_numbers_of_a_table_are_texts() -> None:
    row = Record({"top1": "71.5", "std": "", "number": "3"}, texts=True)
    assert (row.number("top1", *TOP1), row.optional("std"), row.integer("number", 1, 3)) == (71.5, None, 3)
    for text in ("nan", "inf", "101", "x", ""):
        with pytest.raises(ValueError, match=r"top1 is .*; it must be"):
            Record({"top1": text}, texts=True).number("top1", *TOP1)
