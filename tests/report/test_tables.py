from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from mnv3search.report.summary import RunSummary
from mnv3search.report.tables import final_table


def _printed(renderable: Any, width: int = 120) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, no_color=True).print(renderable)
    return stream.getvalue()


def test_every_row_marks_what_is_predicted_and_estimated(summary: RunSummary) -> None:
    lines = _printed(final_table(summary)).splitlines()
    for network in (*summary.finalists, *summary.references):
        (line,) = [line for line in lines if line.split()[: len(network.name.split())] == network.name.split()]
        assert "pred." in line
        assert "est." in line
        assert line.count("±") == 2
    (best,) = [line for line in lines if line.strip().startswith("best (NetAdapt)")]
    assert "pred." in best
    assert "est." in best


def test_published_top1_has_a_column_of_its_own(summary: RunSummary) -> None:
    table = final_table(summary)
    headers = [str(column.header) for column in table.columns]
    assert headers[1:3] == ["top-1 %", "published\ntop-1 %"]
    published = [str(cell) for cell in table.columns[2].cells]
    count = 1 + len(summary.finalists)
    assert published == ["–"] * count + [f"{j.published_top1:.1f}" for j in summary.references]
    assert "not with the published column" in " ".join(_printed(table).split())


def test_measured_column_appears_with_a_measurement(summary: RunSummary) -> None:
    assert len(final_table(summary).columns) == 6
    timed = replace(summary, best=replace(summary.best, measured_ms=8.25, measured_error_ms=0.04))
    assert "8.25 ±0.04" in _printed(final_table(timed))


@pytest.mark.parametrize(("kind", "mark"), [("table", "table"), ("measured", "meas.")])
def test_other_kinds_have_other_marks(summary: RunSummary, kind: Any, mark: str) -> None:
    text = _printed(final_table(replace(summary, device_kind=kind, top1_estimated=False)))
    assert "est." not in text
    assert "pred." not in text
    assert f"{mark}:" in text


def test_names_are_no_markup(summary: RunSummary) -> None:
    text = _printed(final_table(replace(summary, title="[red]t[/red]", best=replace(summary.best, name="[bold]b"))))
    assert "[red]t[/red]" in text
    assert "[bold]b" in text


def test_no_figure_is_cut_at_80_columns(summary: RunSummary) -> None:
    text = _printed(final_table(summary), 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
