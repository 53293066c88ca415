"""What an accuracy evaluator is, how its answers are checked, and how its options are read."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from mnv3search.architecture import Architecture
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.records import MAX_EPOCH, SCORE, TOP1, real, whole

Report = tuple[int, float]
"""An epoch, from 1, and the top-1 in percent after it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One answer of an evaluator.

    Attributes:
        top1: accuracy in percent (or a score to maximise, where the evaluator's capabilities have a ``score_name``).
        top1_std: one standard deviation of the truth around ``top1``, in the same unit, or None where unknown.
        reports: how a training went, epoch by epoch; empty where nothing was trained.
        stopped: a training that was given up: ``top1`` is what it had reached, and says little of the network.
    """

    top1: float
    top1_std: float | None = None
    reports: tuple[Report, ...] = ()
    stopped: bool = False


def _unknown(_: Architecture) -> None:  # has a name, so that capabilities can be pickled
    return None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an evaluator says of itself, as its attribute ``capabilities``.

    Attributes:
        cheap: an answer takes well under a millisecond; the sampler ``auto`` then works in large batches.
        estimated: answers are predictions.
        trains: every network is trained for its evaluation; runs then ask for few.
        score_name: what answers are called that are no accuracies in percent, such as ``Zen-score``. They are ordered
            and shown as they are, of any sign and scale, and never multiplied.
        chance: top-1 in percent of always giving the most frequent class, where that is more than one in the number of
            classes.
        identity: changes with whatever the answers depend on (options, data); a saved search is continued only where it
            is the same. The evaluator's class where it is empty.
        trained_file: the file of a network as it was trained (a ``.safetensors`` of ``save_trained``), or None; a run
            copies the winner's.
        seconds_each: how long the answer for one network will take; None where that is not known.
    """

    cheap: bool = False
    estimated: bool = False
    trains: bool = False
    score_name: str | None = None
    chance: float = 0.0
    identity: str = ""
    trained_file: Callable[[Architecture], Path | None] = _unknown
    seconds_each: Callable[[Architecture], float | None] = _unknown

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest answer."""
        return TOP1 if self.score_name is None else SCORE


@runtime_checkable
class Evaluator(Protocol):
    """Predicts or measures accuracy; one whose :class:`Capabilities` are not the default states ``capabilities``."""

    def evaluate(self, architectures: Sequence[Architecture]) -> Sequence[Evaluation]:
        """One evaluation for each architecture, in order."""
        ...


@runtime_checkable
class StoppableEvaluator(Protocol):
    """An evaluator that trains in epochs, and can give a network up after each of them."""

    def evaluate_until(
        self, architecture: Architecture, should_prune: Callable[[Sequence[Report]], bool]
    ) -> Evaluation:
        """The evaluation of one network; ``should_prune`` is asked after every epoch but the last, with all so far.

        One that was evaluated before is answered from memory, and ``should_prune`` is not asked.
        """
        ...


_FORMER_ATTRIBUTES = ("cheap", "estimated", "trains", "score_name", "chance", "identity", "trained_file")


def capabilities_of(evaluator: object) -> Capabilities:
    """What the evaluator states as ``capabilities``; the default, with the name of its class, where it states none."""
    name, stated = type(evaluator).__name__, getattr(evaluator, "capabilities", None)
    if stated is None and not hasattr(evaluator, "capabilities"):
        former = {a: value for a in _FORMER_ATTRIBUTES if (value := getattr(evaluator, a, None))}
        if former:
            texts = (f"{a}=self.{a}" if callable(value) else f"{a}={value!r}" for a, value in former.items())
            raise EvaluatorError(
                f"{name} has the attribute {' and '.join(former)}, which no search reads; state capabilities = "
                f"Capabilities({', '.join(texts)}) instead"
            )
        stated = Capabilities()
    if not isinstance(stated, Capabilities):
        raise EvaluatorError(f"{name} states capabilities {reprlib.repr(stated)}; give a Capabilities(...)")
    return stated if stated.identity else replace(stated, identity=name)


def check_evaluator(evaluator: object) -> None:
    """EvaluatorError where ``evaluator`` is something else, such as its name or its class."""
    if isinstance(evaluator, type) or not isinstance(evaluator, Evaluator):
        raise EvaluatorError(
            f"evaluator is {reprlib.repr(evaluator)}, not an accuracy evaluator; "
            "give an object with evaluate(architectures), such as ImagenetPrior()"
        )


def checked_evaluations(evaluator: Evaluator, architectures: Sequence[Architecture]) -> list[Evaluation]:
    """The evaluator's answers; EvaluatorError where they are too few or many, or no percentages or finite scores."""
    answers = evaluator.evaluate(architectures)
    if not isinstance(answers, Iterable):
        raise EvaluatorError(
            f"{type(evaluator).__name__} gave {answers!r}; give a list with an Evaluation for each architecture"
        )
    return _checked(evaluator, list(answers), architectures)


def evaluated_until(
    evaluator: StoppableEvaluator, architecture: Architecture, should_prune: Callable[[Sequence[Report]], bool]
) -> Evaluation:
    """The answer of :meth:`StoppableEvaluator.evaluate_until`, checked as by :func:`checked_evaluations`."""
    return _checked(evaluator, [evaluator.evaluate_until(architecture, should_prune)], [architecture])[0]


def _checked(evaluator: object, answers: list[Evaluation], architectures: Sequence[Architecture]) -> list[Evaluation]:
    name, (low, high) = type(evaluator).__name__, capabilities_of(evaluator).range
    if len(answers) != len(architectures):
        raise EvaluatorError(f"{name} gave {len(answers)} evaluations for {len(architectures)} architectures")
    found = []
    for answer, architecture in zip(answers, architectures, strict=True):
        if not isinstance(answer, Evaluation):
            raise EvaluatorError(f"{name} gave {type(answer).__name__} {answer!r}; give an Evaluation(top1, top1_std)")
        top1 = real(answer.top1)
        if top1 is None or not math.isfinite(top1):
            rule = "no number" if top1 is None else "not finite"
            raise EvaluatorError(f"{name} gave top1 {answer.top1!r}, which is {rule}, for {architecture}")
        if not low <= top1 <= high:
            raise EvaluatorError(
                f"{name} gave top1 {answer.top1!r}, which is not from {low:g} to {high:g}, for {architecture}; give "
                "percent, or state capabilities = Capabilities(score_name=...)"
            )
        std = None if answer.top1_std is None else real(answer.top1_std)
        if answer.top1_std is not None and (std is None or not 0 <= std < math.inf):
            raise EvaluatorError(
                f"{name} gave top1_std {answer.top1_std!r} for {architecture}; give one of at least 0, or None"
            )
        reports = _checked_reports(name, answer.reports, low, high)
        found.append(replace(answer, top1=top1, top1_std=std, reports=reports))  # of numpy's numbers, Python's
    return found


def _checked_reports(name: str, reports: Sequence[Report], low: float, high: float) -> tuple[Report, ...]:
    found = []
    for epoch, reached in reports:
        number, value = whole(epoch), real(reached)
        if number is None or value is None or not (1 <= number <= MAX_EPOCH and low <= value <= high):
            raise EvaluatorError(
                f"{name} reported {reached!r} after epoch {epoch!r}; give epochs from 1 and answers from {low:g} to "
                f"{high:g}"
            )
        found.append((number, value))
    return tuple(found)


def parse_numbers(text: str, known: Mapping[str, tuple[int, int]], evaluator: str) -> dict[str, int]:
    """The options that ``text`` gives (``name=number`` with commas between); ``known`` has the range of each."""
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if name not in known:
            raise UnknownNameError(f"option of the evaluator {evaluator}", name, known)
        if name in found:
            raise EvaluatorError(f"evaluator {evaluator}: option {name} is given twice; give it once")
        low, high = known[name]
        if not (separator and value.isascii() and value.isdigit() and low <= int(value[:12]) <= high):
            raise EvaluatorError(
                f"evaluator {evaluator}: {part!r} must be {name}= and an integer from {low:,} to {high:,}"
            )
        found[name] = int(value)
    return found
