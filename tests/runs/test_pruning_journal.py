"""A pruning's journal: what it holds comes back alike, and damage of any kind is one line that names file and rule."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trained_fakes import fake_trained

from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.errors import RunError
from mnv3search.layer_search import NetAdaptOptions
from mnv3search.layer_search.proposals import Proposal
from mnv3search.layer_search.scoring import Score, Scored
from mnv3search.layer_search.trained import TrainedNetAdaptResult, netadapt_trained
from mnv3search.network.slicing import slice_network
from mnv3search.runs.pruning_journal import FolderJournal
from mnv3search.training.trained import TrainedNetwork

SEED = fake_trained()
Line = dict[str, Any]


class Madds:
    """One millisecond for each thousand multiply-adds."""

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([count(a).madds / 1e3 for a in architectures])


class Sliced:
    """Scores slices by their parameters, without training."""

    count = 1

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Proposal]]) -> Iterator[Scored]:
        for number, planned in proposals:
            network = slice_network(before.network, planned.architecture)
            after = replace(before, architecture=planned.architecture, network=network, facts={})
            yield Scored(number, self.score_seed(after), after)

    def score_seed(self, trained: TrainedNetwork) -> Score:
        share = count(trained.architecture).parameters / count(SEED.architecture).parameters
        return Score(80.0 * share, 1 - share / 2, 1000, 64, 0.25)

    def speed(self, trained: TrainedNetwork) -> float:
        return 1.0


def walked(folder: Path) -> TrainedNetAdaptResult:
    seed_ms = float(Madds().latency_ms([SEED.architecture])[0])
    journal = FolderJournal(folder, SEED)
    return netadapt_trained(journal, Madds(), 0.8 * seed_ms, Sliced(), options=NetAdaptOptions(0.1))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """The lines of a narrowing of two steps: the seed, then of each a plan, scores and which was kept."""
    folder = tmp_path_factory.mktemp("journal")
    assert len(walked(folder).steps) == 2
    return [json.loads(line) for line in (folder / "proposals.jsonl").read_text().splitlines()]


def read(folder: Path, lines: Sequence[object]) -> FolderJournal:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "proposals.jsonl").write_text(text)
    return FolderJournal(folder, SEED)


def test_what_was_kept_comes_back_alike(whole: list[Line], tmp_path: Path) -> None:
    found = walked(tmp_path)
    assert tuple(FolderJournal(tmp_path, SEED).steps()) == found.steps
    assert tuple(read(tmp_path, whole).steps()) == found.steps


SEED_LINE, PLAN, SCORE, KEPT = 0, 1, 2, -1
TOO_DEEP = '{"seed": ' + "[" * 5000 + "]" * 5000 + "}"


def put(line: int, *path: str | int, to: object) -> Callable[[list[Line]], object]:
    def damage(lines: list[Line]) -> object:
        inner: Any = lines[line]
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return lines

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (put(SEED_LINE, "seed", "top1", to=-1), r":1: .*top1 is -1; it must be from 0 to 100"),
        (put(SEED_LINE, "seed", "top1", to=float("nan")), r":1: .*NaN"),
        (put(SEED_LINE, "latency_ms", to=0), r":1: .*latency_ms is 0"),
        (put(SEED_LINE, "seed", to=[]), r":1: .*not an object"),
        (put(PLAN, "required_ms", to=10**400), r":2: .*digits"),
        (put(PLAN, "proposals", 0, "latency_ms", to=1e6), r":2: .*no cut of"),
        (put(PLAN, "proposals", 0, "architecture", "classes", to=4), r":2: .*classes 3, the proposal 4"),
        (put(PLAN, "proposals", 0, "architecture", to="x"), r":2: "),
        (put(PLAN, "proposals", to=None), r":2: .*must be a list"),
        (put(PLAN, "step", to=2), r":2: .*step 2 does not follow step 0"),
        (put(SCORE, "proposal", to=99), r":3: .*proposal is 99"),
        (put(SCORE, "score", "top1", to=300), r":3: .*from 0 to 100"),
        (put(SCORE, "score", "images", to=999), r":3: .*scored on 999 images, the network on 1000"),
        (put(SCORE, "score", "seconds", to="long"), r":3: .*seconds is 'long'"),
        (put(SCORE, "score", to={"top1": 1.0}), r":3: .*loss is missing"),
        (put(KEPT, "of", to=-1), r"of is -1"),
        (put(KEPT, "rivals", to=10**6), r"rivals is 1000000"),
        (lambda lines: lines.insert(3, lines[2]), r":4: .*scored a second time"),
        (lambda lines: lines.insert(2, lines[1]), r":3: .*planned a second time"),
        (lambda lines: lines.insert(1, lines[0]), r":2: .*the network is scored a second time"),
        (lambda lines: lines.pop(2), r"finished before all of its proposals are scored"),
        (lambda lines: lines.pop(1), r":2: .*step 1 is not planned"),
        (lambda lines: lines.pop(0), r":1: .*does not follow the network is scored"),
        (lambda lines: lines.insert(1, []), r":2: .*not an object"),
        (lambda lines: lines.insert(1, TOO_DEEP), r":2: .*deeper"),
        (lambda lines: lines.insert(1, '{"step": 1, "step": 2}'), r":2: .*twice"),
    ],
)  # fmt: skip
def test_damage_is_named_by_line_and_rule(
    whole: list[Line], tmp_path: Path, damage: Callable[[list[Any]], object], said: str
) -> None:
    lines = copy.deepcopy(whole)
    damage(lines)
    with pytest.raises(RunError, match=r"proposals\.jsonl.*" + said) as caught:
        read(tmp_path, lines)
    assert "\n" not in str(caught.value)


def paths(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*at, key))


def test_no_value_of_another_kind_ends_in_anything_else(whole: list[Line], tmp_path: Path) -> None:
    for number in (SEED_LINE, PLAN, SCORE, KEPT):
        for path in list(paths(whole[number]))[1:]:
            values: list[object] = [None, True, -1, 1e308, "x", [], {}, [[1]]]
            for value in values:
                lines = copy.deepcopy(whole)
                put(number, *path, to=value)(lines)
                try:
                    read(tmp_path, lines)
                except RunError as error:
                    assert "\n" not in str(error)  # noqa: PT017
