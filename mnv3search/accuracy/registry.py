"""Accuracy evaluators by name: those of this package, and those that installed packages register.

A package adds one through the entry point group ``mnv3search.evaluators``: its value is called without arguments and
must give an object with ``evaluate(architectures)``. A name is looked up, never imported from a path, so that a run
folder from elsewhere cannot name code to run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.accuracy.evaluator import Evaluator
from mnv3search.errors import EvaluatorError, Mnv3SearchError, UnknownNameError

if TYPE_CHECKING:
    from mnv3search.training.data.splits import DataSplits
    from mnv3search.training.progress import TrainingProgress

ENTRY_POINT_GROUP = "mnv3search.evaluators"


@dataclass(frozen=True, slots=True)
class _Given:
    """What an evaluator of this package is made from."""

    options: str
    data: DataSplits | None
    folder: Path | None
    progress: TrainingProgress | None


def _prior(given: _Given) -> Evaluator:
    from mnv3search.accuracy.prior import ImagenetPrior

    return ImagenetPrior(recipe=given.options) if given.options else ImagenetPrior()


def _zero_cost(given: _Given) -> Evaluator:
    from mnv3search.accuracy.zero_cost import zero_cost

    return zero_cost(given.options, None if given.data is None else given.data.train)


def _proxy(given: _Given) -> Evaluator:
    from mnv3search.accuracy.proxy import Proxy, ProxyOptions

    options = ProxyOptions.parsed(given.options)
    if given.data is None:
        raise EvaluatorError(
            "the evaluator proxy trains every network on your images: give them with --data, a folder or an archive "
            "with a folder of images for each class"
        )
    return Proxy(given.data, options, folder=given.folder, progress=given.progress)


_BUILT_IN: dict[str, Callable[[_Given], Evaluator]] = {"prior": _prior, "zero_cost": _zero_cost, "proxy": _proxy}


def evaluator_names() -> list[str]:
    """Every name that :func:`load_evaluator` takes."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_evaluator(
    text: str,
    *,
    data: DataSplits | None = None,
    folder: str | Path | None = None,
    progress: TrainingProgress | None = None,
) -> Evaluator:
    """The evaluator of ``text``: ``prior``, ``prior:once_for_all``, ``zero_cost:naswot``, ``proxy:epochs=3``.

    Args:
        text: a name, and where the evaluator takes any, ``:`` and its options.
        data: images for those that learn from them.
        folder: where those that train keep the networks; None keeps none.
        progress: told of every step of a training.

    Raises:
        UnknownNameError: no such evaluator, score or option.
        EvaluatorError: an option that cannot be, images missing, or what an installed package registers cannot be made
            or is no evaluator.
    """
    name, _, options = str(text).partition(":")
    if name in _BUILT_IN:
        return _BUILT_IN[name](_Given(options, data, None if folder is None else Path(folder), progress))
    found = entry_points(group=ENTRY_POINT_GROUP, name=text)
    if not found:
        raise UnknownNameError("evaluator", text, evaluator_names())
    try:
        evaluator = next(iter(found)).load()()
    except Mnv3SearchError:
        raise
    except Exception as error:
        raise EvaluatorError(
            f"evaluator {text!r} of an installed package cannot be made ({type(error).__name__}: {error}); "
            "mend or reinstall that package"
        ) from error
    if not isinstance(evaluator, Evaluator):
        raise EvaluatorError(f"evaluator {text!r} of an installed package has no evaluate(architectures)")
    return evaluator
