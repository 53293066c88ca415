"""Tables for the terminal: what a run found, and how NetAdapt got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.latency.model import LatencyKind
from mnv3search.layer_search import Step
from mnv3search.report.summary import Judged, RunSummary
from mnv3search.report.wording import (
    LATENCY_WORDS,
    NO_FIGURE,
    ORIGIN_WORDS,
    accuracy_heading,
    change_ms,
    latency_text,
    millions,
    published_text,
    signed,
    top1_text,
    with_error,
)

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def final_table(summary: RunSummary) -> Table:
    """The best, the other finalists and the references; predicted and published top-1 in columns of their own."""
    everyone = [summary.best, *summary.finalists, *summary.references]
    measured = any(judged.measured_ms is not None for judged in everyone)
    table = _table(summary.title, final_caption(summary))
    table.add_column("network", overflow="fold")
    table.add_column(_text(accuracy_heading(summary)), justify="right", no_wrap=summary.score is None)
    table.add_column("published\ntop-1 %", justify="right", style="dim", no_wrap=True)
    table.add_column(_text(f"ms on\n{summary.device}"), justify="right", no_wrap=True)
    if measured:
        table.add_column("ms measured\nwhole", justify="right", no_wrap=True)
    table.add_column("M\nMAdds", justify="right", no_wrap=True)
    table.add_column("M\nparams", justify="right", no_wrap=True)
    for index, judged in enumerate(everyone):
        ends = index == 0 or index == len(summary.finalists)
        table.add_row(
            *_cells(summary, judged, measured), style="bold" if judged is summary.best else None, end_section=ends
        )
    return table


def final_caption(summary: RunSummary) -> str:
    """What the marks of the final table mean."""
    words = []
    if summary.top1_estimated:
        words.append(
            f"pred.: predicted by {summary.evaluator}, ± one standard deviation; comparable only with other "
            "predictions, not with the published column"
        )
    if summary.device_kind == "estimated":
        words.append("est.: estimated from published figures, ± one standard deviation over held-out networks")
    elif summary.device_kind == "table":
        words.append("table: the sum of measured blocks, ± one standard deviation over held-out networks")
    else:
        words.append("meas.: timed whole, ± one standard deviation of the median")
    return "\n".join(words)


def steps_table(
    steps: Sequence[Step],
    seed: Candidate,
    *,
    top1_estimated: bool = True,
    latency_kind: LatencyKind = "estimated",
    latency_errors_ms: Mapping[Architecture, float] | None = None,
) -> Table:
    """NetAdapt's steps from its seed to its end, a row each.

    Args:
        steps: in order.
        seed: the network before the first of them.
        top1_estimated: whether top-1 is a prediction and is marked so.
        latency_kind: how latencies are marked.
        latency_errors_ms: one standard deviation in milliseconds by architecture; ``±?`` where it has none.
    """
    errors = latency_errors_ms or {}
    words = f"latency {LATENCY_WORDS[latency_kind]}" + (", top-1 predicted" if top1_estimated else "")
    table = _table("NetAdapt, step by step", f"{words}; changes in points and ms against the row above")
    table.add_column("step", justify="right")
    table.add_column("narrowed", overflow="fold")
    for heading in ("top-1 %", "change", "latency ms", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows: list[Candidate | Step] = [seed, *steps]
    for row in rows:
        top1 = top1_text(row.top1, row.top1_std, estimated=top1_estimated)
        latency = latency_text(row.latency_ms, errors.get(row.architecture), latency_kind)
        if isinstance(row, Step):
            changes = signed(row.delta_top1, 3), change_ms(row.delta_latency_ms)
            table.add_row(str(row.number), _text(row.change), top1, changes[0], latency, changes[1])
        else:
            table.add_row("0", "(seed)", top1, NO_FIGURE, latency, NO_FIGURE)
    return table


def _cells(summary: RunSummary, judged: Judged, measured: bool) -> list[str | Text]:
    is_best = judged is summary.best
    name = f"{judged.name} ({ORIGIN_WORDS.get(judged.origin, judged.origin)})" if is_best else judged.name
    cells: list[str | Text] = [
        _text(name),
        top1_text(judged.top1, judged.top1_std, estimated=summary.top1_estimated),
        published_text(judged.published_top1),
        latency_text(judged.latency_ms, judged.latency_error_ms, summary.device_kind),
    ]
    if measured:
        cells.append(with_error(judged.measured_ms, judged.measured_error_ms, 2))
    return [*cells, millions(judged.madds), millions(judged.parameters, 2)]


def _table(title: str, caption: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=_text(title), caption=_text(caption), box=SIMPLE_HEAD, title_justify="left", caption_justify="left",
        pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True,
    )  # fmt: skip


def _text(words: str) -> Text:
    """Text in which brackets are brackets: names come from files."""
    from rich.text import Text

    return Text(words)
