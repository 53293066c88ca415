"""Tables for the terminal: a run's result, NetAdapt's steps, and the published tables with exact counts."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from mnv3search.cost import count
from mnv3search.families import parse_network
from mnv3search.families.figures import PublishedFigure, published_figures
from mnv3search.latency.model import LatencyKind
from mnv3search.report.summary import (
    NO_FIGURE,
    ORIGIN_WORDS,
    RunSummary,
    ScoredNetwork,
    millions,
    published_text,
    with_error,
)

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text


KIND_CAPTIONS: dict[LatencyKind, str] = {
    "estimated": "est.: estimated from published figures, ± one standard deviation over held-out networks",
    "table": "table: the sum of measured blocks, ± one standard deviation over held-out networks",
    "measured": "meas.: timed whole, ± one standard deviation of the median",
}


def final_table(summary: RunSummary) -> Table:
    """The best, the other finalists and the references; predicted and published top-1 in columns of their own."""
    table = _plain_table(summary.title, final_caption(summary), right=1)
    table.add_column("network", overflow="fold")
    table.add_column(_text(summary.score or "top-1 %"), justify="right", no_wrap=summary.score is None)
    table.add_column("published\ntop-1 %", justify="right", style="dim", no_wrap=True)
    heads = [f"ms on\n{summary.device}", *(["ms measured\nwhole"] if summary.timed else []), "M\nMAdds", "M\nparams"]
    for head in heads:
        table.add_column(_text(head), justify="right", no_wrap=True)
    for index, (network, cells) in enumerate(network_cells(summary)):
        is_best = network is summary.best
        if is_best:
            cells[0] += f" ({ORIGIN_WORDS.get(network.origin, network.origin)})"
        ends = index in (0, len(summary.finalists))
        table.add_row(*map(_text, cells), style="bold" if is_best else None, end_section=ends)
    return table


def network_cells(summary: RunSummary) -> list[tuple[ScoredNetwork, list[str]]]:
    """Each network and its name, top-1, published top-1, latency, time measured whole where any has one, and counts."""
    rows = []
    for n in summary.everyone:
        figures = [summary.top1_of(n, unit=False), published_text(n.published_top1), summary.latency_of(n, unit=False)]
        figures += [with_error(n.measured_ms, n.measured_error_ms, 2)] if summary.timed else []
        rows.append((n, [n.name, *figures, millions(n.madds), millions(n.parameters, 2)]))
    return rows


def final_caption(summary: RunSummary) -> str:
    """What the marks of the final table mean."""
    predicted = (
        f"pred.: predicted by {summary.evaluator}, ± one standard deviation; comparable only with other predictions, "
        "not with the published column\n"
    )
    return (predicted if summary.top1_estimated else "") + KIND_CAPTIONS[summary.device_kind]


def _plain_table(title: str, caption: str | None = None, right: int = 0) -> Table:
    """An empty table without rules; ``right`` is the cells' padding."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=_text(title), caption=_text(caption) if caption else None, box=SIMPLE_HEAD, title_justify="left",
        caption_justify="left", pad_edge=False, padding=(0, right, 0, 0), collapse_padding=True,
    )  # fmt: skip


def _text(words: str, style: str = "") -> Text:
    """Text in which brackets are brackets: names come from files."""
    from rich.text import Text

    return Text(words, style)


Agreement = Literal["equal", "last_digit", "differs"]
SIGNS: dict[Agreement, str] = {"equal": "=", "last_digit": "≈", "differs": "≠"}
LEGEND = "here: counted exactly; = as printed, ≈ within the last printed digit, ≠ beyond it; – not printed or not built"
HEADINGS = (
    "network", "top-1 %\nprinted", "MAdds\nM", "MAdds\nhere", "params\nM", "params\nhere",
    "Pixel\n1, ms", "2,\nms", "3,\nms", "see",
)  # fmt: skip
VERSIONS = {
    "v1": "first preprint, May 2019",
    "v5": "ICCV version, November 2019",
    "v5-int8": "quantised to int8",
    "v5-unoptimised": "without the optimised h-swish kernel",
    "zoo": "MobileNetV2",
    "zoo-v1": "MobileNetV1",
    "once-for-all": "specialised subnets, fine-tuned",
    "timm": "trained otherwise than in the papers",
}


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One printed row and our exact counts of the same network; None where it cannot be built."""

    figure: PublishedFigure
    madds: int | None
    parameters: int | None

    @property
    def madds_agreement(self) -> Agreement | None:
        """How our MAdds agree with the printed ones."""
        return agreement(self.figure.madds_m, self.madds)

    @property
    def parameters_agreement(self) -> Agreement | None:
        """How our parameters agree with the printed ones."""
        return agreement(self.figure.parameters_m, self.parameters, least_decimals=1)

    @property
    def reason(self) -> str:
        """The figure's note without our own counts, which stand in a column."""
        return re.sub(r"(MAdds|parameters): [0-9.]+ M here; ", r"\1: ", self.figure.note)

    def to_mapping(self) -> dict[str, object]:
        """Everything of the row, as JSON can hold it."""
        return {
            **asdict(self.figure),
            "network": self.figure.network or None,
            "madds": self.madds,
            "parameters": self.parameters,
            "madds_agreement": self.madds_agreement,
            "parameters_agreement": self.parameters_agreement,
        }


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """The rows of one source and version: figures within it are comparable with one another."""

    source: str
    version: str
    rows: tuple[PublishedRow, ...]

    @property
    def title(self) -> str:
        """Source and version in words."""
        return f"{self.source} ({VERSIONS.get(self.version, self.version)})"

    @property
    def summary(self) -> str:
        """How many printed counts are reproduced."""
        found = [a for r in self.rows for a in (r.madds_agreement, r.parameters_agreement) if a is not None]
        missing = sum(row.madds is None for row in self.rows)
        parts = [f"{len(self.rows)} rows"]
        if found:
            parts.append(f"{sum(a != 'differs' for a in found)} of {len(found)} printed counts reproduced")
        parts += [f"{missing} network{'s' if missing > 1 else ''} not built"] if missing else []
        return ", ".join(parts)

    def to_frame(self) -> DataFrame:
        """A row a network, with everything of :meth:`PublishedRow.to_mapping`."""
        import pandas as pd

        return pd.DataFrame([row.to_mapping() for row in self.rows])

    def to_mapping(self) -> dict[str, object]:
        """The table as JSON can hold it."""
        return {
            "title": self.title,
            "source": self.source,
            "version": self.version,
            "summary": self.summary,
            "rows": [row.to_mapping() for row in self.rows],
        }

    def to_rich(self) -> RenderableType:
        """The table for a terminal, its notes numbered below it."""
        from rich.console import Group

        notes = list(dict.fromkeys(row.reason for row in self.rows if row.reason))
        cells = [_published_cells(row, notes) for row in self.rows]
        kept = [i for i in range(len(HEADINGS)) if any(str(line[i]).strip(f"{NO_FIGURE} ") for line in cells)]
        table = _plain_table(self.title)
        for i in kept:
            table.add_column(HEADINGS[i], justify="right" if i else "left", no_wrap=i > 0)
        for line in cells:
            table.add_row(*(line[i] for i in kept))
        lines = [f"{self.summary}. {LEGEND}.", *(f"{number:>2}  {note}" for number, note in enumerate(notes, 1)), ""]
        return Group(table, *(_text(line, "dim") for line in lines))


def published_tables() -> tuple[PublishedTable, ...]:
    """Every published table, in the order in which the figures are kept, counted afresh."""
    rows: dict[tuple[str, str], list[PublishedRow]] = {}
    for figure in published_figures():
        rows.setdefault((figure.source, figure.version), []).append(_row(figure))
    return tuple(PublishedTable(*key, tuple(members)) for key, members in rows.items())


def agreement(printed_m: float | None, counted: int | None, least_decimals: int = 0) -> Agreement | None:
    """``equal`` where rounding the count gives the printed figure (in millions), ``last_digit`` where truncating does.

    ``least_decimals`` are those that the source prints at least, where trailing zeros are lost; None where a figure is
    missing.
    """
    if printed_m is None or counted is None:
        return None
    unit = 10.0 ** -_decimals(printed_m, least_decimals)
    away = abs(counted / 1e6 - printed_m)
    if away <= 0.5 * unit * (1 + 1e-9):
        return "equal"
    return "last_digit" if away < unit else "differs"


def _row(figure: PublishedFigure) -> PublishedRow:
    if not figure.network:
        return PublishedRow(figure, None, None)
    counts = count(parse_network(figure.network))
    return PublishedRow(figure, counts.madds, counts.parameters)


def _published_cells(row: PublishedRow, notes: list[str]) -> list[Text]:
    figure = row.figure
    words = [figure.label, _printed(figure.top1, 1), _printed(figure.madds_m)]
    words += [_counted(row.madds, row.madds_agreement, 1), _printed(figure.parameters_m, 1)]
    words += [_counted(row.parameters, row.parameters_agreement, 2)]
    words += [_printed(latency, 1) for latency in (figure.pixel1_ms, figure.pixel2_ms, figure.pixel3_ms)]
    words += [str(notes.index(row.reason) + 1) if row.reason else ""]
    return [_text(word, "yellow" if SIGNS["differs"] in word else "") for word in words]


def _decimals(printed: float, least: int) -> int:
    return max(least, len(f"{printed:.6f}".rstrip("0").partition(".")[2]))


def _printed(value: float | None, least_decimals: int = 0) -> str:
    return NO_FIGURE if value is None else f"{value:.{_decimals(value, least_decimals)}f}"


def _counted(value: int | None, agrees: Agreement | None, decimals: int) -> str:
    return NO_FIGURE if value is None else f"{value / 1e6:.{decimals}f} {SIGNS[agrees] if agrees else ' '}"
