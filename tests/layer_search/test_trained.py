"""NetAdapt with weights: what is kept, what it inherits, and that it goes on at any proposal to the same end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from trained_fakes import SIDE, fake_trained
from training_fakes import images, same_weights, weights_of

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.cost import count
from mnv3search.errors import InfeasibleError, TargetError, TrainingError
from mnv3search.families import published
from mnv3search.layer_search import NetAdaptOptions
from mnv3search.layer_search.journal import Journal
from mnv3search.layer_search.proposals import Proposal
from mnv3search.layer_search.scoring import (
    Score,
    Scored,
    ShortTerm,
    score_network,
    score_proposal,
    workers_for,
)
from mnv3search.layer_search.trained import TrainedNetAdaptResult, netadapt_trained, random_narrowings
from mnv3search.network.slicing import slice_network
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.evaluation import calibrate_norms, calibration_batches
from mnv3search.training.steps import plain_copy
from mnv3search.training.trained import TrainedNetwork

ARCHITECTURE = Architecture(
    StemSpec(8),
    (
        BlockSpec(3, 32, 8),
        BlockSpec(3, 64, 16, 2, "hard_swish", SqueezeExciteSpec(16)),
        BlockSpec(3, 64, 16, 1, "hard_swish"),
    ),
    HeadSpec(24),
    resolution=SIDE,
    classes=3,
)
SEED = fake_trained(ARCHITECTURE)
LEARN, HELD = images(12, seed=1, side=SIDE), images(10, seed=2, side=SIDE)
SHORT = ShortTerm(steps=2, batch_size=8, learning_rate=0.01, augmentation=Augmentation(flip=True))
LARGE = published("mobilenet_v3_large")
STEPS = NetAdaptOptions(step_fraction=0.1)


class Madds:
    """One millisecond for each ten thousand multiply-adds."""

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([count(a).madds / 1e4 for a in architectures])


class ByWidths:
    """Scores narrowings by a rule, without training: expansions of later blocks are worth little, the rest much."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked = 0
        self.stop_after = stop_after

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Proposal]]) -> Iterator[Scored]:
        for number, planned in proposals:
            if self.asked == self.stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            network = slice_network(before.network, planned.architecture)
            after = replace(before, architecture=planned.architecture, network=network, facts={})
            yield Scored(number, self._score(planned.architecture), after)

    def score_seed(self, trained: TrainedNetwork) -> Score:
        return self._score(trained.architecture)

    @staticmethod
    def _score(architecture: Architecture) -> Score:
        first, *others = architecture.blocks
        lost = 32 - first.expanded_channels + 0.01 * sum(64 - b.expanded_channels for b in others)
        lost += 8 - architecture.stem.out_channels + sum(16 - b.out_channels for b in others)
        return Score(80.0 - lost, 0.5 + lost / 100, 1000, trained=10, seconds=0.5)


def limit_ms() -> float:
    return 0.7 * float(Madds().latency_ms([SEED.architecture])[0])


def walk(memory: Journal, workers: ByWidths, limit: float, **options: object) -> TrainedNetAdaptResult:
    return netadapt_trained(memory, Madds(), limit, workers, options=STEPS, **options)  # type: ignore[arg-type]


def test_it_narrows_what_matters_least_and_keeps_every_network() -> None:
    memory = Journal(SEED)
    found = walk(memory, ByWidths(), limit_ms())
    assert found.reached
    assert found.latency_ms <= limit_ms() < found.seed_latency_ms
    final = found.steps[-1].step.architecture
    assert (final.blocks[0].expanded_channels, final.blocks[0].out_channels, final.blocks[2].out_channels) == (
        32,
        8,
        16,
    ), "what is worth much stays"
    before = found.seed_latency_ms
    for number, kept in enumerate(found.steps, start=1):
        assert kept.step.number == number
        assert kept.step.delta_latency_ms == pytest.approx(kept.step.latency_ms - before)
        assert -kept.step.delta_latency_ms >= kept.step.required_ms - 1e-9
        assert memory.network(number).architecture == kept.step.architecture
        assert memory.network(number).facts["netadapt_step"] == number
        assert (kept.trained, kept.seconds) == (10 * kept.step.proposals, 0.5 * kept.step.proposals)
        before = kept.step.latency_ms


def test_the_last_step_asks_for_no_more_than_is_missing() -> None:
    steps = walk(Journal(SEED), ByWidths(), limit_ms()).steps
    seed_ms = float(Madds().latency_ms([SEED.architecture])[0])
    assert steps[0].step.required_ms == pytest.approx(0.1 * seed_ms)
    assert steps[-1].step.required_ms <= 0.1 * seed_ms + 1e-12


@pytest.mark.parametrize("after", [0, 1, 4, 7, 9])
def test_interrupted_at_any_proposal_it_goes_on_to_the_same_end(after: int) -> None:
    whole = Journal(SEED)
    undisturbed = walk(whole, ByWidths(), limit_ms())
    memory = Journal(SEED)
    with pytest.raises(KeyboardInterrupt):
        walk(memory, ByWidths(stop_after=after), limit_ms())
    again = ByWidths()
    assert walk(memory, again, limit_ms()) == undisturbed
    assert again.asked == sum(s.step.proposals for s in undisturbed.steps) - after, "no proposal is scored twice"
    last = len(undisturbed.steps)
    assert same_weights(weights_of(memory.network(last).network), weights_of(whole.network(last).network))


def test_it_goes_on_to_a_lower_limit_from_where_it_stands() -> None:
    memory = Journal(SEED)
    first = walk(memory, ByWidths(), limit_ms())
    second = walk(memory, ByWidths(), 0.9 * limit_ms())
    assert second.steps[: len(first.steps)] == first.steps
    assert second.latency_ms <= 0.9 * limit_ms()


def test_an_impossible_target_is_refused_before_anything_is_scored() -> None:
    workers = ByWidths()
    with pytest.raises(InfeasibleError) as caught:
        walk(Journal(SEED), workers, 1e-6)
    assert workers.asked == 0
    assert 0 < caught.value.fastest_ms < caught.value.slowest_ms == float(Madds().latency_ms([SEED.architecture])[0])
    with pytest.raises(TargetError, match="above 0"):
        walk(Journal(SEED), workers, float("nan"))


def test_a_target_that_is_met_takes_no_step() -> None:
    found = walk(Journal(SEED), ByWidths(), 1e9)
    assert (found.reached, found.steps) == (True, ())


def narrower(width: int = 24) -> Architecture:
    first, second, third = SEED.architecture.blocks
    return replace(SEED.architecture, blocks=(first, second.resized(8, width, 16), third))


def test_without_steps_a_proposal_is_the_slice_itself() -> None:
    score, after = score_proposal(SEED, narrower(), 1, 0, LEARN, HELD, replace(SHORT, steps=0))
    assert same_weights(weights_of(after.network), weights_of(slice_network(SEED.network, narrower())))
    assert score.trained == 0
    assert score.images == len(HELD)
    assert (score.top1, score.loss) == pytest.approx((score_network(after, HELD).top1, score_network(after, HELD).loss))


def test_a_fine_tune_moves_the_slice_and_leaves_the_network_before_as_it_is() -> None:
    before = weights_of(SEED.network)
    score, after = score_proposal(SEED, narrower(), 1, 0, LEARN, HELD, SHORT)
    assert same_weights(weights_of(SEED.network), before)
    assert score.trained == 2 * 8
    assert not same_weights(weights_of(after.network), weights_of(slice_network(SEED.network, narrower())))
    momenta = {m.momentum for m in after.network.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {SEED.architecture.norm_momentum}, "quick statistics are for the fine-tune alone"
    assert not after.network.training


def test_a_proposal_is_scored_with_exact_statistics_of_the_images_it_learned_from() -> None:
    _, after = score_proposal(SEED, narrower(), 1, 0, LEARN, HELD, SHORT)
    again = plain_copy(after.network)
    calibrate_norms(again, calibration_batches(LEARN, SEED.preprocessing))
    found, exact = (
        [norm.running_mean for norm in network.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
        for network in (after.network, again)
    )
    assert len(found) > 3
    for mine, theirs in zip(found, exact, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, theirs)


def test_scores_follow_from_seed_step_and_proposal_alone() -> None:
    def scored(step: int, proposal: int, seed: int = 0) -> dict[str, torch.Tensor]:
        short = replace(SHORT, seed=seed)
        return weights_of(score_proposal(SEED, narrower(), step, proposal, LEARN, HELD, short)[1].network)

    torch.manual_seed(7)
    one = scored(1, 0)
    torch.manual_seed(8)
    assert same_weights(one, scored(1, 0))
    for other in (scored(2, 0), scored(1, 1), scored(1, 0, seed=1)):
        assert not same_weights(one, other)


def test_a_short_fine_tune_brings_back_what_a_cut_lost() -> None:
    learner = ShortTerm(steps=15, batch_size=12, learning_rate=0.04)
    _, trained = score_proposal(SEED, SEED.architecture, 1, 0, LEARN, HELD, learner)
    cut, _ = score_proposal(trained, narrower(), 2, 0, LEARN, HELD, replace(learner, steps=0))
    tuned, _ = score_proposal(trained, narrower(), 2, 0, LEARN, HELD, learner)
    assert tuned.loss < cut.loss


class LastFirst(ByWidths):
    """Answers in the opposite order, as processes beside one another may."""

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Proposal]]) -> Iterator[Scored]:
        yield from reversed(list(super().score(before, step, proposals)))


def test_the_order_in_which_proposals_are_scored_does_not_matter() -> None:
    one, other = Journal(SEED), Journal(SEED)
    found = walk(one, ByWidths(), limit_ms())
    assert walk(other, LastFirst(), limit_ms()) == found
    last = len(found.steps)
    assert same_weights(weights_of(one.network(last).network), weights_of(other.network(last).network))


def test_the_best_network_is_that_of_its_own_step_and_proposal() -> None:
    journal = Journal(SEED)
    journal.keep_score(1, 0, Score(80.0, 0.6, 100), SEED)
    assert journal.best(1, 0) is SEED
    assert journal.best(1, 1) is None
    assert journal.best(2, 0) is None


@pytest.mark.slow
def test_another_process_finds_what_this_one_finds() -> None:
    first, second = (Proposal("expansion", "block 2", narrower(width), 1.0) for width in (24, 16))
    answers = []
    for workers in (1, 2):  # one proposal at a time occupies one process: each takes seconds to begin
        with workers_for(SEED, LEARN, HELD, SHORT, workers) as scoring:
            (one,) = scoring.score(SEED, 1, [(3, first)])
            (two,) = scoring.score(one.trained, 2, [(0, second)])
            answers.append((one, two))
    for here, there in zip(*answers, strict=True):
        assert (there.number, there.trained.architecture) == (here.number, here.trained.architecture)
        assert replace(there.score, seconds=0.0) == replace(here.score, seconds=0.0)
        assert same_weights(weights_of(there.trained.network), weights_of(here.trained.network))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ShortTerm(steps=-1), "0 to 1,000,000"),
        (lambda: ShortTerm(batch_size=0), "1 to 65,536"),
        (lambda: ShortTerm(learning_rate=0.0), "above 0"),
        (lambda: ShortTerm(seed=-1), "from 0"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], ShortTerm], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        make()


def test_workers_are_one_to_256() -> None:
    with pytest.raises(TrainingError, match="1 to 256"), workers_for(SEED, LEARN, HELD, SHORT, 0):
        pass


def test_narrowings_to_calibrate_on_are_repeatable_and_narrower() -> None:
    found = random_narrowings(LARGE, 12)
    assert found == random_narrowings(LARGE, 12)
    assert found != random_narrowings(LARGE, 12, seed=1)
    assert len(set(found)) == 12
    for network in found:
        widths = [(a.expanded_channels, b.expanded_channels) for a, b in zip(network.blocks, LARGE.blocks, strict=True)]
        widths += [(a.out_channels, b.out_channels) for a, b in zip(network.blocks, LARGE.blocks, strict=True)]
        assert all(narrow <= wide for narrow, wide in widths)
        assert any(narrow < wide for narrow, wide in widths)
