"""Run folders: made once, opened again, and refused where they are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mnv3search.errors import EvaluatorError, InfeasibleError, RunError
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.settings import RunSettings

SETTINGS = RunSettings("run", "mnv3_large", "50ms", "pixel1", "prior", trials=100, seed=3)


def test_a_folder_opens_with_the_settings_that_it_was_made_with(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a", SETTINGS)
    assert RunFolder.open(tmp_path / "a").settings == SETTINGS


def test_the_default_name_has_date_space_and_target_and_never_collides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = RunFolder.create(None, SETTINGS), RunFolder.create(None, SETTINGS)
    assert first.path.name.endswith("-mnv3_large-50ms")
    assert second.path.name.endswith("-mnv3_large-50ms-2")
    assert first.path.parent.name == "runs"


def test_runs_that_begin_together_each_have_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    together, made = threading.Barrier(6), []

    def begin() -> None:
        together.wait()
        made.append(RunFolder.create(None, SETTINGS).path)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 6


BEGIN = """
import sys
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.settings import RunSettings
sys.stdin.readline()
print(RunFolder.create(None, RunSettings("run", "mnv3_large", "50ms", "pixel1", "prior")).path)
"""


def test_processes_that_begin_in_one_second_each_have_a_folder(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN], cwd=tmp_path, text=True, env={**os.environ, "PYTHONPATH": root},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("begin\n")
        process.stdin.flush()
    made = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(made) == 3
    assert {RunFolder.open(tmp_path / path).manifest["status"] for path in made} == {"running"}


def test_two_that_begin_in_one_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with RunFolder._made(tmp_path / "a", SETTINGS), pytest.raises(RunError, match="another process works on"):
        RunFolder.create(tmp_path / "a", SETTINGS)
    assert RunFolder.open(tmp_path / "a").settings == SETTINGS


def test_a_folder_that_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), RunFolder._made(tmp_path / "a", SETTINGS) as folder:  # noqa: PT012
        (folder.path / "network.json").touch()
        raise OSError("full")
    assert not (tmp_path / "a").exists()
    RunFolder.create(tmp_path / "a", SETTINGS)


def test_the_seconds_of_every_session_count_that_of_a_killed_one_too(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    folder.manifest["seconds"] = 100.0
    folder.write_json("manifest.json", folder.manifest)
    noted = (folder.path / "manifest.json").stat().st_mtime
    folder.study.touch()
    os.utime(folder.study, (noted + 50, noted + 50))  # it was killed after 50 s more
    again = RunFolder.open(folder.path)
    (again.path / "log.txt").touch()  # by the session that goes on, before it counts
    os.utime(again.path / "log.txt", (noted + 9_000, noted + 9_000))
    again.continued()
    again.finish("finished")
    assert 150 <= RunFolder.open(folder.path).manifest["seconds"] < 160
    third = RunFolder.open(folder.path)
    third.continued()
    third.note()
    assert 150 <= RunFolder.open(folder.path).manifest["seconds"] < 170


def test_only_what_a_session_writes_counts_as_its_work(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    noted = (folder.path / "manifest.json").stat().st_mtime
    (folder.path / "mine.txt").write_text("a note, days after it was killed")
    os.utime(folder.path / "mine.txt", (noted + 90_000, noted + 90_000))
    folder.study.touch()
    os.utime(folder.study, (noted - 90_000, noted - 90_000))  # copied with its times, the manifest without
    again = RunFolder.open(folder.path)
    again.continued()
    assert 0 <= again.manifest["seconds"] < 10


def test_a_finished_run_whose_folder_is_refused_stays_finished(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    folder.finish("finished")
    (folder.path / "report.html").symlink_to(tmp_path / "elsewhere")
    before = (folder.path / "manifest.json").read_bytes()
    with pytest.raises(RunError, match="is a link"), RunFolder.open(folder.path).session(resumed=True):
        raise AssertionError
    interrupted = RunFolder.create(tmp_path / "b", SETTINGS)
    interrupted.finish("interrupted")
    (interrupted.path / "report.html").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link"), RunFolder.open(interrupted.path).session(resumed=True):
        raise AssertionError
    assert (folder.path / "manifest.json").read_bytes() == before
    assert RunFolder.open(interrupted.path).manifest["status"] == "interrupted"


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match=r"not an empty folder.*--resume"):
        RunFolder.create(tmp_path, SETTINGS)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_the_manifest_says_with_what_it_was_made(tmp_path: Path) -> None:
    manifest = json.loads((RunFolder.create(tmp_path / "a", SETTINGS).path / "manifest.json").read_text())
    assert manifest["status"] == "running"
    assert manifest["settings"]["seed"] == 3
    assert {"numpy", "optuna", "torch"} <= set(manifest["environment"]["versions"])
    assert manifest["environment"]["cores"] >= 1


def test_how_a_session_ended_is_noted(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    with pytest.raises(KeyboardInterrupt) as stopped, folder.closing_notes():
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == [
        f"what was finished is kept: go on with mnv3search {SETTINGS.kind} --resume {folder.path}"
    ]
    assert RunFolder.open(tmp_path / "a").manifest["status"] == "interrupted"
    with pytest.raises(InfeasibleError), folder.closing_notes():
        raise InfeasibleError(1.0, 2.0, 3.0, exact=True)
    reopened = RunFolder.open(tmp_path / "a").manifest
    assert (reopened["status"], reopened["fastest_ms"], reopened["slowest_ms"]) == ("infeasible", 2.0, 3.0)
    with pytest.raises(EvaluatorError), folder.closing_notes():
        raise EvaluatorError("gave nan")
    assert RunFolder.open(tmp_path / "a").manifest["status"] == "failed"


def test_a_note_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    (folder.path / "manifest.json").unlink()
    folder.path.rmdir()
    with pytest.raises(EvaluatorError, match="gave nan"), folder.closing_notes():
        raise EvaluatorError("gave nan")


def test_a_copied_device_goes_before_the_name_that_it_had(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    assert folder.device == "pixel1"
    folder.device_copy.write_text("{}")
    assert folder.device == str(tmp_path / "a" / "device.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not a run"),
        ({"version": 99}, "version 99"),
        ({"settings": None}, "settings"),
        ({"settings": {"kind": "run"}}, "incomplete"),
        ({"settings": {**SETTINGS.to_mapping(), "seed": "x"}}, "seed"),
        ({"settings": {**SETTINGS.to_mapping(), "trials": -1}}, "trials"),
        ({"settings": {**SETTINGS.to_mapping(), "extra": 1}}, "unknown settings"),
        ({"settings": {**SETTINGS.to_mapping(), "seed": True}}, "seed"),
        ({"settings": {**SETTINGS.to_mapping(), "kind": "walk"}}, "walk"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"sessions": None}, "sessions is None"),
    ],
)
def test_a_manifest_that_is_none_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    (folder.path / "manifest.json").write_text(json.dumps({**folder.manifest, **change}))
    with pytest.raises(RunError, match=words):
        RunFolder.open(folder.path)


def test_a_folder_without_or_with_a_broken_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunError, match="not a run"):
        RunFolder.open(tmp_path / "none")
    (tmp_path / "manifest.json").write_text('{"format": ')
    with pytest.raises(RunError, match="damaged"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"trials": 0},
        {"slack": -1.0},
        {"slack": float("nan")},
        {"objectives": 3},
        {"seed": -1},
        {"confidence": 0.49},
        {"confidence": 1.0},
        {"confidence": float("nan")},
    ],
)
def test_settings_out_of_range_name_themselves(change: dict[str, object]) -> None:
    name = next(iter(change))
    with pytest.raises(RunError, match=name):
        RunSettings(**{**SETTINGS.to_mapping(), **change})


def test_the_default_name_leaves_the_ending_of_a_file_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = RunFolder.create(None, replace(SETTINGS, subject="tiny.yaml", target="20ms"))
    assert found.path.name.endswith("-tiny-20ms")


def test_a_run_from_before_there_was_a_confidence_aimed_at_the_latency_itself(tmp_path: Path) -> None:
    settings = SETTINGS.to_mapping()
    assert settings.pop("confidence") == 0.9
    assert RunSettings.from_mapping(settings, "manifest.json") == replace(SETTINGS, confidence=0.5)


def test_a_folder_in_which_nothing_was_found_is_discarded_whole(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    folder.pinned.write_text("{}")
    folder.discard()
    assert not folder.path.exists()


def test_what_no_run_writes_or_a_search_has_begun_is_not_discarded(tmp_path: Path) -> None:
    mine, begun = RunFolder.create(tmp_path / "a", SETTINGS), RunFolder.create(tmp_path / "b", SETTINGS)
    (mine.path / "mine.txt").write_text("precious")
    begun.study.write_text("")
    mine.discard()
    begun.discard()
    assert [p.name for p in mine.path.iterdir()] == ["mine.txt"]
    assert (begun.path / "manifest.json").exists()


def test_a_folder_in_which_a_killed_process_left_its_lock_is_free_and_no_later_work(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").touch()
    folder = RunFolder.create(tmp_path / "a", SETTINGS)
    folder.note(status="running")
    (folder.path / ".lock").touch()
    later = (folder.path / "manifest.json").stat().st_mtime + 1000
    os.utime(folder.path / ".lock", (later, later))
    again = RunFolder.open(folder.path)
    again.continued()
    assert again.seconds < 500
    again.discard()
    assert not again.path.exists()
