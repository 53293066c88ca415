"""Accuracy evaluators by name: those of this package, and those that installed packages register.

A package adds one through the entry point group ``mnv3search.evaluators``: a factory that is called with an
:class:`EvaluatorContext`, or without arguments where it takes none, and gives an object with
``evaluate(architectures)``. A name is looked up, never imported from a path, so that a run folder from elsewhere cannot
name code to run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mnv3search.accuracy.evaluator import Evaluator
from mnv3search.errors import EvaluatorError, Mnv3SearchError, UnknownNameError
from mnv3search.execution import Executor

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace
    from mnv3search.training.data.splits import DataSplits
    from mnv3search.training.progress import TrainingProgress

ENTRY_POINT_GROUP = "mnv3search.evaluators"


@dataclass(frozen=True, slots=True)
class EvaluatorContext:
    """What an evaluator is made with; None stands for what the caller has not.

    Attributes:
        space: where the networks come from.
        data: images to learn from.
        folder: where trained networks are kept.
        executor: runs tasks of the evaluator, such as trainings.
        options: the text behind ``:`` in the evaluator's name, such as ``epochs=3``.
        progress: notified of every step of a training.
    """

    space: SearchSpace | None = None
    data: DataSplits | None = None
    folder: Path | None = None
    options: str = ""
    executor: Executor | None = None
    progress: TrainingProgress | None = None


def _prior(context: EvaluatorContext) -> Evaluator:
    from mnv3search.accuracy.prior import ImagenetPrior

    return ImagenetPrior(recipe=context.options) if context.options else ImagenetPrior()


def _zero_cost(context: EvaluatorContext) -> Evaluator:
    from mnv3search.accuracy.zero_cost import zero_cost

    return zero_cost(context.options, None if context.data is None else context.data.train)


def _proxy(context: EvaluatorContext) -> Evaluator:
    from mnv3search.accuracy.proxy import Proxy, ProxyOptions

    options = ProxyOptions.parsed(context.options)
    if context.data is None:
        raise EvaluatorError(
            "the evaluator proxy trains every network on your images: give them with --data, a folder or an archive "
            "with a folder of images for each class"
        )
    return Proxy(context.data, options, folder=context.folder, progress=context.progress)


_BUILT_IN: dict[str, Callable[[EvaluatorContext], Evaluator]] = {
    "prior": _prior,
    "zero_cost": _zero_cost,
    "proxy": _proxy,
}


def evaluator_names() -> list[str]:
    """Every name that :func:`load_evaluator` takes."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_evaluator(text: str, context: EvaluatorContext | None = None) -> Evaluator:
    """The evaluator of ``text``: ``prior``, ``prior:once_for_all``, ``zero_cost:zen``, ``proxy:epochs=3``.

    Args:
        text: a name, and where the evaluator takes any, ``:`` and its options.
        context: what it is made with; its ``options`` are those of ``text``.

    Raises:
        UnknownNameError: no such evaluator, score or option.
        EvaluatorError: an option that cannot be, images missing, or what an installed package registers cannot be made
            or is no evaluator.
    """
    name, _, options = str(text).partition(":")
    context = replace(context or EvaluatorContext(), options=options)
    if name in _BUILT_IN:
        return _BUILT_IN[name](context)
    found = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)
    if found is None:
        raise UnknownNameError("evaluator", name, evaluator_names())
    try:
        factory = found.load()
        way = _way_of_context(factory)
        if context.options and way is None:
            raise EvaluatorError(f"evaluator {name!r} takes no options, and {options!r} was given; leave them out")
        evaluator = factory(context=context) if way == "named" else factory(context) if way else factory()
    except Mnv3SearchError:
        raise
    except Exception as error:
        raise EvaluatorError(
            f"evaluator {name!r} of an installed package cannot be made ({type(error).__name__}: {error}); "
            "mend or reinstall that package"
        ) from error
    if not isinstance(evaluator, Evaluator):
        raise EvaluatorError(f"evaluator {name!r} of an installed package has no evaluate(architectures)")
    return evaluator


def _way_of_context(factory: Callable[..., object]) -> Literal["named", "first"] | None:
    """How a factory takes the context: as its parameter ``context``, as its first that must be given, or not at all."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of some built-in types
        return None
    named = parameters.get("context")
    if named is not None and named.kind is not inspect.Parameter.POSITIONAL_ONLY:
        return "named"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    must = any(p.kind in positional and p.default is p.empty for p in parameters.values())
    return "first" if must or named is not None else None
