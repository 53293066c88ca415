"""Runs whose evaluator learns from images, or gives a score: what is asked, kept, resumed and said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from image_fakes import make_image_folder

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.accuracy.proxy import Proxy
from mnv3search.architecture import Architecture
from mnv3search.errors import (
    ArchitectureError,
    DataError,
    EvaluatorError,
    InfeasibleError,
    RunError,
    UnknownNameError,
    WeightsError,
)
from mnv3search.report.summary import headline
from mnv3search.runs.artifacts import RunOutcome
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.progress import SilentProgress
from mnv3search.runs.session import resume_run, start_run
from mnv3search.runs.settings import RunSettings, space_settings
from mnv3search.training.trained import load_trained

SPACE = """format: mnv3search.space/1
defaults: {reference: null, device: pixel1, evaluator: null}
resolution: 16
classes: 10
stem: {out_channels: 8, stride: 2}
stages:
  - {out_channels: 8, stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: [1, 2, 3]}}
head: {feature_channels: null}
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSettings:
    """A run over a space of 10 classes with images of 3."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mnv3search.report.pareto.ParetoFigure.save", lambda *_: None)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    make_image_folder(tmp_path / "images", 3, per_class=8, side=16)
    return RunSettings(
        "run",
        "tiny.yaml",
        "4x",
        "pixel1",
        "proxy:epochs=1",
        trials=4,
        sampler="random",
        finalists=0,
        data=str(tmp_path / "images"),
        confidence=0.5,
    )


def judged(outcome: RunOutcome) -> list[tuple[str, float]]:
    return [(str(c.architecture), c.top1) for c in outcome.summary.candidates]


def test_a_run_trains_its_networks_on_the_images_and_keeps_them(asked: RunSettings) -> None:
    outcome = start_run(asked, Path("r"))
    best = outcome.summary.best
    assert best.architecture.classes == 3
    assert best.top1 == max(top1 for _, top1 in judged(outcome))
    assert best.top1_std is not None
    kept = list(Path("r/proxy").glob("*.safetensors"))
    assert len(kept) == outcome.evaluated >= 4
    manifest = json.loads(Path("r/manifest.json").read_text())
    assert manifest["data"]["classes"] == ["class_0", "class_1", "class_2"]
    assert manifest["data"]["train"]["images"] == 24
    assert manifest["settings"]["data"] == asked.data
    notes = " ".join(outcome.summary.notes)
    assert "short training" in notes
    assert "NetAdapt was left out" in notes


def test_a_network_that_a_run_trained_is_named_by_its_number(asked: RunSettings) -> None:
    candidate = start_run(asked, Path("r")).summary.candidates[1]
    trained = load_trained(f"r:{candidate.number}")
    assert (trained.architecture, trained.classes) == (candidate.architecture, ("class_0", "class_1", "class_2"))
    for file in Path("r/proxy").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(WeightsError, match=r"r:0 has no weights in r/proxy: it was searched, not trained"):
        load_trained("r:0")
    with pytest.raises(ArchitectureError, match=r"r has no network 999; of candidates\.csv they go from 0"):
        load_trained("r:999")


def test_an_interrupted_run_goes_on_without_training_again(asked: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = start_run(asked, Path("whole"))
    train = Proxy._trained
    trained: list[Architecture] = []

    def until_the_third(self: Proxy, architecture: Architecture, *more: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(architecture)
        return train(self, architecture, *more)

    monkeypatch.setattr(Proxy, "_trained", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        start_run(asked, Path("r"))
    assert json.loads(Path("r/manifest.json").read_text())["status"] == "interrupted"
    before = len(trained)

    def noted(self: Proxy, architecture: Architecture, *more: Any) -> Any:
        trained.append(architecture)
        return train(self, architecture, *more)

    monkeypatch.setattr(Proxy, "_trained", noted)
    outcome = resume_run(Path("r"))
    assert outcome.evaluated == undisturbed.evaluated
    assert len(trained) - before == outcome.evaluated - before
    assert len(trained) == len(set(trained))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "train/class_0/0000.png").unlink(), "train was 24 images"),
        (lambda root: (root / "val/class_1/0003.png").rename(root / "val/class_1/other.png"), "val was"),
        (lambda root: make_image_folder(root, ["class_3"], per_class=8, side=16), "classes was 3 classes"),
    ],
    ids=["fewer", "renamed", "classes"],
)
def test_other_images_are_no_way_to_resume(asked: RunSettings, change: Any, words: str) -> None:
    start_run(asked, Path("r"))
    change(Path("images"))
    with pytest.raises(RunError, match=words):
        resume_run(Path("r"))


def test_what_the_trainings_will_take_is_said_before_any(asked: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proxy, "evaluate_until", lambda *_: Evaluation(50.0, 9.0, ((1, 50.0),)))
    monkeypatch.setattr(Proxy, "seconds_each", lambda *_: 300.0)
    said: list[str] = []

    class Told(SilentProgress):
        def note(self, text: str) -> None:
            said.append(text)

    start_run(asked, Path("r"), progress=Told())
    assert any("about 5 min to train a network" in text and "25 min for the 4 of the search" in text for text in said)


def test_networks_that_learnt_nothing_are_no_ranking(asked: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proxy, "evaluate_until", lambda *_: Evaluation(100 / 3, 9.0, ((1, 100 / 3),)))
    outcome = start_run(asked, Path("r"))
    first = headline(outcome.summary)[0]
    assert first.label == "No ranking"
    assert "not above chance (33.3 %)" in first.text
    assert Path("r/report.html").read_text().index("not above chance") < Path("r/report.html").read_text().index(
        "Found"
    )
    assert outcome.to_mapping()["no_ranking"] == first.text


def test_finalists_can_be_asked_for(asked: RunSettings) -> None:
    narrow = replace(asked, target="2x", finalists=1, slack=1.0, step_fraction=0.3, trials=2)
    outcome = start_run(narrow, Path("r"))
    assert not any("left out" in note for note in outcome.summary.notes)
    assert Path("r/netadapt.csv").exists()


def test_a_score_is_shown_as_one(asked: RunSettings) -> None:
    outcome = start_run(replace(asked, evaluator="zero_cost:zen,images=4", data=None, finalists=1), Path("r"))
    said = " ".join(sentence.text for sentence in headline(outcome.summary))
    assert "score" in said
    assert "no accuracy" in said
    assert "top-1" not in said
    page = Path("r/report.html").read_text()
    assert "top-1, %" not in page.replace("published top-1, %", "")
    assert json.loads(Path("r/best.json").read_text())["score"] == outcome.summary.score
    assert outcome.summary.best.architecture.classes == 10


@pytest.mark.parametrize(
    ("evaluator", "trials", "finalists"),
    [("proxy", 24, 0), ("zero_cost:zen", 1000, 3), ("zero_cost:madds", 5000, 3), ("prior", 5000, 3)],
)
@pytest.mark.usefixtures("asked")
def test_dear_evaluators_are_asked_less(evaluator: str, trials: int, finalists: int) -> None:
    settings = space_settings("run", "tiny.yaml", "1.5x", evaluator=evaluator, data="images")
    assert (settings.trials, settings.finalists) == (trials, finalists)


@pytest.mark.usefixtures("asked")
def test_what_is_missing_is_named_before_a_folder_is_made() -> None:
    with pytest.raises(EvaluatorError, match=r"--data.*--evaluator"):
        space_settings("run", "tiny.yaml", "1.5x")
    with pytest.raises(EvaluatorError, match="--data"):
        space_settings("run", "tiny.yaml", "1.5x", evaluator="proxy")
    with pytest.raises(DataError):
        space_settings("run", "tiny.yaml", "1.5x", evaluator="proxy", data="nowhere")
    with pytest.raises(UnknownNameError, match="median"):
        space_settings("run", "tiny.yaml", "1.5x", evaluator="proxy", data="images", pruner="medain")


def test_settings_of_before_there_were_images_are_read(asked: RunSettings) -> None:
    old = {key: value for key, value in asked.to_mapping().items() if key not in {"data", "pruner"}}
    read = RunSettings.from_mapping(old, "manifest.json")
    assert (read.data, read.pruner) == (None, "auto")
    with pytest.raises(RunError, match="data is 3"):
        RunSettings.from_mapping({**asked.to_mapping(), "data": 3}, "manifest.json")


def test_a_folder_that_moves_takes_its_networks_along(asked: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    start_run(asked, Path("r"))
    shutil.move("r", "moved")
    monkeypatch.setattr(Proxy, "_trained", lambda *_: pytest.fail("trained again"))
    (Path("moved") / "study.log").unlink()
    (Path("moved") / "evaluations.jsonl").unlink()
    assert resume_run(Path("moved")).summary.best.top1 is not None
    assert RunFolder.open(Path("moved")).settings == asked


def test_a_run_goes_on_from_another_folder_and_after_its_images_moved(
    asked: RunSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start_run(replace(asked, data="images"), Path("r"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert resume_run(tmp_path / "r").summary.best.top1 is not None
    shutil.move(tmp_path / "images", elsewhere / "here")
    with pytest.raises(DataError, match=r"if the images moved: mnv3search run --resume .*/r --data WHERE"):
        resume_run(tmp_path / "r")
    assert resume_run(tmp_path / "r", data="here").summary.best.top1 is not None
    assert RunFolder.open(tmp_path / "r").settings.data == str(elsewhere / "here")
    make_image_folder(elsewhere / "other", 3, per_class=9, side=16)
    with pytest.raises(RunError, match="is not what this run began with"):
        resume_run(tmp_path / "r", data="other")
    assert RunFolder.open(tmp_path / "r").settings.data == str(elsewhere / "here")


def test_data_of_a_run_that_learns_from_none_are_refused(asked: RunSettings) -> None:
    RunFolder.create(Path("r"), replace(asked, data=None, evaluator="prior"))
    with pytest.raises(RunError, match="learns from no images"):
        resume_run(Path("r"), data="images")


def test_a_target_out_of_reach_is_refused_before_anything_is_trained(
    asked: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(Proxy, "_trained", never)
    with pytest.raises(InfeasibleError):
        start_run(replace(asked, target="0.01x"), Path("r"))
    assert not Path("r").exists()


def test_an_interrupt_in_the_references_training_leaves_a_run_that_goes_on(
    asked: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Proxy, "_trained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start_run(asked, Path("r"))
    assert resume_run(Path("r")).evaluated >= 4


def test_the_winner_stands_in_the_folder_as_it_was_trained(asked: RunSettings) -> None:
    outcome = start_run(asked, Path("r"))
    best = outcome.summary.best
    trained = load_trained(Path("r"))
    assert trained.architecture == best.architecture
    assert trained.classes == ("class_0", "class_1", "class_2")
    assert trained.facts["proxy"][-1][1] == best.top1  # type: ignore[index]
    assert outcome.to_mapping()["trained"] == "r/best.safetensors"
    assert json.loads(Path("r/best.json").read_text())["trained"] == "best.safetensors"
    assert any("mnv3search evaluate r" in note for note in outcome.summary.notes)
    assert 'href="./best.safetensors"' in Path("r/report.html").read_text()


def test_progress_calls_a_score_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.report.pareto.ParetoFigure.save", lambda *_: None)
    told: list[str] = []

    class Told(SilentProgress):
        def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
            told.append(detail)

    score = RunSettings(
        "netadapt", "mnv3_small_32@0.5", "0.97x", "roofline:10,10", "zero_cost:parameters", confidence=0.5
    )
    outcome = start_run(score, tmp_path / "r", progress=Told())
    steps = [detail for detail in told if " → " in detail]
    assert len(steps) == len(outcome.summary.steps) > 0
    assert all(f"  {outcome.summary.score} " in detail and "top-1" not in detail for detail in steps)
    assert outcome.summary.trained is None
    assert "trained" not in outcome.to_mapping()
    assert "best.safetensors" not in (tmp_path / "r" / "report.html").read_text()


def test_a_folder_with_trained_networks_keeps_its_manifest(asked: RunSettings) -> None:
    folder = RunFolder.create(Path("r"), asked)
    folder.proxy.mkdir()
    (folder.proxy / "one.safetensors").touch()
    folder.discard()
    assert RunFolder.open(Path("r")).settings == asked
