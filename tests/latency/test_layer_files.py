"""The layers of a space as files: what is written, what is kept, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from layer_folders import small_plan, small_units

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.keys import unit_key, unit_of_key
from mnv3search.latency.layer_files.exported import file_sha256, planned_layers, read_layers, write_layers
from mnv3search.latency.runtimes.base import Subject, graph_of
from mnv3search.layers import units
from strategies import architectures

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("export") / "layers"
    write_layers(small_plan(), found)
    return found


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return content


def test_every_unit_is_one_file_and_networks_are_made_of_them() -> None:
    plan, parts = small_plan(), small_units()
    assert [entry.key for entry in plan.layers] == [unit_key(unit) for unit in parts]
    assert len(plan.networks) == 6
    for entry in plan.networks:
        assert isinstance(entry.subject, Architecture)
        assert set(units(entry.subject)) <= set(parts)
    assert len({entry.file for entry in plan.files}) == len(plan.files)


def test_files_are_the_graphs_that_the_manifest_says(folder: Path) -> None:
    content = manifest(folder)
    assert content["complete"] is True
    for entry in (*content["layers"], *content["networks"]):
        model = onnx.load(str(folder / entry["file"]))
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        assert shape == entry["input"]
        assert file_sha256(folder / entry["file"]) == entry["sha256"]


def test_the_size_is_told_before(folder: Path) -> None:
    plan = small_plan()
    written = sum((folder / entry.file).stat().st_size for entry in plan.files)
    assert 0.4 * plan.bytes < written < 2.5 * plan.bytes


def test_the_guide_names_a_file_and_the_columns(folder: Path) -> None:
    guide = (folder / "README.txt").read_text(encoding="utf-8")
    assert small_plan().files[0].file in guide
    assert "file,ms,minimum_ms" in guide
    assert "mnv3search device import --layers layers" in guide


def test_reads_back_what_was_planned(folder: Path) -> None:
    back = read_layers(folder)
    assert [(e.file, e.key, e.subject) for e in back.files] == [(e.file, e.key, e.subject) for e in small_plan().files]
    assert all(entry.sha256 for entry in back.files)


def test_an_interrupted_export_is_kept_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, folder = small_plan(), tmp_path / "layers"

    def interrupting(done: int, _total: int, _what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_layers(plan, folder, interrupting)
    with pytest.raises(DeviceError, match="was interrupted; finish it"):
        read_layers(folder)
    written: list[Subject] = []

    def emit(subject: Subject) -> bytes:
        written.append(subject)
        return graph_of(subject)

    monkeypatch.setattr("mnv3search.latency.layer_files.exported.graph_of", emit)
    assert write_layers(plan, folder) == 5
    assert len(written) == len(plan.files) - 5
    assert len(read_layers(folder).files) == len(plan.files)
    assert write_layers(plan, folder) == len(plan.files)


def test_a_file_that_was_changed_is_written_again(tmp_path: Path) -> None:
    plan, folder = small_plan(0), tmp_path / "layers"
    write_layers(plan, folder)
    damaged, gone = folder / plan.files[0].file, folder / plan.files[1].file
    damaged.write_bytes(b"x")
    gone.unlink()
    assert write_layers(plan, folder) == len(plan.files) - 2
    assert file_sha256(damaged) == read_layers(folder).files[0].sha256
    assert gone.exists()


def test_refuses_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DeviceError, match="no exported layers; choose an empty"):
        write_layers(small_plan(0), tmp_path)
    folder = tmp_path / "layers"
    write_layers(small_plan(0), folder)
    with pytest.raises(DeviceError, match="holds other layers, of space small"):
        write_layers(planned_layers("other", small_units()[:5], 0), folder)


def test_refuses_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DeviceError, match="MB free; make room"):
        write_layers(small_plan(0), tmp_path / "layers")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"layers": 3},
        {"layers": [{}]},
        {"layers": [{"file": "../x.onnx", "sha256": "", "key": "{}"}]},
        {"layers": [{"file": "x.onnx", "sha256": "", "key": "{}"}]},
        {"layers": [{"file": "x.onnx", "sha256": 3, "key": "{}"}]},
        {"networks": [{"file": "x.onnx", "sha256": "", "architecture": {}}]},
    ],
)
def test_refuses_damaged_manifests(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(manifest(folder) | change), encoding="utf-8")
    with pytest.raises(DeviceError, match="no whole manifest of layers"):
        read_layers(tmp_path)


def test_refuses_missing_and_cut_manifests(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="give the folder that export-layers wrote"):
        read_layers(tmp_path)
    (tmp_path / MANIFEST).write_text((folder / MANIFEST).read_text(encoding="utf-8")[:300], encoding="utf-8")
    with pytest.raises(DeviceError, match="no whole manifest"):
        read_layers(tmp_path)


@given(architectures())
@settings(max_examples=60)
def test_a_units_text_reads_back_to_an_equal_unit(network: Architecture) -> None:
    for unit in units(network):
        assert unit_key(unit_of_key(unit_key(unit))) == unit_key(unit)


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"kind":"block"}', "x" * 5000, '{"kind":"tail"}', "[" * 3000])
def test_no_other_text_is_a_unit(text: str) -> None:
    with pytest.raises(DeviceError, match="the text of no layer"):
        unit_of_key(text)
