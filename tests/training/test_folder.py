"""A training's folder: made once, opened again, and refused where it is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_fakes import PREPROCESSING, RECIPE, TINY

from mnv3search.errors import RunError
from mnv3search.training.folder import TrainingFolder, TrainingSettings

SETTINGS = TrainingSettings(
    "mobilenet_v2@0.5", "/flowers", RECIPE.to_mapping(), RECIPE.name, PREPROCESSING.to_mapping(), seed=3
)


def make(path: Path) -> TrainingFolder:
    return TrainingFolder.create(path, SETTINGS, TINY, {"train": 8})


def test_it_is_opened_as_it_was_made(tmp_path: Path) -> None:
    made = make(tmp_path / "a")
    made.finish("finished", best={"val_accuracy": 50.0})
    found = TrainingFolder.open(tmp_path / "a")
    found.continued()
    assert found.settings == SETTINGS
    assert found.settings.loaded_recipe() == RECIPE
    assert found.settings.loaded_preprocessing() == PREPROCESSING
    assert found.architecture() == TINY
    assert (found.manifest["status"], found.manifest["sessions"]) == ("running", 2)
    assert "torch" in found.manifest["environment"]["versions"]


def test_default_names_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [TrainingFolder.create(None, SETTINGS, TINY, {}).path for _ in range(2)]
    assert paths[0].name.endswith("-train-mobilenet_v2@0.5")
    assert paths[1].name == f"{paths[0].name}-2"


def test_how_a_session_ended(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt), folder.closing_notes():
        raise KeyboardInterrupt
    assert TrainingFolder.open(folder.path).manifest["status"] == "interrupted"
    with pytest.raises(RunError), folder.closing_notes():
        raise RunError("x")
    assert TrainingFolder.open(folder.path).manifest["status"] == "failed"


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="--resume"):
        make(tmp_path)


def test_a_file_in_the_way_is_named_and_not_resumed(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("precious")
    for path in (file, file / "below" / "run"):
        with pytest.raises(RunError, match=r"notes\.txt is a file; choose another --out") as refused:
            make(path)
        assert "--resume" not in str(refused.value)
    assert file.read_text() == "precious"


def test_an_interrupt_says_the_command_that_goes_on_as_it_is_typed(tmp_path: Path) -> None:
    folder = make(tmp_path / "two words")
    with pytest.raises(KeyboardInterrupt) as stopped, folder.resumable():
        raise KeyboardInterrupt
    (note,) = stopped.value.__notes__
    assert note.endswith(f"go on with mnv3search train --resume '{folder.path}'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "mnv3search.run"}, "format"),
        ({"version": 2}, "version 2"),
        ({"seconds": "long"}, "damaged"),
        ({"settings": {"network": "x"}}, "settings must be"),
        ({"settings": SETTINGS.to_mapping() | {"seed": "3"}}, "seed is '3'"),
        ({"settings": SETTINGS.to_mapping() | {"freeze": "all"}}, "freeze is 'all'"),
    ],
)
def test_a_manifest_that_no_training_wrote(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = make(tmp_path / "a")
    (folder.path / "manifest.json").write_text(json.dumps(folder.manifest | change))
    with pytest.raises(RunError, match=words):
        TrainingFolder.open(folder.path)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\x00"])
def test_a_manifest_that_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError):
        TrainingFolder.open(tmp_path)
    with pytest.raises(RunError, match="no readable manifest"):
        TrainingFolder.open(tmp_path / "gone")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_full_disk_while_it_is_made_leaves_what_can_be_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    written: list[Path] = []

    def write(path: Path, text: str) -> None:
        if len(written) == count:
            raise RunError(f"cannot write {path}: No space left on device")
        written.append(path)
        path.write_text(text)

    monkeypatch.setattr("mnv3search.manifest.write_text", write)
    monkeypatch.setattr("mnv3search.training.folder.write_text", write)
    with pytest.raises(RunError, match="No space left"):
        make(tmp_path / "a")
    monkeypatch.undo()
    assert make(tmp_path / "a").architecture() == TINY


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_folder_whose_process_was_killed_while_it_was_made_can_be_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    written: list[Path] = []

    def write(path: Path, text: str) -> None:
        if len(written) == count:
            path.with_name(f".{path.stem}.part.json").write_text("{")
            raise KeyboardInterrupt
        written.append(path)
        path.write_text(text)

    with monkeypatch.context() as patch:
        patch.setattr("mnv3search.manifest.write_text", write)
        patch.setattr("mnv3search.training.folder.write_text", write)
        patch.setattr(TrainingFolder, "_remove", lambda *_: None)  # nobody tidies up after SIGKILL
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "a")
    assert list((tmp_path / "a").iterdir())
    with pytest.raises(RunError, match="begin it anew, without --resume" if count else "no readable manifest"):
        TrainingFolder.open(tmp_path / "a")
    make(tmp_path / "a")
    found = TrainingFolder.open(tmp_path / "a")
    assert (found.architecture(), found.manifest["status"]) == (TINY, "running")
    with pytest.raises(RunError, match="is not an empty folder"):
        make(tmp_path / "a")


@pytest.mark.parametrize("name", ["network.json", "notes.txt"])
def test_a_persons_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("precious")
    with pytest.raises(RunError, match="is not an empty folder"):
        make(tmp_path / "mine")
    made = make(tmp_path / "a")
    made.note(status="beginning")
    (tmp_path / "a" / "notes.txt").write_text("precious")
    with pytest.raises(RunError, match="is not an empty folder"):
        make(tmp_path / "a")
    assert (tmp_path / "mine" / name).read_text() == (tmp_path / "a" / "notes.txt").read_text() == "precious"
