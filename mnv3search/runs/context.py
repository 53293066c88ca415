"""The run context: what every stage of one run works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
from mnv3search.architecture import Architecture
from mnv3search.latency.devices import load_device
from mnv3search.latency.measured.whole_networks import busy_sentence
from mnv3search.latency.model import Device
from mnv3search.runs.evaluations import CachedEvaluator, LoggedEvaluator, Scorer, cached
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.images import session_images
from mnv3search.runs.progress import DetailProgress, RunProgress
from mnv3search.runs.target import LatencyConstraint, PinnedValues, run_constraint
from mnv3search.runs.timings import Timings

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class RunContext:
    """The run's folder, what scores its networks, and what is known already."""

    folder: RunFolder
    scorer: Scorer
    cache: CachedEvaluator
    logged: LoggedEvaluator
    pinned: PinnedValues
    timings: Timings
    progress: RunProgress

    @staticmethod
    def of(
        folder: RunFolder, progress: RunProgress, device: Device | None = None,
        space: Callable[[], SearchSpace] | None = None,
    ) -> RunContext:  # fmt: skip
        """The context of the run of ``folder``, over ``space`` where it searches one.

        ``device`` stands in for the one that the settings name.
        """
        progress = DetailProgress(progress)
        # which notes the classes that the space's networks take
        images = None if folder.settings.data is None else session_images(folder, progress)
        made_with = EvaluatorContext(space and space(), images, folder.proxy, progress=progress.detailed())
        evaluator = load_evaluator(folder.settings.evaluator, made_with)
        cache = cached(evaluator)
        logged = LoggedEvaluator(cache, folder.evaluations)
        scorer = Scorer(device or load_device(folder.device), logged, progress)
        if sentence := busy_sentence(scorer.device):
            progress.note(sentence)
        pinned, timings = PinnedValues(folder.pinned), Timings(scorer, folder.measured)
        return RunContext(folder, scorer, cache, logged, pinned, timings, progress)

    def constraint(self, reference: Architecture, reference_ms: float) -> LatencyConstraint:
        """The target in milliseconds, pinned, with the confidence asked for; a relative one is of ``reference``."""
        settings = self.folder.settings
        return run_constraint(settings.target, settings.confidence, self.pinned, self.timings, reference, reference_ms)
