"""NetAdapt over toy truths whose best choice can be worked out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.cost import count
from mnv3search.errors import (
    ArchitectureError,
    DeviceError,
    EvaluatorError,
    InfeasibleError,
    Mnv3SearchError,
    TargetError,
)
from mnv3search.families import published
from mnv3search.layer_search import NetAdaptOptions, netadapt
from mnv3search.layer_search.netadapt import widest_within
from mnv3search.layers import Unit

LARGE = published("mobilenet_v3_large")


class MaddsLatency:
    """One millisecond for each four million multiply-adds."""

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([count(a).madds / 4e6 for a in architectures])


class WeightedWidths:
    """A score: 50 plus a weight for each expanded channel, and one for each bottleneck channel."""

    capabilities = Capabilities(score_name="weighted widths")

    def __init__(self, weights: Sequence[float], bottleneck: float = 0.0) -> None:
        self.weights = weights
        self.bottleneck = bottleneck
        self.asked = 0

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        self.asked += len(architectures)
        return [Evaluation(self.top1(a), 0.5) for a in architectures]

    def top1(self, a: Architecture) -> float:
        expanded = sum(w * b.expanded_channels for w, b in zip(self.weights, a.blocks, strict=True))
        bottlenecks: int = a.stem.out_channels + sum(b.out_channels for b in a.blocks)
        return 50 + float(expanded) + self.bottleneck * bottlenecks


def two_blocks() -> Architecture:
    """Two blocks that cost alike: 32 → 64 → 32 at 8×8, after a stem of 32 channels at stride 1."""
    block = BlockSpec(3, 64, 32)
    return Architecture(StemSpec(32, stride=1), (block, block), HeadSpec(None), resolution=8, classes=10)


def test_it_narrows_the_layer_whose_channels_matter_least() -> None:
    result = netadapt(two_blocks(), MaddsLatency(), WeightedWidths([0.1, 0.001], bottleneck=1.0), 0.13)
    assert result.reached
    assert {s.change.split(":")[0] for s in result.steps} == {"expansion of block 1"}
    assert result.final.architecture.blocks[0].expanded_channels == 64
    assert result.final.latency_ms <= 0.13 < result.seed.latency_ms


def test_every_step_cuts_at_least_what_it_must_and_the_last_no_more_than_is_missing() -> None:
    target = 40.0
    result = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), target)
    assert result.steps
    before = result.seed.latency_ms
    for step in result.steps:
        assert step.required_ms <= 0.01 * result.seed.latency_ms + 1e-12
        assert before - step.latency_ms >= step.required_ms - 1e-9
        assert step.delta_latency_ms == pytest.approx(step.latency_ms - before)
        before = step.latency_ms
    assert [s.number for s in result.steps] == list(range(1, len(result.steps) + 1))
    assert result.steps[-2].latency_ms > target >= result.final.latency_ms
    assert result.final.origin == "netadapt"
    assert result.final.madds == count(result.final.architecture).madds


def test_all_widths_stay_multiples_of_eight_and_residuals_hold() -> None:
    final = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 30.0).final.architecture
    widths = [final.stem.out_channels, *(w for b in final.blocks for w in (b.expanded_channels, b.out_channels))]
    assert all(w % 8 == 0 for w in widths)
    assert [i for i, (b, c) in enumerate(zip(final.blocks, final.in_channels(), strict=True)) if b.has_residual(c)] == [
        i for i, (b, c) in enumerate(zip(LARGE.blocks, LARGE.in_channels(), strict=True)) if b.has_residual(c)
    ]


def test_both_kinds_of_proposal_are_judged() -> None:
    result = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 53.0)
    # 14 expansions and 6 bottlenecks; each can cut 1 % by itself but for those that are too small to
    assert 10 <= result.steps[0].proposals <= 20
    widths_matter = netadapt(LARGE, MaddsLatency(), WeightedWidths([1.0] * 15), 53.0)
    assert {s.kind for s in widths_matter.steps} == {"bottleneck"}  # narrowing a bottleneck costs no expanded channel


def test_the_two_selection_rules_differ_as_their_formulas_say() -> None:
    class UnevenLatency:
        """Block 0: 1 ms a channel. Block 1: 3 ms a channel, but nothing until 32 are gone. Bottlenecks: 100 ms each."""

        def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
            return np.array([self.of(a) for a in architectures])

        def of(self, a: Architecture) -> float:
            gone = 64 - a.blocks[1].expanded_channels
            bottlenecks = a.stem.out_channels + sum(b.out_channels for b in a.blocks)
            return float(1000 + 100 * bottlenecks + a.blocks[0].expanded_channels - (3 * gone if gone >= 32 else 0))

    seed = two_blocks()
    start = UnevenLatency().of(seed)
    truth = WeightedWidths([0.010, 0.005], bottleneck=1.0)
    # the widest that cut 8 ms: block 0 loses 8 channels: -0.08 points for -8 ms, 0.01 a millisecond;
    # block 1 loses 32: -0.16 points for -96 ms, 0.0017 a millisecond
    kept = {
        rule: netadapt(seed, UnevenLatency(), truth, start - 8, options=NetAdaptOptions(8 / start, selection=rule))
        for rule in ("ratio", "accuracy")
    }
    assert [s.change for s in kept["ratio"].steps] == ["expansion of block 1: 64 → 32"]
    assert [s.change for s in kept["accuracy"].steps] == ["expansion of block 0: 64 → 56"]


def test_decay_shrinks_what_a_step_must_cut() -> None:
    options = NetAdaptOptions(step_fraction=0.025, decay=0.9)
    result = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 48.0, options=options)
    asked = [s.required_ms for s in result.steps[:-1]]
    assert asked == pytest.approx([0.025 * result.seed.latency_ms * 0.9**i for i in range(len(asked))])


def test_a_resumed_run_takes_the_same_steps_and_asks_less() -> None:
    whole_evaluator = WeightedWidths([0.01] * 15)
    whole = netadapt(LARGE, MaddsLatency(), whole_evaluator, 45.0)
    rest_evaluator = WeightedWidths([0.01] * 15)
    rest = netadapt(LARGE, MaddsLatency(), rest_evaluator, 45.0, resume=whole.steps[:7])
    assert rest.steps == whole.steps
    assert rest.final == whole.final
    assert rest_evaluator.asked < whole_evaluator.asked


def test_a_seed_within_the_target_needs_no_step() -> None:
    result = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 60.0)
    assert (result.steps, result.reached, result.final.architecture) == ((), True, LARGE)


def test_a_target_below_the_narrowest_network_is_refused_at_once_with_both_figures() -> None:
    evaluator = WeightedWidths([0.01] * 15)
    with pytest.raises(InfeasibleError) as caught:
        netadapt(LARGE, MaddsLatency(), evaluator, 0.5)
    assert caught.value.fastest_ms > 0.5
    assert caught.value.slowest_ms == pytest.approx(count(LARGE).madds / 4e6)
    assert evaluator.asked == 1


def test_steps_that_cannot_sum_to_the_cut_are_refused() -> None:
    with pytest.raises(Mnv3SearchError, match="raise the step or the decay"):
        netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 27.0, options=NetAdaptOptions(0.01, 0.5))


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_that_are_none(target: float) -> None:
    with pytest.raises(TargetError):
        netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), target)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"step_fraction": 0}, "step fraction"), ({"decay": 1.5}, "decay"), ({"selection": "luck"}, "selection"),
     ({"divisor": 0}, "divisor"), ({"divisor": 8.0}, "divisor"),
     ({"decay": "1"}, "decay"), ({"selection": []}, "selection")],
)  # fmt: skip
def test_options_out_of_range_name_themselves(options: dict[str, Any], word: str) -> None:
    with pytest.raises(Mnv3SearchError, match=word):
        NetAdaptOptions(**options)


def test_an_evaluator_that_gives_nan_is_named() -> None:
    class Broken:
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
            return [Evaluation(float("nan")) for _ in architectures]

    with pytest.raises(EvaluatorError, match="Broken"):
        netadapt(LARGE, MaddsLatency(), Broken(), 40.0)


@pytest.mark.parametrize("answer", [[float("nan")], [-1.0], [0.0], [1.0, 2.0]])
def test_a_latency_model_that_gives_no_latency_is_named(answer: list[float]) -> None:
    class Broken:
        def latency_ms(self, architectures: Sequence[Architecture]) -> list[float]:
            return answer

    with pytest.raises(DeviceError, match="Broken gave"):
        netadapt(LARGE, Broken(), WeightedWidths([0.01] * 15), 40.0)  # type: ignore[arg-type]


def test_what_is_no_evaluator_is_named() -> None:
    with pytest.raises(EvaluatorError, match="evaluate"):
        netadapt(LARGE, MaddsLatency(), object(), 40.0)  # type: ignore[arg-type]


def test_an_answer_that_is_no_evaluation_is_named() -> None:
    class Plain:
        def evaluate(self, architectures: Sequence[Architecture]) -> list[float]:
            return [75.0 for _ in architectures]

    with pytest.raises(EvaluatorError, match=r"Plain gave float 75\.0; give an Evaluation"):
        netadapt(LARGE, MaddsLatency(), Plain(), 40.0)  # type: ignore[arg-type]


class Staircase:
    """Milliseconds by a table over block 0's expanded channels, in eights; all else costs the same."""

    def __init__(self, by_eights: Sequence[float]) -> None:
        self.by_eights = by_eights

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([10 + self.by_eights[a.blocks[0].expanded_channels // 8 - 1] for a in architectures])


class PricedStaircase(Staircase):
    """The same as a sum over units."""

    fixed_ms = 10.0

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        first = next(part for part in parts if isinstance(part.spec, BlockSpec))
        eights = [self.by_eights[part.spec.expanded_channels // 8 - 1] if part is first else 0.0 for part in parts]  # type: ignore[union-attr]
        return np.array(eights)


def wide_block(channels: int) -> Architecture:
    block = BlockSpec(3, channels, 32, expansion="always")
    return Architecture(StemSpec(32, stride=1), (block,), HeadSpec(None), resolution=8, classes=10)


def first_expansion(architecture: Architecture, latency: Staircase, limit_ms: float) -> int | None:
    found = widest_within(architecture, latency, limit_ms, 8)
    return next((p.architecture.blocks[0].expanded_channels for p in found if p.kind == "expansion"), None)


def test_the_widest_that_is_fast_enough_is_found_where_odd_multiples_of_eight_are_slower() -> None:
    # 8 to 64 channels: 32 takes 4 ms, 40 takes 5.8, 48 takes 5, 56 takes 6.8, 64 takes 8
    stairs = Staircase([2.8, 2, 3.8, 4, 5.8, 5, 6.8, 8])
    assert first_expansion(wide_block(64), stairs, 15.5) == 48
    step = netadapt(
        wide_block(64), stairs, WeightedWidths([0.1]), 15.5, options=NetAdaptOptions(2.5 / 18, selection="accuracy")
    ).steps[0]
    assert (step.change, step.latency_ms) == ("expansion of block 0: 64 → 48", 15.0)


@given(
    st.lists(st.floats(0.0, 20.0), min_size=2, max_size=24),
    st.floats(0.1, 35.0),
    st.sampled_from([Staircase, PricedStaircase]),
)
def test_the_widest_that_is_fast_enough_is_found_whatever_the_shape(
    by_eights: list[float], limit_ms: float, kind: type[Staircase]
) -> None:
    seed = wide_block(8 * len(by_eights))
    fitting = [8 * n for n, ms in enumerate(by_eights[:-1], start=1) if 10 + ms <= limit_ms]
    assert first_expansion(seed, kind(by_eights), limit_ms) == max(fitting, default=None)


def test_a_width_that_just_fits_is_found_where_all_else_takes_nearly_the_limit() -> None:
    # all else takes 10 ms, so that 0.5 ms are left: 8 channels take 0.2, 16 take 1
    assert first_expansion(wide_block(24), PricedStaircase([0.2, 1.0, 8.0]), 10.5) == 8


def test_what_no_width_can_cut_is_not_priced() -> None:
    class Counted(PricedStaircase):
        asked = 0

        def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
            self.asked += len(architectures)
            return super().latency_ms(architectures)

    latency = Counted([1.0] * 16)
    assert widest_within(wide_block(128), latency, 9.0, 8) == []
    assert latency.asked == 0


def test_a_target_that_only_a_wider_network_than_the_narrowest_meets_is_not_refused() -> None:
    stairs = Staircase([6, 2, 3.8, 4, 5.8, 5, 6.8, 8])  # 8 channels take 6 ms, 16 take 2
    assert netadapt(wide_block(64), stairs, WeightedWidths([0.1]), 12.5).reached
    with pytest.raises(InfeasibleError, match="fastest that was found takes 12"):
        netadapt(wide_block(64), stairs, WeightedWidths([0.1]), 11.5)


def test_steps_are_a_table_for_programs_and_for_notebooks() -> None:
    result = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 52.0)
    frame = result.to_frame()
    assert list(frame["change"]) == [step.change for step in result.steps]
    assert list(frame["latency_ms"]) == [step.latency_ms for step in result.steps]
    assert frame["architecture"].iloc[-1] == result.final.architecture
    assert repr(result).startswith(f"NetAdaptResult: the target is met after {len(result.steps)} steps: 54.1")
    assert result.steps[0].change in repr(result)
    assert "<table" in result._repr_html_()
    none = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 60.0)
    assert (len(none.to_frame()), list(none.to_frame().columns)) == (0, list(frame.columns))
    assert "no steps" in repr(none)
    assert "no steps" in none._repr_html_()


def test_numpy_numbers_are_numbers_and_texts_are_not() -> None:
    options = NetAdaptOptions(np.float32(0.025), np.int64(1), divisor=np.int32(8))  # type: ignore[arg-type]
    assert (type(options.step_fraction), type(options.divisor)) == (float, int)
    by_numpy = netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), np.float32(50.0), options=options)  # type: ignore[arg-type]
    same = NetAdaptOptions(float(np.float32(0.025)))
    assert by_numpy.steps == netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), 50.0, options=same).steps
    with pytest.raises(TargetError, match="number of milliseconds"):
        netadapt(LARGE, MaddsLatency(), WeightedWidths([0.01] * 15), "50ms")  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="architecture"):
        netadapt([LARGE], MaddsLatency(), WeightedWidths([0.01] * 15), 50.0)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="latency_ms"):
        netadapt(LARGE, "pixel1", WeightedWidths([0.01] * 15), 50.0)  # type: ignore[arg-type]
