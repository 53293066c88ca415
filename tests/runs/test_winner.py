"""The winner is the best within the target, and the notes say by how much."""

from __future__ import annotations

import pytest

from mnv3search.block_search.feasibility import Feasibility
from mnv3search.candidate import Candidate, Origin
from mnv3search.errors import InfeasibleError
from mnv3search.families import published
from mnv3search.layer_search import NetAdaptResult
from mnv3search.runs.blocks import BlockStage
from mnv3search.runs.winner import choose_winner

LARGE, SMALL = published("mobilenet_v3_large"), published("mobilenet_v3_small")
BOUNDS = Feasibility(15.0, 90.0, True, SMALL, LARGE)


def candidate(top1: float, origin: Origin, number: int = 7) -> Candidate:
    return Candidate(LARGE, top1, 0.5, 49.0, 1, 2, origin, number)


def adapted(top1: float, *, reached: bool = True) -> NetAdaptResult:
    return NetAdaptResult(candidate(top1 + 1, "reference"), (), candidate(top1, "netadapt", 12), reached, 10)


def stage(direct: Candidate | None) -> BlockStage:
    return BlockStage([], direct, [], BOUNDS, [])


def test_netadapt_wins_where_it_is_better_and_the_margin_is_said() -> None:
    best, notes = choose_winner(stage(candidate(74.0, "block_search")), [adapted(73.0), adapted(74.25)], 50.0)
    assert (best.origin, best.number, best.top1) == ("netadapt", 1, 74.25)
    assert "NetAdapt's best beats the best direct candidate within the target by 0.25 points" in notes[0]
    assert "finalist 2" in notes[1]


def test_the_direct_candidate_wins_where_it_is_better_or_equal() -> None:
    best, notes = choose_winner(stage(candidate(74.25, "block_search")), [adapted(74.0)], 50.0)
    assert (best.origin, best.number) == ("block_search", 7)
    assert notes == [
        "the best direct candidate beats NetAdapt's best within the target by 0.25 points of top-1; "
        "one deviation is 0.50"
    ]
    assert choose_winner(stage(candidate(74.0, "block_search")), [adapted(74.0)], 50.0)[0].origin == "block_search"


def test_what_did_not_reach_the_target_cannot_win() -> None:
    best, _ = choose_winner(stage(candidate(70.0, "block_search")), [adapted(75.0, reached=False)], 50.0)
    assert best.top1 == 70.0
    with pytest.raises(InfeasibleError):
        choose_winner(stage(None), [adapted(75.0, reached=False)], 50.0)
    assert choose_winner(stage(None), [adapted(75.0)], 50.0)[0].origin == "netadapt"


def test_a_draw_is_said_as_one() -> None:
    _, notes = choose_winner(stage(candidate(74.0, "block_search")), [adapted(74.0)], 50.0)
    assert notes == ["NetAdapt found nothing better within the target than the best direct candidate"]
