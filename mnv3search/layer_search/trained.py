"""NetAdapt as published: every proposal inherits the weights, is trained briefly and scored on held-out images.

Sources: NetAdapt (Yang et al. 2018, arXiv:1804.03230) and its use in MobileNetV3 (Howard et al. 2019, section 4.2).
The long fine-tune that follows is a training like any other, and no part of this.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture
from mnv3search.latency.model import LatencyModel, Progress, checked_target
from mnv3search.layer_search.journal import Journal, TrainedStep, TrainedSteps, finished_step
from mnv3search.layer_search.netadapt import MAX_STEPS, NetAdaptOptions, check_reachable, latencies_ms, plan_step
from mnv3search.layer_search.proposals import Plan, narrow, sites
from mnv3search.layer_search.result import Step, StepsResult
from mnv3search.layer_search.scoring import Choice, Score, choose

if TYPE_CHECKING:
    from mnv3search.layer_search.scoring import Workers
    from mnv3search.training.trained import TrainedNetwork

CALIBRATION_NETWORKS = 16
CALIBRATION_SEED = 1905  # apart from the seeds of runs


def random_narrowings(architecture: Architecture, count: int, seed: int = CALIBRATION_SEED) -> list[Architecture]:
    """``count`` narrowings, from a few sites to most of them, each to any width but the least quarter.

    The same for one seed; where there are few widths to choose from, some may be equal.
    """
    rng = random.Random(seed)  # noqa: S311  # a draw that anyone can repeat, and no secret
    return [_narrowed(architecture, rng) for _ in range(count)]


def _narrowed(network: Architecture, rng: random.Random) -> Architecture:
    share = rng.uniform(0.2, 0.9)
    for site in sites(network):
        count = len(site.widths(8))
        if not count or rng.random() >= share:
            continue
        # found anew: what was narrowed before may have joined or parted its residual group
        now = next((s for s in sites(network) if (s.kind, s.members) == (site.kind, site.members)), None)
        if now is not None and now.widths(8):
            network = narrow(network, now, rng.choice(now.widths(8)[: count * 3 // 4 + 1]))
    return network


@dataclass(frozen=True, slots=True, repr=False)
class TrainedNetAdaptResult(StepsResult):
    """What NetAdapt with weights did.

    Attributes:
        seed, seed_latency_ms: the trained network's score on the held-out images, and its latency.
        latency_ms: of the last network; ``reached`` is whether that meets the limit.
    """

    seed: Score
    seed_latency_ms: float
    steps: TrainedSteps
    latency_ms: float
    reached: bool

    def summary(self) -> str:
        """As :class:`StepsResult`."""
        ends = "the limit is met" if self.reached else "the limit is missed"
        return (
            f"TrainedNetAdaptResult: {ends} after {len(self.steps)} steps: "
            f"{self.seed_latency_ms:.3f} → {self.latency_ms:.3f} ms; "
            f"held-out top-1 was {self.seed.top1:.2f} ±{self.seed.top1_std:.2f} before"
        )


OnPlan = Callable[[int, Plan, float], None]
"""Called with the step, what it tries, and the latency in milliseconds of the network before it."""
OnProposal = Callable[[int, int, int, Score], None]
"""Called with the step, how many of its proposals are scored, how many there are, and the most accurate's score."""


def netadapt_trained(
    journal: Journal,
    latency: LatencyModel,
    limit_ms: float,
    workers: Workers,
    *,
    options: NetAdaptOptions | None = None,
    on_plan: OnPlan | None = None,
    on_proposal: OnProposal | None = None,
    on_step: Callable[[TrainedStep], None] | None = None,
    on_pricing: Progress | None = None,
) -> TrainedNetAdaptResult:
    """Narrow the journal's network until its latency is within ``limit_ms``, from the journal's last step on.

    Every step takes, for each site that can be narrowed, the widest network that is at least δ faster; each inherits
    the weights, is trained for T steps and scored on held-out images; one is kept, with its weights. The last step asks
    for no more than is missing. ``workers`` are made by :func:`~mnv3search.layer_search.scoring.workers_for`.

    Raises:
        TargetError: the limit is not a positive, finite number.
        InfeasibleError: even the narrowest network is above it; raised before anything is trained.
    """
    limit_ms = checked_target(limit_ms)
    options = options or NetAdaptOptions()
    seed, seed_ms = _seed(journal, latency, limit_ms, workers, options, on_pricing)
    loop = _Loop(journal, latency, limit_ms, workers, options, seed, seed_ms, on_plan, on_proposal, on_pricing)
    while loop.latency_ms > limit_ms and len(journal.steps()) < MAX_STEPS:
        step = loop.next_step()
        if step is None:
            break
        if on_step is not None:
            on_step(step)
    return TrainedNetAdaptResult(
        seed, seed_ms, TrainedSteps(journal.steps()), loop.latency_ms, loop.latency_ms <= limit_ms
    )


def _seed(
    journal: Journal, latency: LatencyModel, limit_ms: float, workers: Workers, options: NetAdaptOptions,
    progress: Progress | None,
) -> tuple[Score, float]:  # fmt: skip
    known, network = journal.seed(), journal.network(0)
    seed_ms = latencies_ms(latency, [network.architecture], progress)[0] if known is None else known[1]
    last = [s.step.latency_ms for s in journal.steps()][-1:]
    if not last or last[0] > limit_ms:
        check_reachable(network.architecture, seed_ms, latency, limit_ms, options, progress)
    if known is not None:
        return known
    score = workers.score_seed(network)
    journal.keep_seed(score, seed_ms)
    return score, seed_ms


@dataclass(slots=True)
class _Loop:
    """The step that is being made; all else is the journal's."""

    journal: Journal
    latency: LatencyModel
    limit_ms: float
    workers: Workers
    options: NetAdaptOptions
    seed: Score
    seed_ms: float
    on_plan: OnPlan | None
    on_proposal: OnProposal | None
    on_pricing: Progress | None

    @property
    def latency_ms(self) -> float:
        steps = self.journal.steps()
        return steps[-1].step.latency_ms if steps else self.seed_ms

    def next_step(self) -> TrainedStep | None:
        """The next step, kept; None where no site can be narrowed by as much as it asks."""
        number = len(self.journal.steps()) + 1
        before = self.journal.network(number - 1)
        plan = self._plan(number, before)
        if not plan.proposals:
            return None
        if self.on_plan is not None:
            self.on_plan(number, plan, self.latency_ms)
        score_before = self._score_before()
        choice = self._score_all(number, before, plan, score_before)
        scores = self.journal.scores(number)
        winner = self.journal.best(number, choice.number)
        if winner is None:  # its file was lost, or a later one replaced it as a kill came: made again, alike
            wanted = (choice.number, plan.proposals[choice.number])
            winner = next(iter(self.workers.score(before, number, [wanted]))).trained
        step = finished_step(number, plan, scores, choice, (score_before.top1, self.latency_ms))
        self.journal.keep_step(step, choice.number, replace(winner, facts=_facts(step.step)))
        return step

    def _score_before(self) -> Score:
        steps = self.journal.steps()
        if not steps:
            return self.seed
        last = steps[-1]
        return Score(last.step.top1, last.loss, self.seed.images)

    def _plan(self, number: int, before: TrainedNetwork) -> Plan:
        plan = self.journal.plan(number)
        if plan is None:
            required = self.options.cut_ms(self.seed_ms, number - 1, self.latency_ms - self.limit_ms)
            plan = plan_step(
                before.architecture, self.latency_ms, self.latency, required, self.options.divisor, self.on_pricing
            )
            self.journal.keep_plan(number, plan)
        return plan

    def _score_all(self, number: int, before: TrainedNetwork, plan: Plan, score_before: Score) -> Choice:
        scores = dict(self.journal.scores(number))
        left = [(n, proposal) for n, proposal in enumerate(plan.proposals) if n not in scores]
        rule = self.options.selection
        choice = choose(plan, scores, score_before, self.latency_ms, rule)
        for done in self.workers.score(before, number, left):
            scores[done.number] = done.score
            choice = choose(plan, scores, score_before, self.latency_ms, rule)
            best = choice is not None and choice.number == done.number
            self.journal.keep_score(number, done.number, done.score, done.trained if best else None)
            if self.on_proposal is not None:
                most_accurate = max(scores.values(), key=lambda score: score.top1)
                self.on_proposal(number, len(scores), len(plan.proposals), most_accurate)
        assert choice is not None
        return choice


def _facts(step: Step) -> dict[str, object]:
    """What is kept with the network of a step."""
    return {
        "netadapt_step": step.number, "change": step.change, "held_out_top1": step.top1,
        "held_out_top1_std": step.top1_std, "latency_ms": step.latency_ms,
    }  # fmt: skip
