"""Trainings that are given up: by Optuna's pruners with one objective, by dominance with two, and across sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_fakes import EffectEvaluator, UnitLatency, small_space

from mnv3search.accuracy.evaluator import Capabilities, Evaluation, Report
from mnv3search.architecture import Architecture
from mnv3search.block_search import search
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.search import SearchResult
from mnv3search.block_search.stopping import expected_top1, stopping_rule
from mnv3search.block_search.study import Outcome
from mnv3search.errors import EvaluatorError, Mnv3SearchError, TargetError, UnknownNameError

EPOCHS = 4
SPACE = small_space("large")
TARGET_MS = 30.0


class Training:
    """Reaches its true top-1 in four equal steps; knows whom it trained, and for how many epochs."""

    capabilities = Capabilities(trains=True)

    def __init__(self) -> None:
        self.epochs: dict[Architecture, int] = {}

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        return [self.evaluate_until(architecture, lambda _: False) for architecture in architectures]

    def evaluate_until(
        self, architecture: Architecture, should_prune: Callable[[Sequence[Report]], bool]
    ) -> Evaluation:
        assert architecture not in self.epochs, "trained twice"
        end, reports = EffectEvaluator.top1(architecture), []
        for epoch in range(1, EPOCHS + 1):
            reports.append((epoch, end * epoch / EPOCHS))
            self.epochs[architecture] = epoch
            if epoch < EPOCHS and should_prune(tuple(reports)):
                return Evaluation(reports[-1][1], 1.0, tuple(reports), stopped=True)
        return Evaluation(end, 1.0, tuple(reports))


def outcome(status: str, latency_ms: float, *reached: float) -> Outcome:
    reports = tuple((epoch, top1) for epoch, top1 in enumerate(reached, start=1))
    return Outcome(np.zeros(1, dtype=np.int64), status, latency_ms, reached[-1], 1.0, (reached[-1],), reports=reports)  # type: ignore[arg-type]


def test_the_median_pruner_saves_epochs_and_its_networks_are_no_candidates() -> None:
    evaluator = Training()
    found = search(SPACE, UnitLatency(), evaluator, TARGET_MS, 30, sampler="random")
    assert found.evaluated == len(evaluator.epochs) == 30
    assert 3 <= found.stopped <= 25
    assert len(found.candidates) == 30 - found.stopped
    assert sum(epochs < EPOCHS for epochs in evaluator.epochs.values()) == found.stopped
    assert found.best.top1 == max(EffectEvaluator.top1(a) for a in evaluator.epochs)
    assert all(c.top1 == EffectEvaluator.top1(c.architecture) for c in found.candidates)


@pytest.mark.parametrize("pruner", ["none", "halving", "dominated"])
def test_the_rule_is_a_choice(pruner: str) -> None:
    evaluator = Training()
    found = search(SPACE, UnitLatency(), evaluator, TARGET_MS, 20, sampler="random", pruner=pruner)
    assert found.evaluated == 20
    assert (found.stopped == 0) is (pruner == "none")


@pytest.mark.parametrize(
    ("objectives", "sampler"), [(1, "tpe"), (1, "random"), (1, "evolution"), (2, "tpe"), (2, "nsga2")]
)
def test_a_resumed_search_trains_nothing_again_and_knows_what_was_given_up(
    tmp_path: Path, objectives: int, sampler: str
) -> None:
    evaluator, storage = Training(), tmp_path / "study.log"

    def some(trials: int) -> SearchResult:
        return search(
            SPACE, UnitLatency(), evaluator, TARGET_MS, trials, sampler=sampler, storage=storage,
            objectives=objectives,  # type: ignore[arg-type]
        )  # fmt: skip

    first, second = some(16), some(32)
    assert first.evaluated == 16
    assert second.evaluated == len(evaluator.epochs) == 32
    assert second.stopped == sum(epochs < EPOCHS for epochs in evaluator.epochs.values()) > 0
    assert {c.architecture for c in first.candidates} <= {c.architecture for c in second.candidates}


def test_the_study_shows_pruned_trials_with_their_values(tmp_path: Path) -> None:
    found = search(SPACE, UnitLatency(), Training(), TARGET_MS, 24, sampler="random", storage=tmp_path / "study.log")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    (study,) = (optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage))
    states = [trial.state for trial in study.trials]
    assert states.count(optuna.trial.TrialState.PRUNED) == found.stopped > 0
    trained = [trial for trial in study.trials if trial.user_attrs["status"] in {"evaluated", "stopped"}]
    assert len(trained) == 24
    assert all(len(trial.intermediate_values) == len(trial.user_attrs["reports"]) >= 1 for trial in trained)


def test_optimistic_ends_decide_with_two_objectives() -> None:
    rule = stopping_rule("auto", Objective(10.0, objectives=2))
    assert rule is not None
    for end in (70.0, 68.0, 66.0, 64.0):
        rule.learn(outcome("evaluated", 5.0, 30.0, end))
    assert not rule.should_prune([(1, 1.0)], 9.0)  # too few have finished
    rule.learn(outcome("evaluated", 8.0, 40.0, 75.0))
    # the largest gain from epoch 1 is 40
    assert rule.should_prune([(1, 29.9)], 5.0)
    assert not rule.should_prune([(1, 30.0)], 5.0)
    assert not rule.should_prune([(1, 5.0)], 4.9)  # nothing that finished is as fast
    assert rule.should_prune([(1, 34.9)], 8.0)
    rule.learn(outcome("stopped", 1.0, 99.0))
    assert not rule.should_prune([(1, 5.0)], 1.0)  # what was given up beats nobody


def test_optunas_pruners_need_one_objective() -> None:
    with pytest.raises(Mnv3SearchError, match="dominated"):
        stopping_rule("median", Objective(10.0, objectives=2))
    with pytest.raises(UnknownNameError, match="median"):
        stopping_rule("medium", Objective(10.0))


class Score:
    """A score below 0, on a scale of its own."""

    capabilities = Capabilities(score_name="loss, turned round")

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        return [Evaluation(1e4 * (EffectEvaluator.top1(a) - 100.0)) for a in architectures]


@pytest.mark.parametrize("sampler", ["random", "tpe", "evolution"])
def test_scores_below_zero_are_maximised_within_the_target(sampler: str) -> None:
    found = search(SPACE, UnitLatency(), Score(), TARGET_MS, 40, sampler=sampler)
    truths = search(SPACE, UnitLatency(), EffectEvaluator(), TARGET_MS, 40, sampler="random")
    assert found.best.top1 == max(c.top1 for c in found.candidates) < 0
    if sampler == "random":  # the same rows are asked, so the same network wins on either scale
        assert found.best.architecture == truths.best.architecture


def test_a_score_is_never_multiplied() -> None:
    objective = Objective(10.0, score=True)
    assert objective.values(-5.0, 2.0) == objective.values(-5.0, 9.0) == (-5.0,)
    assert Objective(10.0, objectives=2, hard=False, score=True).values(-5.0, 2.0) == (-5.0, 2.0)
    with pytest.raises(TargetError, match="objectives=2"):
        search(SPACE, UnitLatency(), Score(), TARGET_MS, 5, hard=False)


def test_a_stopped_training_is_expected_to_gain_what_finished_ones_did() -> None:
    finished = [outcome("evaluated", 5.0, 30.0, end) for end in (60.0, 70.0, 80.0)]  # they gained 30, 40 and 50
    stopped, early = outcome("stopped", 5.0, 25.0), outcome("refused", 5.0, 0.0)
    assert expected_top1([*finished, stopped, early]) == [60.0, 70.0, 80.0, 65.0, None]
    assert expected_top1([stopped]) == [None]


def test_optuna_is_told_that_a_repeat_of_a_stopped_network_was_pruned(tmp_path: Path) -> None:
    space, evaluator, storage = small_space("widths"), Training(), tmp_path / "study.log"
    found = search(space, UnitLatency(), evaluator, 1e6, 40, sampler="tpe", storage=storage)
    journal = JournalStorage(JournalFileBackend(str(storage)))
    study = optuna.load_study(study_name=space.name, storage=journal)
    stopped = [space.decode(t.params) for t in study.trials if t.user_attrs["status"] == "stopped"]
    repeats = [t for t in study.trials if t.user_attrs["status"] == "duplicate" and space.decode(t.params) in stopped]
    assert found.stopped > 0
    assert repeats
    assert {t.state for t in repeats} == {optuna.trial.TrialState.PRUNED}


class Diverging(Training):
    """Every training of it diverges."""

    def evaluate_until(
        self, architecture: Architecture, should_prune: Callable[[Sequence[Report]], bool]
    ) -> Evaluation:
        return Evaluation(1.0, None, ((1, 1.0),), stopped=True)


def test_a_search_whose_trainings_all_diverge_says_so(tmp_path: Path) -> None:
    for _ in range(2):  # a resumed one too
        with pytest.raises(EvaluatorError, match=r"gave all \d+ networks up: .*check the images"):
            search(SPACE, UnitLatency(), Diverging(), TARGET_MS, 3, sampler="random", storage=tmp_path / "study.log")
