from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from mnv3search.cost import count
from mnv3search.errors import UnknownNameError
from mnv3search.families import parse_network, published
from mnv3search.families.figures import PublishedFigure, published_figures

_TEXT = (files("mnv3search.families") / "published.csv").read_text(encoding="utf-8")
RAW = list(csv.DictReader(_TEXT.splitlines()))
BUILDABLE = [(raw, row) for raw, row in zip(RAW, published_figures(), strict=True) if row.network]


def _rounding(text: str, *, is_timm_madds: bool) -> float:
    """Half a unit of the last printed digit; timm prints giga with two decimals."""
    return 5.0 if is_timm_madds else 0.5 * 10.0 ** -(len(text.partition(".")[2]))


@pytest.mark.parametrize(("raw", "row"), BUILDABLE, ids=[f"{r.version}-{r.network}-{r.label}" for _, r in BUILDABLE])
def test_printed_counts_are_ours_or_the_note_says_why(raw: dict[str, str], row: PublishedFigure) -> None:
    counts = count(parse_network(row.network))
    for column, ours, word in (
        ("madds_m", counts.madds / 1e6, "MAdds:"),
        ("parameters_m", counts.parameters / 1e6, "parameters:"),
    ):
        if not raw[column]:
            continue
        gap = abs(ours - float(raw[column]))
        agrees = gap <= _rounding(raw[column], is_timm_madds=row.version == "timm" and column == "madds_m") + 1e-9
        # a stale exception is as wrong as a missing one
        assert agrees != (word in row.note), (row.network, column, raw[column], ours, row.note)
        assert gap <= max(10.0 if row.version == "timm" else 0.0, 0.31 * ours)


def test_exceptions_outside_timm_and_the_preprint_are_few_and_small() -> None:
    for raw, row in BUILDABLE:
        if row.version in ("timm", "v1") or "preprint's count" in row.note:
            continue
        counts = count(parse_network(row.network))
        if (
            raw["madds_m"]
            and row.network != "mobilenet_v3_small_minimalistic"
            and row.network != "mobilenet_v1@0.25/192"
        ):
            assert abs(counts.madds / 1e6 - float(raw["madds_m"])) <= max(0.05 * counts.madds / 1e6, 1.0)
        if raw["parameters_m"]:
            assert abs(counts.parameters / 1e6 - float(raw["parameters_m"])) <= 0.15


def test_table_3_of_the_iccv_version() -> None:
    rows = {r.network: r for r in published_figures() if r.source.endswith("Table 3") and r.version == "v5"}
    large = rows["mobilenet_v3_large"]
    assert (large.top1, large.pixel1_ms, large.pixel2_ms, large.pixel3_ms) == (75.2, 51, 61, 44)
    assert rows["mobilenet_v2@0.35"].pixel3_ms == 13.9
    assert rows[""].label == "ProxylessNAS"


def test_sizes_of_the_tables() -> None:
    rows = published_figures()
    by_source = [sum(r.source == s for r in rows) for s in ("tensorflow/models mobilenet_v1.md",)]
    zoo = [r for r in rows if r.source == "tensorflow/models mobilenet/README.md"]
    assert by_source == [16]
    assert sum("V2" in r.label for r in zoo) == 22
    assert sum("V3" in r.label for r in zoo) == 9
    assert sum(r.source.endswith("multipliers") for r in rows) == 20
    assert sum(r.source.endswith("Table 3") for r in rows) == 18


def test_int8_rows_stand_apart() -> None:
    for row in published_figures():
        assert ("int8" in row.label) == (row.version == "v5-int8") == ("int8:" in row.note)


def test_table_5_names_are_their_ablations() -> None:
    relu, all_swish, deep = (parse_network(f"mobilenet_v3_large_{x}") for x in ("relu", "hswish16", "hswish112"))
    full = parse_network("mobilenet_v3_large")
    assert {b.activation for b in relu.blocks} | {relu.stem.activation, relu.head.activation} == {"relu"}
    assert {b.activation for b in all_swish.blocks} == {"hard_swish"}
    assert [b.activation for b in deep.blocks].count("hard_swish") == 5
    assert [b.activation for b in full.blocks].count("hard_swish") == 9
    assert len({count(n).madds for n in (relu, all_swish, deep, full)}) == 1


def test_every_row_has_its_provenance() -> None:
    for row in published_figures():
        assert row.label
        assert row.source
        assert row.version
        assert row.network or row.note.startswith("not built:")


def test_a_name_like_no_other_is_answered_with_all_names() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown network 'zzz'; known are efficientnet_b0, .*single_path_nas"):
        published("zzz")
