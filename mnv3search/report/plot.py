"""A search's result as a plot of one's own: in a notebook, or among other axes."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

from mnv3search.errors import Mnv3SearchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mnv3search.block_search import SearchResult


def plot_pareto(result: SearchResult, ax: Axes | None = None) -> Axes:
    """Draw every candidate of ``result``, the Pareto front and the best: top-1 over latency in ms.

    Args:
        result: what :func:`mnv3search.search` gave.
        ax: where to draw; new axes of pyplot where not given.

    Returns:
        The axes, for titles, limits and further points.

    Raises:
        Mnv3SearchError: ``result`` is something else.
    """
    from mnv3search.block_search import SearchResult
    from mnv3search.report.figures import BEST, DOTS, FRONT

    if not isinstance(result, SearchResult):
        raise Mnv3SearchError(f"result is {reprlib.repr(result)}, not a SearchResult; give what search gives")

    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots()
    candidates, front, best = result.candidates, result.pareto_front, result.best
    ax.scatter([c.latency_ms for c in candidates], [c.top1 for c in candidates], s=8, color=DOTS, label="candidates")
    ax.plot([c.latency_ms for c in front], [c.top1 for c in front], "o-", ms=4, color=FRONT, label="Pareto front")
    ax.plot([best.latency_ms], [best.top1], "*", ms=14, color=BEST, label="best")
    ax.set_xlabel("latency, ms")
    ax.set_ylabel("top-1, %")
    ax.legend(loc="lower right")
    return ax
