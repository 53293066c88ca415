"""What every stage of one run works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate, Origin
from mnv3search.errors import RunError
from mnv3search.latency.devices import load_device
from mnv3search.latency.measured.whole_networks import busy_sentence
from mnv3search.latency.model import Device, parse_target
from mnv3search.runs.evaluations import Judge, LoggingEvaluator, RememberingEvaluator, remembering
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.images import run_images
from mnv3search.runs.progress import DetailProgress, RunProgress
from mnv3search.runs.target import Aim, Decisions, TARGET
from mnv3search.runs.timings import Timings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

FARTHEST_TIMED = 10.0  # from its predicted time, as a factor, that the reference of a relative target was timed


@dataclass(frozen=True, slots=True)
class Bench:
    """The run's folder, its judge, and what it knows already."""

    folder: RunFolder
    judge: Judge
    memory: RememberingEvaluator
    logged: LoggingEvaluator
    decisions: Decisions
    timings: Timings
    progress: RunProgress

    @staticmethod
    def of(
        folder: RunFolder, progress: RunProgress, device: Device | None = None,
        space: Callable[[], SearchSpace] | None = None,
    ) -> Bench:  # fmt: skip
        """A bench for the run of ``folder``, over ``space`` where it searches one.

        ``device`` stands in for the one that its settings name.

        Raises:
            RunError: a file of the folder is damaged.
            UnknownNameError: no such device or evaluator.
            DataError: the images that the evaluator learns from cannot be had.
        """
        progress = DetailProgress(progress)
        data = run_images(folder, progress)  # which notes the classes that the space's networks take
        evaluator = load_evaluator(
            folder.settings.evaluator,
            EvaluatorContext(space and space(), data, folder.proxy, progress=progress.detailed()),
        )
        memory = remembering(evaluator)
        logged = LoggingEvaluator(memory, folder.evaluations)
        judge = Judge.by(device or load_device(folder.device), logged, progress)
        if sentence := busy_sentence(judge.device):
            progress.note(sentence)
        decisions, timings = Decisions(folder.decisions), Timings(judge, folder.measured)
        return Bench(folder, judge, memory, logged, decisions, timings, progress)

    def aim(self, reference: Architecture, reference_ms: float) -> Aim:
        """The target in milliseconds, fixed once.

        One that is relative is so to the reference's time: ``reference_ms`` by the latency model, or whole where the
        device can be timed; and from then on it is given: an error of that time is none of the candidates'.
        """
        target = parse_target(self.folder.settings.target)

        def milliseconds() -> float:
            if target.relative and self.timings.possible:
                return target.milliseconds(self.timings.alone(reference).measured_ms)
            return target.milliseconds(reference_ms)

        expected = target.milliseconds(reference_ms)
        apart = FARTHEST_TIMED if target.relative else 1.0
        self.decisions.check(TARGET, expected / apart, expected * apart)
        target_ms = self.decisions.fix(TARGET, milliseconds)
        return Aim(self.judge.device, target_ms, self.folder.settings.confidence)

    def candidate(self, architecture: Architecture, origin: Origin, number: int) -> Candidate:
        """A network judged, as the searches hold it.

        Raises:
            RunError: the run has no evaluator.
        """
        judged = self.judge.judge("", architecture, origin)
        if judged.top1 is None:
            raise RunError("a search needs an evaluator: it chooses by accuracy")
        return Candidate(
            architecture,
            judged.top1,
            judged.top1_std,
            judged.latency_ms,
            judged.madds,
            judged.parameters,
            origin,
            number,
        )
