"""The tables of a run folder come back as they went, and damage is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnv3search.candidate import Candidate
from mnv3search.errors import RunError
from mnv3search.families import published
from mnv3search.layer_search import Step
from mnv3search.runs.artifacts import read_front, read_steps, write_candidates, write_steps

LARGE, SMALL = published("mobilenet_v3_large"), published("mobilenet_v3_small")


def step(number: int, std: float | None = 0.5) -> Step:
    return Step(
        number, "expansion", "expansion of block 4: 120 → 96", LARGE, 75.1 / 3, std, 50.1 / 7, -0.1, -0.5, 20, 0.5
    )


def test_steps_come_back_exactly(tmp_path: Path) -> None:
    steps = {1: [step(1), step(2, None)], 2: [], 3: [step(1)]}
    write_steps(tmp_path / "netadapt.csv", steps)
    assert read_steps(tmp_path / "netadapt.csv") == {1: steps[1], 3: steps[3]}


def test_no_file_is_no_steps(tmp_path: Path) -> None:
    assert read_steps(tmp_path / "netadapt.csv") == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("finalist,number", "number", ":1: the columns must be"),
        (repr(50.1 / 7), "x", ":2: a damaged row"),
        (repr(50.1 / 7), "nan", "latency_ms is nan"),
        ('""stem""', '""trunk""', "trunk is unknown"),
        ('""blocks""', "", "a damaged row"),
    ],
)
def test_damage_names_file_and_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    file = tmp_path / "netadapt.csv"
    write_steps(file, {1: [step(1)]})
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(RunError, match=r"netadapt\.csv:\d") as caught:
        read_steps(file)
    assert words in str(caught.value)


def test_a_file_cut_short_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "netadapt.csv"
    write_steps(file, {1: [step(1), step(2)]})
    file.write_text(file.read_text()[:-40])
    with pytest.raises(RunError, match="damaged row"):
        read_steps(file)


def test_a_front_keeps_its_architectures(tmp_path: Path) -> None:
    front = [Candidate(a, 70.0, 0.5, 20.0, 1, 2, "block_search", number) for number, a in enumerate((SMALL, LARGE))]
    write_candidates(tmp_path / "pareto.csv", front)
    assert read_front(tmp_path / "pareto.csv") == [SMALL, LARGE]
    header, first = (tmp_path / "pareto.csv").read_text().splitlines()[:2]
    assert header == "number,top1,top1_std,latency_ms,madds,parameters,origin,blocks,architecture"
    assert first.startswith("0,70.0,0.5,20.0,1,2,block_search,224px s16 |")


@pytest.mark.parametrize("value", [1e-05, 0.1 + 0.2, 100 / 3, 5e-324, 1.7976931348623157e308, 123456789.0123456789])
def test_numbers_are_written_in_full_and_what_is_not_known_stays_empty(tmp_path: Path, value: float) -> None:
    known = Candidate(SMALL, value, value, value, 1, 2, "netadapt", 0)
    write_candidates(tmp_path / "t.csv", [known, Candidate(SMALL, value, None, value, 1, 2, "netadapt", 1)])
    first, second = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert first.startswith(f"0,{value!r},{value!r},{value!r},1,2,netadapt,")
    assert second.startswith(f"1,{value!r},,{value!r},1,2,netadapt,")


def test_a_front_that_is_missing_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot read"):
        read_front(tmp_path / "none.csv")
