"""The figures of networks in a run: accuracy by its evaluator, latency by its device, exact counts.

No network is evaluated twice, and no finished evaluation is lost. Those of the block search stand in its study; all
others (NetAdapt's proposals, the references) are appended to ``evaluations.jsonl``, one JSON object a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mnv3search.accuracy.evaluator import (
    Evaluation,
    Evaluator,
    Report,
    StoppableEvaluator,
    capabilities_of,
    checked_evaluations,
    evaluated_until,
)
from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.candidate import Candidate, Origin
from mnv3search.cost import count
from mnv3search.errors import EvaluatorError
from mnv3search.families import published
from mnv3search.families.figures import published_figures
from mnv3search.files import append_lines
from mnv3search.latency.model import Device, Preparable, checked_latencies
from mnv3search.layers import units
from mnv3search.records import Record, read_log
from mnv3search.report.summary import ScoredNetwork
from mnv3search.runs.progress import RunProgress, SilentProgress


class CachedEvaluator:
    """An evaluator that is never asked twice for one architecture; it knows how many distinct ones were asked."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._known: dict[Architecture, Evaluation] = {}
        self.capabilities = capabilities_of(evaluator)

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation for each architecture, in order."""
        new = list(dict.fromkeys(a for a in architectures if a not in self._known))
        if new:
            answers = checked_evaluations(self._evaluator, new)
            self._known.update(zip(new, answers, strict=True))
        return [self._known[a] for a in architectures]

    def remember(self, known: Mapping[Architecture, Evaluation]) -> None:
        """Answers of an earlier session of the same run."""
        self._known.update(known)

    @property
    def distinct(self) -> int:
        """How many distinct architectures have an answer."""
        return len(self._known)


class StoppableCache(CachedEvaluator):
    """One whose evaluator can give the training of a network up."""

    def __init__(self, evaluator: StoppableEvaluator) -> None:
        super().__init__(evaluator)  # type: ignore[arg-type]
        self._stoppable = evaluator

    def evaluate_until(
        self, architecture: Architecture, should_prune: Callable[[Sequence[Report]], bool]
    ) -> Evaluation:
        """The evaluation of one network; one that was given up is not remembered as an answer."""
        if architecture in self._known:
            return self._known[architecture]
        answer = evaluated_until(self._stoppable, architecture, should_prune)
        if not answer.stopped:
            self._known[architecture] = answer
        return answer


def cached(evaluator: Evaluator) -> CachedEvaluator:
    """A cache for ``evaluator`` that can do what it can."""
    return StoppableCache(evaluator) if isinstance(evaluator, StoppableEvaluator) else CachedEvaluator(evaluator)


class LoggedEvaluator:
    """Appends each new answer to a file, and starts from what the file holds."""

    def __init__(self, cache: CachedEvaluator, log: Path) -> None:
        self._cache = cache
        self._log = log
        within = cache.capabilities.range
        self._logged = dict(read_log(log, lambda record: _parse(record, within), "evaluation"))
        self.capabilities = cache.capabilities
        cache.remember(self._logged)

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation for each architecture, in order; new ones are on disk when this returns."""
        answers = self._cache.evaluate(architectures)
        new = {a: e for a, e in zip(architectures, answers, strict=True) if a not in self._logged}
        if new:
            append_lines(self._log, [_line(architecture, evaluation) for architecture, evaluation in new.items()])
            self._logged.update(new)
        return answers


def _line(architecture: Architecture, evaluation: Evaluation) -> str:
    entry: dict[str, object] = {"top1": evaluation.top1, "top1_std": evaluation.top1_std}
    if evaluation.reports:
        entry["reports"] = evaluation.reports
    return json.dumps(entry | {"architecture": to_mapping(architecture)}, separators=(",", ":"))


def _parse(record: Record, within: tuple[float, float]) -> tuple[Architecture, Evaluation]:
    """``within``: the range of an answer."""
    std = record.optional("top1_std", 0, within[1])
    reports = tuple(_report(pair, within) for pair in (record.list("reports") if "reports" in record else ()))
    return from_mapping(record.value("architecture")), Evaluation(record.number("top1", *within), std, reports)


def _report(pair: object, within: tuple[float, float]) -> tuple[int, float]:
    epoch, reached = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    report = Record({"epoch": epoch, "top1": reached})
    return report.integer("epoch", 0, 10**9), report.number("top1", *within)


PAPER_VERSION = "v5"


@dataclass(slots=True)
class Scorer:
    """Gives networks their figures; ``evaluator`` may be None where only latency is asked."""

    device: Device
    evaluator: Evaluator | None = None
    progress: RunProgress = field(default_factory=SilentProgress)

    def on_progress(self, done: int, total: int, what: str) -> None:
        """What a device reports while it measures."""
        self.progress.advance(done, what, total)

    def latencies(self, architectures: Sequence[Architecture]) -> list[tuple[float, float | None]]:
        """(milliseconds, one standard deviation or None where the model states none) of each network."""
        if isinstance(self.device, Preparable):
            parts = dict.fromkeys(part for a in architectures for part in units(a))
            self.device.prepare(list(parts), self.on_progress)
        values = checked_latencies(self.device, architectures)
        error_of = getattr(self.device, "latency_error_ms", None)
        errors = [None] * len(values) if error_of is None else [float(e) for e in error_of(architectures)]
        return [(float(ms), error) for ms, error in zip(values, errors, strict=True)]

    def errors_ms(self, architectures: Sequence[Architecture]) -> dict[Architecture, float]:
        """One standard deviation of each network's latency, where the model states any."""
        found = zip(architectures, self.latencies(architectures), strict=True) if architectures else ()
        return {architecture: error for architecture, (_, error) in found if error is not None}

    def score(
        self, name: str, architecture: Architecture, origin: str, published_top1: float | None = None
    ) -> ScoredNetwork:
        """Every figure of one network."""
        latency_ms, error_ms = self.latencies([architecture])[0]
        answer = checked_evaluations(self.evaluator, [architecture])[0] if self.evaluator else None
        counts = count(architecture)
        return ScoredNetwork(
            name, architecture, answer.top1 if answer else None, answer.top1_std if answer else None, latency_ms,
            error_ms, counts.madds, counts.parameters, origin, published_top1,
        )  # fmt: skip

    def candidate(self, architecture: Architecture, origin: Origin, number: int) -> Candidate:
        """A network with its figures, as the searches hold it."""
        found = self.score("", architecture, origin)
        if found.top1 is None:
            raise EvaluatorError("a search needs an evaluator: it chooses by accuracy")
        return Candidate(
            architecture, found.top1, found.top1_std, found.latency_ms, found.madds, found.parameters, origin, number
        )


def published_top1(network: str) -> float | None:
    """The top-1 that the V3 paper (ICCV version) prints for a network, or else the first source that prints one."""
    rows = [row for row in published_figures() if row.network == network and row.top1 and "int8" not in row.version]
    rows.sort(key=lambda row: row.version != PAPER_VERSION)
    return rows[0].top1 if rows else None


PUBLISHED = (
    ("mobilenet_v3_large", 1.0), ("mobilenet_v3_large", 0.75), ("mobilenet_v3_small", 1.0),
    ("mobilenet_v3_small", 0.75), ("mobilenet_v2", 1.0), ("mobilenet_v2", 0.75), ("mobilenet_v2", 0.35),
    ("mnasnet_a1", 1.0), ("mnasnet_small", 1.0),
)  # fmt: skip
NEAR = 2.0


def reference_networks(scorer: Scorer, reference: ScoredNetwork, target_ms: float) -> list[ScoredNetwork]:
    """Published networks within a factor of two of the target, by the run's evaluator and latency model.

    Only for ImageNet's input and classes: elsewhere the published networks are others, and the space's own reference
    stands alone. The reference itself is left out.
    """
    if (reference.architecture.resolution, reference.architecture.classes) != (224, 1000):
        return []
    named = {name if width == 1.0 else f"{name}@{width:g}": published(name, width) for name, width in PUBLISHED}
    named = {label: network for label, network in named.items() if network != reference.architecture}
    latencies = [ms for ms, _ in scorer.latencies(list(named.values()))]  # an evaluator may train: it is asked last
    return [
        scorer.score(label, network, "reference", published_top1(label))
        for (label, network), ms in zip(named.items(), latencies, strict=True)
        if target_ms / NEAR <= ms <= target_ms * NEAR
    ]
