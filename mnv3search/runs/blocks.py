"""The block-search stage of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.block_search import reward, search
from mnv3search.block_search.feasibility import Feasibility, assess
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.candidate import Candidate
from mnv3search.runs.aim import Aim
from mnv3search.runs.bench import Bench

if TYPE_CHECKING:
    from mnv3search.block_search import SearchProgress
    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class BlockStage:
    """What the block search gave.

    Attributes:
        candidates: every evaluated network.
        ranked: the same, best first.
        finalists: the best within (1 + slack) times the limit of each, best first, for NetAdapt; empty for block search
            alone.
        feasibility: the space's range; its fastest network is within the target.
    """

    candidates: Sequence[Candidate]
    ranked: Sequence[Candidate]
    finalists: Sequence[Candidate]
    feasibility: Feasibility
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A space priced: its latencies by row, and its range."""

    rows: RowLatency
    feasibility: Feasibility


def bounded(bench: Bench, space: SearchSpace, aim: Aim) -> Bounds:
    """The range of ``space``, in which the aim can be met; nothing is evaluated.

    Raises:
        InfeasibleError: no network of the space meets the target with the confidence that was asked for.
    """
    bench.progress.stage("bounding the space's latency")
    rows = RowLatency(space, bench.judge.device, bench.judge.told)
    feasibility = assess(space, rows, bench.folder.settings.seed)
    aim.require(feasibility)
    return Bounds(rows, feasibility)


def block_stage(bench: Bench, space: SearchSpace, aim: Aim, bounds: Bounds) -> BlockStage:
    """Search ``space`` at (1 + slack) times what the aim allows (block search alone: at what it allows)."""
    settings, judge, progress = bench.folder.settings, bench.judge, bench.progress
    rows, feasibility = bounds.rows, bounds.feasibility
    adapts = settings.kind == "run" and settings.finalists > 0
    slack = settings.slack if adapts else 0.0
    bench.decisions.check("block_search_limit_ms", *aim.limits_range_ms(slack))
    limit_ms = bench.decisions.fix(
        "block_search_limit_ms",
        lambda: (1 + slack) * aim.search_limit_ms(space, rows, settings.seed, feasibility.fastest_ms),
    )
    progress.stage(f"block search within {limit_ms:.4g} ms", settings.trials)
    result = search(
        space, judge.device, bench.memory, limit_ms, settings.trials, settings.seed, sampler=settings.sampler,
        objectives=settings.objectives, reward_exponent=settings.reward_exponent, hard=not settings.soft,
        pruner=settings.pruner, storage=bench.folder.study, priced=rows,
        start=[space.reference], progress=lambda p: progress.advance(p.done, _standing(p), p.trials),
    )  # fmt: skip
    bench.memory.remember({c.architecture: Evaluation(c.top1, c.top1_std) for c in result.candidates})
    exponent = settings.reward_exponent if settings.soft else 0.0
    ranked = sorted(
        result.candidates, key=lambda c: (-reward(c.top1, c.latency_ms, limit_ms, exponent), c.latency_ms, c.number)
    )
    finalists = aim.best_within(ranked, settings.finalists, slack) if adapts else []
    if adapts and len(finalists) < settings.finalists:  # NetAdapt then has a little farther to go
        finalists += [c for c in ranked[: settings.finalists] if c not in finalists][
            : settings.finalists - len(finalists)
        ]
    bench.folder.note(objective=result.objective)
    notes = [f"the block search maximised {result.objective}"]
    if aim.never_binds(feasibility):
        notes.append(f"the target never binds: the slowest network of the space takes {feasibility.slowest_ms:.2f} ms")
    if result.stopped:
        notes.append(f"{result.stopped} of {result.evaluated} networks were given up while they were trained")
    return BlockStage(result.candidates, ranked, finalists, feasibility, notes)


def _standing(progress: SearchProgress) -> str:
    if progress.best_top1 is None:
        return "none within the limit yet"
    return f"best {progress.best_top1:.2f} at {progress.best_latency_ms:.2f} ms"
