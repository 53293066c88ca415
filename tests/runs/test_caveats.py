"""Figures that mean little are said to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mnv3search.architecture import Architecture, StemSpec
from mnv3search.families import published
from mnv3search.report.summary import ScoredNetwork, TargetVerdict
from mnv3search.runs.caveats import caveats, confidence_note, no_ranking, prior_score, repair_note


def judged(architecture: Architecture) -> ScoredNetwork:
    return ScoredNetwork("best", architecture, 70.0, 1.0, 10.0, None, 1, 2, "netadapt")


SMALL = published("mobilenet_v3_small")


def test_the_prior_on_imagenet_networks_needs_no_word() -> None:
    assert not caveats("prior", judged(SMALL))
    assert not caveats("prior", judged(SMALL.with_resolution(96)))


def test_a_winner_unlike_the_fitted_networks_is_named_with_value_and_range() -> None:
    (said,) = caveats("prior", judged(SMALL.with_resolution(32).with_classes(10)))
    assert "input px 32 (fitted: 96 to 320)" in said
    assert "classes 10 (fitted: 1000)" in said
    (said,) = caveats("prior", judged(replace(SMALL, stem=StemSpec(4))))
    assert "stem filters 4 (fitted: 8 to " in said
    assert caveats("prior", judged(SMALL.with_resolution(512)))


def test_a_recipe_says_what_it_predicts() -> None:
    said = caveats("prior:once_for_all", judged(published("mobilenet_v3_large")))
    assert "the once-for-all supernet's subnet" in said[0]


def test_for_other_classes_the_prior_gives_a_score() -> None:
    assert prior_score("prior", SMALL) is None
    assert prior_score("prior", SMALL.with_classes(10)) == "prior's score, 10 classes"
    assert prior_score("proxy:epochs=1", SMALL.with_classes(10)) is None


def test_a_users_own_evaluator_answers_for_itself() -> None:
    assert not caveats("mine", judged(SMALL.with_classes(10)))


VERDICT = TargetVerdict(10.0, 0.9, None, 5.0)
ESTIMATED = replace(judged(SMALL), latency_error_ms=0.5)


def test_a_search_that_aimed_lower_says_so_and_how_not_to() -> None:
    (said,) = confidence_note(VERDICT, ESTIMATED)
    assert "90 % confidence" in said
    assert said.endswith("--confidence 0.5 aims at the prediction itself")


def test_nothing_is_said_of_an_aim_that_changed_nothing() -> None:
    assert not confidence_note(replace(VERDICT, confidence=0.5), ESTIMATED)
    assert not confidence_note(VERDICT, judged(SMALL))
    assert not confidence_note(replace(VERDICT, met=True), ESTIMATED)


@pytest.mark.parametrize(
    ("scores", "chance", "why"),
    [
        ([(6.9, 1.5), (6.9, 1.5)], 20.0, "not above chance"),  # below it: all gave one rare class
        ([(20.0, 2.0)] * 24, 20.0, "not above chance"),
        ([(24.0, 2.0), *[(20.0, 2.0)] * 23], 20.0, "not above chance"),  # the best of 24 is above it by luck
        ([(80.0, 2.0), (80.0, 2.0)], 80.0, "not above chance"),  # one class has four images of five
        ([(60.0, 2.0)] * 5, 20.0, "all have 60.0 %"),
        ([(60.0, None)] * 5, 20.0, "all have 60.0 %"),
        ([(60.0, 2.0), (61.0, 2.0), (62.5, 2.0), (58.5, 2.0)], 20.0, "within their own noise (±2.0)"),
        ([(60.0, 2.0), (70.0, 2.0), (65.0, 2.0)], 20.0, None),
        ([(60.0, None), (61.0, None)], 20.0, None),
        ([(20.0, 2.0)], 20.0, None),
    ],
)
def test_what_is_no_ranking_is_said(scores: list[tuple[float, float | None]], chance: float, why: str | None) -> None:
    found = no_ranking(scores, chance, "proxy:epochs=3")
    if why is None:
        assert found is None
    else:
        assert found is not None
        for words in (why, "proxy:epochs=…", "more images", "seeds=…"):
            assert words in found


def test_repairs_are_told() -> None:
    assert not repair_note(VERDICT)
    assert "went on once" in repair_note(replace(VERDICT, met=True, repairs=1))[0]
    assert "went on 2 times" in repair_note(replace(VERDICT, met=False, repairs=2))[0]
