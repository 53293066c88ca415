"""Figures that mean little are said to."""

from __future__ import annotations

from dataclasses import replace

from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.report.summary import Judged
from mnv3search.runs.doubts import doubts, measured_verdict


def judged(architecture: Architecture) -> Judged:
    return Judged("best", architecture, 70.0, 1.0, 10.0, None, 1, 2, "netadapt")


SMALL = published("mobilenet_v3_small")


def test_the_prior_on_imagenet_networks_needs_no_word() -> None:
    assert not doubts("prior", judged(SMALL))
    assert not doubts("prior", judged(SMALL.with_resolution(96)))


def test_the_prior_on_other_classes_or_sizes_is_said_to_be_no_accuracy() -> None:
    (said,) = doubts("prior", judged(SMALL.with_resolution(32).with_classes(10)))
    assert "10 classes at 32 px" in said
    assert doubts("prior", judged(SMALL.with_classes(100)))
    assert doubts("prior", judged(SMALL.with_resolution(512)))


def test_a_users_own_evaluator_answers_for_itself() -> None:
    assert not doubts("mine", judged(SMALL.with_classes(10)))


def test_a_measurement_is_held_against_the_target() -> None:
    timed = replace(judged(SMALL), measured_ms=10.5, measured_error_ms=0.02)
    assert measured_verdict(timed, [], 11.0) == [
        "timed whole on this machine the best takes 10.50 ±0.02 ms: it meets the target"
    ]
    assert "misses the target by 5.0 %" in measured_verdict(timed, [], 10.0)[0]
    assert not measured_verdict(judged(SMALL), [], 10.0)


def test_finalists_that_meet_a_target_that_the_best_misses_are_named() -> None:
    timed = replace(judged(SMALL), measured_ms=10.5)
    within = replace(timed, name="finalist 2 after NetAdapt", measured_ms=9.9)
    assert measured_verdict(timed, [timed, within], 10.0)[1] == (
        "timed whole, these meet it: finalist 2 after NetAdapt (9.90 ms)"
    )
    assert measured_verdict(timed, [timed], 10.0)[1] == "timed whole, no finalist meets it"
    assert len(measured_verdict(timed, [within], 11.0)) == 1
