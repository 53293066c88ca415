"""Accuracy evaluators by name: those of this package, and those that installed packages register.

A package adds one through the entry point group ``mnv3search.evaluators``: its value is called without arguments and
must give an object with ``evaluate(architectures)``. A name is looked up, never imported from a path, so that a run
folder from elsewhere cannot name code to run.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from mnv3search.accuracy.evaluator import Evaluator
from mnv3search.errors import EvaluatorError, Mnv3SearchError, UnknownNameError

ENTRY_POINT_GROUP = "mnv3search.evaluators"


def _prior() -> Evaluator:
    from mnv3search.accuracy.prior import ImagenetPrior

    return ImagenetPrior()


_BUILT_IN: dict[str, Callable[[], Evaluator]] = {"prior": _prior}


def evaluator_names() -> list[str]:
    """Every name that :func:`load_evaluator` takes."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_evaluator(name: str) -> Evaluator:
    """The evaluator called ``name``.

    Raises:
        UnknownNameError: no such evaluator.
        EvaluatorError: what an installed package registers cannot be made, or is no evaluator.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    found = entry_points(group=ENTRY_POINT_GROUP, name=name)
    if not found:
        raise UnknownNameError("evaluator", name, evaluator_names())
    try:
        evaluator = next(iter(found)).load()()
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
