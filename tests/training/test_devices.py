"""Processes that were launched together, as the environment says it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mnv3search.errors import TrainingError
from mnv3search.training.devices import accelerator, is_main_process, process_count

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_a_launcher_s_figures_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (is_main_process(), process_count()) == (True, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (is_main_process(), process_count()) == (False, 4)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RANK": "abc"}, "RANK is 'abc'"), ({"RANK": "-1"}, "RANK is '-1'"), ({"RANK": ""}, "RANK is ''"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"), ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5'"),
        ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE 1"), ({"WORLD_SIZE": "0"}, "RANK is 0 and WORLD_SIZE 0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE 2"),
    ],
)  # fmt: skip
def test_figures_that_no_launcher_sets_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], named: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for asked in (is_main_process, process_count):
        with pytest.raises(TrainingError, match=f"{named}.*torchrun"):
            asked()


def test_processes_without_an_address_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=r"launched.*torchrun"):
        accelerator()
