from __future__ import annotations

from dataclasses import replace

import pytest

from mnv3search.report.summary import (
    RunSummary,
    TargetVerdict,
    change_ms,
    headline,
    latency_text,
    millions,
    percent,
    signed,
    small_ms,
    top1_text,
    with_error,
    x_label,
    y_label,
)
from mnv3search.runs.comparison import Comparison


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (75.64, 0.48, "75.6 ±0.5 pred."),
        (75.64, 0.012, "75.64 ±0.01 pred."),
        (75.64, None, "75.6 ±? pred."),
        (None, 0.5, "–"),
        (float("nan"), 0.5, "–"),
        (75.64, float("inf"), "75.6 ±? pred."),
    ],
)
def test_a_prediction_carries_its_mark_and_its_error(value: float | None, error: float | None, text: str) -> None:
    assert top1_text(value, error, estimated=True) == text


def test_figures_that_are_no_predictions_carry_no_mark() -> None:
    assert top1_text(75.64, None, estimated=False) == "75.6"
    assert with_error(1.0, 0.0) == "1.0 ±0.0"


@pytest.mark.parametrize(("kind", "mark"), [("estimated", "est."), ("table", "table"), ("measured", "meas.")])
def test_latencies_are_marked_by_kind(kind: str, mark: str) -> None:
    assert latency_text(50.04, 1.92, kind) == f"50.0 ±1.9 {mark}"  # type: ignore[arg-type]
    assert latency_text(5.004, 0.192, kind, "ms") == f"5.00 ±0.19 ms {mark}"  # type: ignore[arg-type]


def test_small_latencies_keep_the_figures_that_say_something() -> None:
    assert [change_ms(v) for v in (-0.0034848, 0.02, -1.234, -51.5, 0.0)] == [
        "−0.0035", "+0.020", "−1.23", "−51.50", "+0.00",
    ]  # fmt: skip
    assert small_ms(0.0028802808752826925) == "0.0029"
    assert latency_text(0.5162712, 0.0606, "estimated") == "0.516 ±0.061 est."


def test_signs_are_true_minuses_and_zero_has_none() -> None:
    assert [signed(0.123), signed(-0.123), signed(-0.001)] == ["+0.12", "−0.12", "+0.00"]
    assert millions(216_589_760) == "216.6"


def test_headline_compares_with_the_reference_by_the_same_means(summary: RunSummary) -> None:
    best = replace(summary.best, top1=76.0, top1_std=0.3, latency_ms=49.0, latency_error_ms=1.5)
    reference = replace(summary.references[0], top1=75.0, top1_std=0.4, latency_ms=51.0, latency_error_ms=1.6)
    said = dict(headline(replace(summary, best=best, references=[reference])))
    assert said["Asked"].endswith("takes at most 50 ms on pixel1")
    assert "76.0 ±0.3 % pred. at 49.0 ±1.5 ms est." in said["Found"]
    assert said["Against"].startswith("1.0 points above mobilenet_v3_large and 2.0 ms faster")
    assert "75.2" not in said["Against"], "the published top-1 is no measure of a prediction"
    # hypot(0.3, 0.4) = 0.5
    assert "2.0 times its standard deviation (0.5" in said["How sure"]
    # one millisecond of room is 0.67 of its deviation
    assert "it lies above the target with a probability of 25 %" in said["How sure"]
    assert "highest of 400 predictions" in said["How sure"]
    trained = replace(summary, top1_estimated=False, best=best, references=[reference])
    assert "highest of" not in dict(headline(trained))["How sure"]


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.3, "cannot be told apart"), (-0.7, "likely, not certain"), (1.6, "clear")]
)
def test_headline_says_how_sure_it_is(summary: RunSummary, gain: float, verdict: str) -> None:
    reference = replace(summary.references[0], top1=75.0, top1_std=0.4)
    best = replace(summary.best, top1=75.0 + gain, top1_std=0.3, latency_ms=30.0, latency_error_ms=1.0)
    sure = dict(headline(replace(summary, best=best, references=[reference])))["How sure"]
    assert verdict in sure
    assert "above the target" not in sure, "20 ms of room at an error of 1 ms"


def test_headline_without_references_errors_or_top1(summary: RunSummary) -> None:
    best = replace(summary.best, top1=None, top1_std=None, latency_error_ms=None)
    said = dict(headline(replace(summary, best=best, references=[], space=None)))
    assert set(said) == {"Asked", "Found"}
    assert "±?" in said["Found"]


def test_axis_labels_have_units_and_kinds(summary: RunSummary) -> None:
    assert x_label(summary).startswith("Latency on pixel1, ms (estimated ±")
    assert y_label(summary) == "Predicted ImageNet top-1, %"
    plain = replace(summary, top1_estimated=False, evaluator="MyEvaluator", device_kind="measured")
    assert y_label(plain) == "Top-1 by MyEvaluator, %"
    assert "measured whole" in x_label(plain)


def test_the_best_is_held_against_the_strongest_network_within_the_target(summary: RunSummary) -> None:
    first = replace(summary.references[0], name="over", top1=75.0, latency_ms=summary.target_latency_ms * 1.1)
    weak, strong = (
        replace(first, name=name, top1=top1, latency_ms=summary.target_latency_ms * 0.9)
        for name, top1 in (("weak", 71.0), ("strong", 73.0))
    )
    best = replace(summary.best, top1=73.5)
    said = dict(headline(replace(summary, best=best, references=[first, weak, strong])))
    assert said["Against"].startswith("0.5 points above strong")
    over = dict(headline(replace(summary, best=best, references=[first])))["Against"]
    assert "1.5 points below over" in over
    assert "over the target" in over


def test_times_are_compared_with_times(summary: RunSummary) -> None:
    best = replace(summary.best, latency_ms=45.0, measured_ms=44.0, measured_error_ms=0.2)
    reference = replace(summary.references[0], latency_ms=50.0, measured_ms=47.0, measured_error_ms=0.3)
    against = dict(headline(replace(summary, best=best, references=[reference])))["Against"]
    assert "3.0 ms faster" in against
    assert "47.00 ±0.30 ms timed whole" in against


def test_what_was_timed_is_the_headline(summary: RunSummary) -> None:
    """A sum of a small network's blocks was a third below what it took."""
    timed = replace(summary.best, latency_ms=0.106, latency_error_ms=0.012, measured_ms=0.15, measured_error_ms=0.003)
    found = dict(headline(replace(summary, best=timed)))["Found"]
    assert "at 0.150 ±0.003 ms timed whole" in found
    assert "0.106" not in found


def test_no_difference_is_called_level(summary: RunSummary) -> None:
    best = replace(summary.best, top1=74.96)
    reference = replace(summary.references[0], top1=75.0)
    assert dict(headline(replace(summary, best=best, references=[reference])))["Against"].startswith(
        "level with mobilenet_v3_large"
    )


def test_a_latency_that_was_timed_whole_is_not_doubted_as_a_sum(summary: RunSummary) -> None:
    timed = replace(summary.best, measured_ms=50.4, measured_error_ms=0.1)
    assert "above the target" not in dict(headline(replace(summary, best=timed))).get("How sure", "")


@pytest.mark.parametrize(
    ("measured_ms", "met", "words"),
    [
        (49.0, True, "PASS: timed whole the best takes 49.00 ±0.10 ms, 2.0 % below 50 ms"),
        (
            51.0,
            False,
            "FAIL: timed whole the best takes 51.00 ±0.10 ms, 2.0 % above 50 ms; it is the closest of 6 timed",
        ),
        (
            49.9,
            False,
            "FAIL: timed whole the best takes 49.90 ±0.10 ms, 0.2 % below 50 ms, but its spread does not leave 90 % "
            "confidence; it is the closest of 6 timed",
        ),
    ],
)
def test_a_measured_winner_passes_or_fails_with_its_spread(
    summary: RunSummary, measured_ms: float, met: bool, words: str
) -> None:
    timed = replace(summary.best, measured_ms=measured_ms, measured_error_ms=0.1)
    verdict = TargetVerdict(50.0, 0.9, met, 100 * (1 - measured_ms / 50), timed=6)
    said = dict(headline(replace(summary, best=timed, verdict=verdict)))
    assert said["Target"] == words
    assert said["Asked"].endswith("at most 50 ms on pixel1, with 90 % confidence")


def test_what_was_not_timed_neither_passes_nor_fails(summary: RunSummary) -> None:
    predicted = replace(summary, verdict=TargetVerdict(50.0, 0.5, None, 3.0))
    assert "Target" not in dict(headline(predicted))
    assert "confidence" not in dict(headline(predicted))["Asked"]


def test_no_confidence_is_rounded_to_certainty() -> None:
    assert [percent(share) for share in (0.9, 0.975, 0.9999, 0.5)] == ["90 %", "97.5 %", "99.9 %", "50 %"]


def test_nonsense_is_said_first_and_nothing_of_a_winner_is_sure(summary: RunSummary) -> None:
    timed = replace(summary.best, measured_ms=49.0, measured_error_ms=0.1)
    verdict = TargetVerdict(50.0, 0.9, met=True, margin_percent=2.0, timed=6)
    said = headline(replace(summary, best=timed, verdict=verdict, no_ranking="of the 9 networks none learnt"))
    assert said[0] == ("No ranking", "of the 9 networks none learnt")
    text = " ".join(sentence.text for sentence in said)
    assert "latency alone: within it: timed whole the best takes 49.00" in text
    assert "PASS" not in text
    assert "clear" not in text


def test_a_comparison_is_a_frame_of_its_networks(summary: RunSummary) -> None:
    groups = {"runs/today": [summary.best], "mobilenet_v2": summary.references[1:2]}
    frame = Comparison("pixel1", "estimated", "prior", True, groups, {}).to_frame()
    assert frame["group"].tolist() == ["runs/today", "mobilenet_v2"]
    assert frame["latency_ms"].tolist() == [summary.best.latency_ms, summary.references[1].latency_ms]
    assert frame["top1"].tolist() == [summary.best.top1, summary.references[1].top1]
    assert frame["published_top1"][1] == summary.references[1].published_top1
    assert frame["architecture"][0] == summary.best.architecture
    assert "address" not in frame
