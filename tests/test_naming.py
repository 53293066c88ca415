"""Networks as users name them: names, spaces, files and folders, and what is said of what names none."""

from __future__ import annotations

import csv
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trained_fakes import ARCHITECTURE, saved_fake

import mnv3search.runs.session
from mnv3search import load_evaluator, load_recipe, load_trained, parse_network
from mnv3search.architecture import dump_architecture, from_mapping
from mnv3search.errors import ArchitectureError, UnknownNameError, WeightsError
from mnv3search.families import NETWORKS, published
from mnv3search.families.scaling import scale_width
from mnv3search.runs.settings import RunSettings
from mnv3search.space import load_space, space_names


def test_published_names_mean_what_they_did() -> None:
    assert parse_network("mobilenet_v2@0.75/160") == published("mobilenet_v2", 0.75, 160)
    assert parse_network("mobilenet_v3_large@0.75:torchvision") == published(
        "mobilenet_v3_large", 0.75, None, "torchvision"
    )
    assert parse_network("mobilenet_v3_large:torchvision/160") == published("mobilenet_v3_large", 1.0, 160)


@pytest.mark.parametrize("space", space_names())
def test_a_space_stands_for_its_reference(space: str) -> None:
    assert space not in NETWORKS
    assert parse_network(space) == load_space(space).reference


def test_a_reference_has_widths_and_resolutions() -> None:
    reference = load_space("mnv3_small_32").reference
    assert (reference.resolution, reference.stem.stride, reference.classes) == (32, 1, 10)
    assert parse_network("mnv3_small_32@0.75") == scale_width(reference, 0.75)
    assert parse_network("mnv3_small_32@0.5/48") == scale_width(reference, 0.5).with_resolution(48)


def test_a_trained_network_names_its_architecture(tmp_path: Path) -> None:
    run = saved_fake(tmp_path / "run")
    assert parse_network(str(run)) == parse_network(str(run / "best.safetensors")) == ARCHITECTURE


def test_a_folder_names_what_was_found_in_it_or_else_what_was_begun_with(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text(dump_architecture(ARCHITECTURE))
    assert parse_network(str(tmp_path)) == ARCHITECTURE
    (tmp_path / "best.json").write_text(dump_architecture(published("mobilenet_v2")))
    assert parse_network(str(tmp_path)) == published("mobilenet_v2")


def test_a_name_goes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved_fake(tmp_path / "mobilenet_v2")
    assert parse_network("mobilenet_v2") == published("mobilenet_v2")
    assert parse_network("./mobilenet_v2") == ARCHITECTURE


def test_the_header_is_read_without_torch(tmp_path: Path) -> None:
    run = saved_fake(tmp_path / "run")
    code = "import sys; from mnv3search import parse_network; parse_network(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("text", ["runs/na5", "na5.json", "./na5", "here/160", "na5.safetensors", "na5.yaml"])
def test_a_path_that_is_none_is_not_answered_with_names(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(Exception, match=r"(?i)no such file") as refused:
        parse_network(text)
    assert text in str(refused.value)
    assert "mobilenet" not in str(refused.value)


def test_a_name_that_is_none_is_answered_with_the_nearest_of_both_kinds() -> None:
    with pytest.raises(UnknownNameError, match="mnv3_small_32"):
        parse_network("mnv3_small_23")
    with pytest.raises(UnknownNameError, match="unknown network 'mobilenet_v9'; did you mean"):
        parse_network("mobilenet_v9/160")


def test_a_folder_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"holds no best.json, best.safetensors or network.json"):
        parse_network(str(tmp_path))


def safetensors(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"\xff" * 64, "damaged"),
        (struct.pack("<Q", 100) + b"{}", "damaged"),
        (struct.pack("<Q", 4) + b"nope", "damaged"),
        (safetensors([]), "not as a trained network"),
        (safetensors({"__metadata__": {"format": "pt"}}), "not as a trained network"),
        (safetensors({"__metadata__": {"mnv3search": "[" * 50_000}}), "not as a trained network"),
        (safetensors({"__metadata__": {"mnv3search": '{"format": "mnv3search.trained", "version": 9}'}}), "version 9"),
        (safetensors({"__metadata__": {"mnv3search": '{"format": "mnv3search.trained", "version": 1}'}}), "object"),
    ],
    ids=["empty", "endless", "cut", "no JSON", "no object", "other", "deep", "version", "no architecture"],
)
def test_files_that_are_no_trained_network(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as refused:
        parse_network(str(file))
    assert "x.safetensors" in str(refused.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    settings = RunSettings("run", "mnv3_small", "14ms", "pixel1", "prior", trials=150, finalists=2)
    mnv3search.runs.session.start_run(settings, folder)
    return folder


def test_networks_of_a_run(run: Path) -> None:
    lines = [*csv.DictReader((run / "candidates.csv").open())]
    for line in (lines[0], lines[40], lines[-1]):
        assert str(parse_network(f"{run}:{line['number']}")) == line["blocks"]
    front = [*csv.DictReader((run / "pareto.csv").open())]
    assert str(parse_network(f"{run}:front/1")) == front[0]["blocks"]
    assert str(parse_network(f"{run}:front/{len(front)}")) == front[-1]["blocks"]
    steps = [*csv.DictReader((run / "netadapt.csv").open())]
    last = [step for step in steps if step["finalist"] == "2"][-1]
    assert parse_network(f"{run}:finalist/2") == from_mapping(json.loads(last["architecture"]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (":999999", "has no network 999999; of candidates.csv they go from 0 to"),
        (":front/0", "has no network front/0; of pareto.csv they go from 1 to"),
        (":finalist/7", "has no network finalist/7; of netadapt.csv they go from 1 to 2"),
    ],
)
def test_a_network_that_a_run_has_not(run: Path, name: str, said: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(said)):
        parse_network(f"{run}{name}")


@pytest.mark.parametrize("content", ["", "number,blocks\n0,x\n", "number,architecture\n0,{\n", "number\nx\n", "\xff"])
def test_a_damaged_table_of_a_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "candidates.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ArchitectureError, match=r"candidates\.csv"):
        parse_network(f"{tmp_path}:0")


def test_a_table_is_read_only_as_far_as_the_network(run: Path, tmp_path: Path) -> None:
    lines = (run / "candidates.csv").read_text().splitlines()
    (tmp_path / "candidates.csv").write_text("\n".join([*lines[:4], "damaged", *lines[5:]]) + "\n")
    number = next(csv.DictReader(lines))["number"]
    assert parse_network(f"{tmp_path}:{number}") == parse_network(f"{run}:{number}")
    (tmp_path / "candidates.csv").write_text(f"number,architecture\n0,{'x' * 2_000_000}\n")
    with pytest.raises(ArchitectureError, match="more bytes than such a table may have"):
        parse_network(f"{tmp_path}:0")


def test_a_run_without_tables(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"no such network: cannot read .*pareto\.csv"):
        parse_network(f"{tmp_path}:front/1")


def test_an_empty_text_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="unknown network ''"):
        parse_network("")


@pytest.mark.parametrize("load", [published, load_space, load_recipe, load_evaluator])
def test_none_is_no_name(load: Callable[[Any], object]) -> None:
    with pytest.raises(UnknownNameError, match="None"):
        load(None)


def test_a_run_that_trained_nothing_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match="holds no weights: its networks were not trained; train the best of them"):
        load_trained(tmp_path)
