"""The block-search stage of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.block_search import search
from mnv3search.block_search.feasibility import Feasibility, assess
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.candidate import Candidate
from mnv3search.runs.evaluations import RememberingEvaluator
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.judging import Judge
from mnv3search.runs.progress import RunProgress

if TYPE_CHECKING:
    from mnv3search.block_search import SearchProgress
    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class BlockStage:
    """What the block search gave.

    Attributes:
        candidates: every evaluated network.
        direct: the best within the target itself, or None.
        finalists: the best within (1 + slack) · target, best first, for NetAdapt; empty for block search alone.
    """

    candidates: Sequence[Candidate]
    direct: Candidate | None
    finalists: Sequence[Candidate]
    feasibility: Feasibility
    notes: Sequence[str]


def block_stage(
    folder: RunFolder,
    space: SearchSpace,
    judge: Judge,
    evaluator: RememberingEvaluator,
    target_ms: float,
    progress: RunProgress,
) -> BlockStage:
    """Search ``space`` at (1 + slack) · target (block search alone: at the target).

    Raises:
        InfeasibleError: no network of the space meets the target itself.
    """
    settings = folder.settings
    progress.stage("bounding the space's latency")
    rows = RowLatency(space, judge.device, judge.told)
    feasibility = assess(space, rows, settings.seed)
    feasibility.require(target_ms)
    adapts = settings.kind == "run" and settings.finalists > 0
    limit_ms = target_ms * (1 + settings.slack) if adapts else target_ms
    progress.stage(f"block search within {limit_ms:.4g} ms", settings.trials)
    result = search(
        space, judge.device, evaluator, limit_ms, settings.trials, settings.seed, sampler=settings.sampler,
        objectives=settings.objectives, reward_exponent=settings.reward_exponent, storage=folder.study,
        start=[space.reference], progress=lambda p: progress.advance(p.done, _standing(p), p.trials),
    )  # fmt: skip
    evaluator.remember({c.architecture: Evaluation(c.top1, c.top1_std) for c in result.candidates})
    ranked = sorted(result.candidates, key=lambda c: (-c.top1, c.latency_ms, c.number))
    within = [c for c in ranked if c.latency_ms <= target_ms]
    finalists = [c for c in ranked if c.latency_ms <= limit_ms][: settings.finalists] if adapts else []
    notes = [] if feasibility.binds(target_ms) else [
        f"the target never binds: the slowest network of the space takes {feasibility.slowest_ms:.2f} ms"
    ]  # fmt: skip
    return BlockStage(result.candidates, within[0] if within else None, finalists, feasibility, notes)


def _standing(progress: SearchProgress) -> str:
    if progress.best_top1 is None:
        return "none within the limit yet"
    return f"best {progress.best_top1:.2f} at {progress.best_latency_ms:.2f} ms"
