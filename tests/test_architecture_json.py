"""Architectures survive JSON, and whatever else stands in a file is one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.architecture import (
    MAX_FILE_BYTES,
    Architecture,
    dump_architecture,
    from_mapping,
    load_architecture,
    parse_architecture,
    to_mapping,
)
from mnv3search.errors import ArchitectureError
from mnv3search.families import NETWORKS, parse_network
from strategies import architectures

SMALL = parse_network("mobilenet_v3_small")


@given(architectures())
def test_round_trip(architecture: Architecture) -> None:
    assert parse_architecture(dump_architecture(architecture)) == architecture
    assert from_mapping(to_mapping(architecture)) == architecture


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_published_networks_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(dump_architecture(parse_network(name)))
    assert load_architecture(path) == parse_network(name)
    assert parse_network(str(path)) == parse_network(name)


def test_defaults_are_left_out() -> None:
    mapping = to_mapping(SMALL)
    assert set(mapping) == {"stem", "blocks", "head"}
    assert mapping["blocks"][1] == {"kernel_size": 3, "expanded_channels": 72, "out_channels": 24, "stride": 2}


def test_a_runs_best_json_is_read() -> None:
    text = json.dumps({"architecture": to_mapping(SMALL), "top1": 67.4, "origin": "netadapt"})
    assert parse_architecture(text) == SMALL


@given(st.integers(0, len(dump_architecture(SMALL)) - 2))
def test_a_truncated_file_is_an_error(length: int) -> None:
    with pytest.raises(ArchitectureError, match=r"network\.json is not JSON that"):
        parse_architecture(dump_architecture(SMALL)[:length], "network.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_any_other_json_is_an_error(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"architecture": value})):
        with pytest.raises(ArchitectureError):
            parse_architecture(text)


@given(st.data())
def test_a_wrong_value_at_any_place_is_an_architecture_error_or_an_architecture(data: st.DataObject) -> None:
    """Nothing but ArchitectureError may come out, and what is accepted must survive a round trip."""
    mapping = to_mapping(parse_network("mobilenet_v3_small_xiaolai"))
    part: Any = data.draw(
        st.sampled_from(
            [mapping, mapping["stem"], mapping["head"], *mapping["blocks"], mapping["blocks"][0]["squeeze_excite"]]
        )
    )
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)
    try:
        architecture = parse_architecture(json.dumps({"architecture": mapping}))
    except ArchitectureError:
        return
    assert parse_architecture(dump_architecture(architecture)) == architecture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": {}}, "blocks must be a list"),
        ({"blocks": [3]}, r"blocks\[0\] must be an object, not int"),
        ({"blocks": []}, "1 to 512 blocks"),
        ({"stem": None}, "stem must be an object"),
        ({"stem": {}}, "stem lacks out_channels"),
        ({"head": {"feature_channels": 8, "colour": 1}}, "head.colour is unknown; the fields are feature_channels"),
        ({"head": {"feature_channels": 8, "squeeze_excite": "yes"}}, "head.squeeze_excite must be an object, not str"),
        ({"resolution": "224"}, "Architecture.resolution is '224'"),
        ({"norm_eps": float("nan")}, "NaN is no number"),
        ({"_hash": 1}, "_hash is unknown"),
    ],
)
def test_errors_say_where(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        parse_architecture(json.dumps({"architecture": to_mapping(SMALL) | change}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON that"),
        ("[1, 2]", "has no 'architecture'"),
        ('{"architecture": [' * 2000, "is not JSON that"),
        ("[" * 100_000, "is not JSON that"),
        ('{"architecture": ' + "9" * 5000 + "}", "is not JSON that"),
        ('{"architecture": {}, "architecture": {}}', "'architecture' is given twice"),
        (
            '{"format": "mnv3search.space/1", "architecture": {}}',
            "format 'mnv3search.space/1'; .* has 'mnv3search.arch",
        ),
        (
            '{"format": "mnv3search.architecture", "version": 2, "architecture": {}}',
            "has version 2; .* reads version 1",
        ),
    ],
)
def test_texts_that_hold_no_architecture(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        parse_architecture(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.json").write_text(" " * (MAX_FILE_BYTES + 1))
    for name in ("missing.json", "binary.json", "."):
        with pytest.raises(ArchitectureError, match="cannot read"):
            load_architecture(tmp_path / name)
    with pytest.raises(ArchitectureError, match="more than the 4,000,000 bytes"):
        load_architecture(tmp_path / "large.json")
