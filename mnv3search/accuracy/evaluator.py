"""What an accuracy evaluator is: anything that answers ``evaluate(architectures)``."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mnv3search.architecture import Architecture
from mnv3search.errors import EvaluatorError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One answer of an evaluator.

    Attributes:
        top1: accuracy in percent (or any score to maximise, where an evaluator says so).
        top1_std: one standard deviation of the truth around ``top1``, in the same unit, or None where unknown.
    """

    top1: float
    top1_std: float | None = None


@runtime_checkable
class Evaluator(Protocol):
    """Predicts or measures accuracy.

    An evaluator whose answers cost well under a millisecond may set a class attribute ``cheap = True``; the search's
    ``auto`` sampler then works in large batches. One whose answers are predictions sets ``estimated = True``.
    """

    def evaluate(self, architectures: Sequence[Architecture]) -> Sequence[Evaluation]:
        """One evaluation for each architecture, in order."""
        ...


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
    answers = list(evaluator.evaluate(architectures))
    name = type(evaluator).__name__
    if len(answers) != len(architectures):
        raise EvaluatorError(f"{name} gave {len(answers)} evaluations for {len(architectures)} architectures")
    for answer, architecture in zip(answers, architectures, strict=True):
        if not isinstance(answer, Evaluation):
            raise EvaluatorError(f"{name} gave {type(answer).__name__} {answer!r}; give an Evaluation(top1, top1_std)")
        if not math.isfinite(answer.top1):
            raise EvaluatorError(f"{name} gave top1 {answer.top1!r}, which is not finite, for {architecture}")
    return answers
