from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from mnv3search.report.tables import PublishedRow, PublishedTable, agreement, published_tables


@pytest.fixture(scope="module")
def tables() -> tuple[PublishedTable, ...]:
    return published_tables()


def _row(tables: tuple[PublishedTable, ...], source: str, version: str, network: str) -> PublishedRow:
    (table,) = [t for t in tables if source in t.source and t.version == version]
    return next(row for row in table.rows if row.figure.network == network)


@pytest.mark.parametrize(
    ("printed", "counted", "least", "expected"),
    [
        (155.0, 154_560_624, 0, "equal"),
        (217.0, 216_589_760, 0, "equal"),
        (219.0, 216_589_760, 0, "differs"),
        (56.0, 56_510_400, 0, "last_digit"),
        (4.0, 3_993_528, 1, "equal"),
        (4.0, 4_450_000, 0, "equal"),
        (4.0, 4_450_000, 1, "differs"),
        (3.47, 3_504_872, 1, "differs"),
        (59.2, 59_250_000, 0, "equal"),
        (None, 1, 0, None),
        (1.0, None, 0, None),
    ],
)
def test_agreement_is_judged_at_the_printed_precision(
    printed: float | None, counted: int | None, least: int, expected: str | None
) -> None:
    assert agreement(printed, counted, least) == expected


def test_counts_stand_beside_the_papers_own(tables: tuple[PublishedTable, ...]) -> None:
    large = _row(tables, "Table 3", "v5", "mobilenet_v3_large")
    assert (large.madds, large.parameters) == (216_589_760, 5_483_032)
    assert large.figure.madds_m == 219
    assert large.madds_agreement == "differs"
    three_quarters = _row(tables, "Table 3", "v5", "mobilenet_v3_large@0.75")
    assert three_quarters.madds_agreement == three_quarters.parameters_agreement == "equal"


def test_every_difference_has_its_reason_or_says_that_none_is_known(tables: tuple[PublishedTable, ...]) -> None:
    for table in tables:
        for row in table.rows:
            if row.madds_agreement == "differs" and table.version != "timm":
                assert "MAdds" in row.reason, row.figure
            if row.parameters_agreement == "differs":
                assert "parameters" in row.reason, row.figure


def test_what_cannot_be_built_is_said(tables: tuple[PublishedTable, ...]) -> None:
    unbuilt = [row for table in tables for row in table.rows if row.madds is None]
    assert unbuilt
    assert all("not built" in row.figure.note for row in unbuilt)


def test_one_table_a_source_and_version(tables: tuple[PublishedTable, ...]) -> None:
    keys = [(table.source, table.version) for table in tables]
    assert len(keys) == len(set(keys))
    assert all(
        (row.figure.source, row.figure.version) == key for key, t in zip(keys, tables, strict=True) for row in t.rows
    )


def test_tables_are_json(tables: tuple[PublishedTable, ...]) -> None:
    found = json.loads(json.dumps([table.to_mapping() for table in tables], allow_nan=False))
    row = found[0]["rows"][0]
    assert row["network"] == "mobilenet_v3_large"
    assert (row["madds_m"], row["madds"], row["madds_agreement"]) == (219.0, 216_589_760, "differs")
    assert [r["network"] for r in found[0]["rows"] if r["madds"] is None] == [None]


def test_terminal_shows_all_rows_and_notes_uncut(tables: tuple[PublishedTable, ...]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=80, no_color=True).print(tables[0].to_rich())
    text = stream.getvalue()
    assert "…" not in text
    assert all(row.figure.label in text for row in tables[0].rows)
    assert "216.6 ≠" in text
    assert "154.6 =" in text
    assert "56.5 ≈" in text
    assert "1 network not built" in text
    assert " 4  not built" in text


def test_a_table_is_a_frame_of_its_rows(tables: tuple[PublishedTable, ...]) -> None:
    (table,) = [t for t in tables if "Table 3" in t.source and t.version == "v5"]
    frame = table.to_frame().set_index("network")
    assert len(frame) == len(table.rows)
    large = frame.loc["mobilenet_v3_large"]
    figures = ("top1", "madds_m", "madds", "madds_agreement", "pixel1_ms", "parameters")
    assert [large[name] for name in figures] == [75.2, 219, 216_589_760, "differs", 51, 5_483_032]
