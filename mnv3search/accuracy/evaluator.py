"""What an accuracy evaluator is, how its answers are checked, and how its options are read."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from mnv3search.architecture import Architecture
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.records import real

Report = tuple[int, float]
"""An epoch, from 1, and the top-1 in percent after it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One answer of an evaluator.

    Attributes:
        top1: accuracy in percent (or a score to maximise, where the evaluator has a ``score_name``).
        top1_std: one standard deviation of the truth around ``top1``, in the same unit, or None where unknown.
        reports: how a training went, epoch by epoch; empty where nothing was trained.
        stopped: a training that was given up: ``top1`` is what it had reached, and no judgement of the network.
    """

    top1: float
    top1_std: float | None = None
    reports: tuple[Report, ...] = ()
    stopped: bool = False


@runtime_checkable
class Evaluator(Protocol):
    """Predicts or measures accuracy.

    An evaluator whose answers cost well under a millisecond may set a class attribute ``cheap = True``; the search's
    ``auto`` sampler then works in large batches. One whose answers are predictions sets ``estimated = True``. One whose
    answers are no accuracies in percent sets ``score_name``, such as ``naswot score``: they are then ordered and shown
    as they are, of any sign and scale, and never multiplied. One that trains every network that it is asked about sets
    ``trains = True``: runs then ask it for few. If it keeps them, ``trained_file(architecture)`` names a network's file
    (a ``.safetensors`` of ``save_trained``) or gives None; a run copies the winner's. Its ``chance`` is the top-1 in
    percent of always giving the most frequent class, where that is more than one in the number of classes.
    ``identity`` is a text that changes with whatever its answers depend on (options, data): a saved search is continued
    only where it is the same.
    """

    def evaluate(self, architectures: Sequence[Architecture]) -> Sequence[Evaluation]:
        """One evaluation for each architecture, in order."""
        ...


@runtime_checkable
class StoppableEvaluator(Protocol):
    """An evaluator that trains in epochs and can be told after each of them to give a network up."""

    def evaluate_until(self, architecture: Architecture, give_up: Callable[[Sequence[Report]], bool]) -> Evaluation:
        """The evaluation of one network; ``give_up`` is asked after every epoch but the last, with all so far.

        One that was evaluated before is answered from memory, and ``give_up`` is not asked.
        """
        ...


def score_name(evaluator: object) -> str | None:
    """What the evaluator's answers are called where they are no accuracies in percent; None where they are."""
    name = getattr(evaluator, "score_name", None)
    return None if name is None else str(name)


def evaluator_identity(evaluator: object) -> str:
    """What the evaluator's answers depend on, as it says itself; else its name, or that of its class."""
    named = getattr(evaluator, "identity", None) or getattr(evaluator, "name", None)
    return str(named or type(evaluator).__name__)


def trains(evaluator: object) -> bool:
    """Whether the evaluator says that it trains every network it is asked about."""
    return bool(getattr(evaluator, "trains", False))


def is_cheap(evaluator: Evaluator) -> bool:
    """Whether the evaluator says that it answers in well under a millisecond."""
    return bool(getattr(evaluator, "cheap", False))


def check_evaluator(evaluator: object) -> None:
    """Pass where ``evaluator`` is one.

    Raises:
        EvaluatorError: it is something else, such as its name or its class.
    """
    if isinstance(evaluator, type) or not isinstance(evaluator, Evaluator):
        raise EvaluatorError(
            f"evaluator is {reprlib.repr(evaluator)}, not an accuracy evaluator; "
            "give an object with evaluate(architectures), such as ImagenetPrior()"
        )


def checked_evaluations(evaluator: Evaluator, architectures: Sequence[Architecture]) -> list[Evaluation]:
    """The evaluator's answers, checked for number and finiteness.

    Raises:
        EvaluatorError: another number of answers than questions, or a top-1 that is not finite.
    """
    answers, name = evaluator.evaluate(architectures), type(evaluator).__name__
    if not isinstance(answers, Iterable):
        raise EvaluatorError(f"{name} gave {answers!r}; give a list with an Evaluation for each architecture")
    return _checked(list(answers), name, architectures)


def evaluated_until(
    evaluator: StoppableEvaluator, architecture: Architecture, give_up: Callable[[Sequence[Report]], bool]
) -> Evaluation:
    """The answer of :meth:`StoppableEvaluator.evaluate_until`, checked.

    Raises:
        EvaluatorError: a top-1 that is not finite, or no evaluation.
    """
    answer = evaluator.evaluate_until(architecture, give_up)
    return _checked([answer], type(evaluator).__name__, [architecture])[0]


def _checked(answers: list[Evaluation], name: str, architectures: Sequence[Architecture]) -> list[Evaluation]:
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
        std = None if answer.top1_std is None else real(answer.top1_std)
        if answer.top1_std is not None and (std is None or not 0 <= std < math.inf):
            raise EvaluatorError(
                f"{name} gave top1_std {answer.top1_std!r} for {architecture}; give one of at least 0, or None"
            )
        reports = tuple((int(epoch), float(reached)) for epoch, reached in answer.reports)
        found.append(replace(answer, top1=top1, top1_std=std, reports=reports))  # of numpy's numbers, Python's
    return found


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """An option that is an integer from ``low`` to ``high``; ``default`` where it is not given."""

    default: int | None
    low: int
    high: int


def parse_numbers(text: str, known: Mapping[str, WholeNumber], evaluator: str) -> dict[str, int | None]:
    """The options of ``text`` (``name=number`` with commas between), the defaults filled in.

    Raises:
        UnknownNameError: no such option.
        EvaluatorError: an option twice, without a number, or out of its range.
    """
    found: dict[str, int | None] = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if name not in known:
            raise UnknownNameError(f"option of the evaluator {evaluator}", name, known)
        if name in found:
            raise EvaluatorError(f"evaluator {evaluator}: option {name} is given twice; give it once")
        rule = known[name]
        if not (separator and value.isascii() and value.isdigit() and rule.low <= int(value[:12]) <= rule.high):
            raise EvaluatorError(
                f"evaluator {evaluator}: {part!r} must be {name}= and an integer from {rule.low:,} to {rule.high:,}"
            )
        found[name] = int(value)
    return {name: found.get(name, rule.default) for name, rule in known.items()}
