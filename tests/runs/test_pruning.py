"""A pruning from its folder's view: files, targets held by whole times, resuming, and what stops it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import yaml
from image_fakes import make_image_folder
from numpy.typing import NDArray
from trained_fakes import SIDE, fake_trained
from training_fakes import same_weights, weights_of

from mnv3search.architecture import Architecture, HeadSpec, StemSpec, load_architecture
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.cost import count
from mnv3search.errors import DataError, InfeasibleError, RunError, TargetError
from mnv3search.latency.model import LatencyKind, Progress
from mnv3search.runs.folder import PruningFolder
from mnv3search.runs.images import pruning_data
from mnv3search.runs.progress import SilentProgress
from mnv3search.runs.pruning_journal import FolderJournal
from mnv3search.runs.session import resume_pruning, start_pruning
from mnv3search.runs.settings import PruningSettings
from mnv3search.training.data.open_data import open_data
from mnv3search.training.recipe import load_recipe
from mnv3search.training.trained import load_trained, save_trained

ARCHITECTURE = Architecture(
    StemSpec(8),
    (BlockSpec(3, 32, 8), BlockSpec(3, 64, 16, 2, "hard_swish", SqueezeExciteSpec(16))),
    HeadSpec(24),
    resolution=SIDE,
    classes=3,
)


@dataclass(frozen=True)
class Timed:
    latency_ms: float
    error_ms: float = 0.001


class Estimated:
    """One millisecond for each ten thousand multiply-adds."""

    name = "toy"
    kind: LatencyKind = "estimated"

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([count(a).madds / 1e4 for a in architectures])

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.zeros(len(architectures))


class Host(Estimated):
    """The same, but whole networks take 20 % more, and narrower ones relatively ``worse``."""

    kind: LatencyKind = "table"

    def __init__(self, worse: float = 0.0) -> None:
        self.worse, self.seed_ms, self.timed = worse, float(self.latency_ms([ARCHITECTURE])[0]), 0
        self.calibrated_on: Sequence[Architecture] = ()

    def calibrate_for(self, architectures: Sequence[Architecture]) -> None:
        self.calibrated_on = architectures

    def measure(self, architectures: Sequence[Architecture], progress: Progress | None = None) -> list[Timed]:
        self.timed += 1
        priced = self.latency_ms(architectures)
        return [Timed(1.2 * ms + self.worse * (self.seed_ms - ms)) for ms in priced.tolist()]


@pytest.fixture
def settings(tmp_path: Path) -> PruningSettings:
    data = make_image_folder(tmp_path / "images", per_class=10, side=SIDE, split=("train", "val", "test"))
    save_trained(tmp_path / "seed.safetensors", fake_trained(ARCHITECTURE))
    return PruningSettings(
        run=str(tmp_path / "seed.safetensors"), data=str(data), target="0.8x", device="toy", step_fraction=0.15,
        short_steps=1, short_batch=4, held_out=0.3, epochs=1,
    )  # fmt: skip


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


class StopAt(SilentProgress):
    """Ctrl-C after so many proposals."""

    def __init__(self, after: int) -> None:
        self.left, self.last = after, ""

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        if "best top-1" in detail and detail != self.last:
            self.left, self.last = self.left - 1, detail
            if self.left == 0:
                raise KeyboardInterrupt


class Heard(SilentProgress):
    """Everything that is told, in order, as (kind, text, done, total)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int | None]] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self.told.append(("stage", name, 0, total))

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        self.told.append(("advance", detail, done, total))

    def note(self, text: str) -> None:
        self.told.append(("note", text, 0, None))

    def place(self, words: str) -> int:
        return next(i for i, (_, text, _, _) in enumerate(self.told) if words in text)


def test_a_pruning_leaves_a_run_and_says_what_it_found(settings: PruningSettings, tmp_path: Path) -> None:
    outcome = start_pruning(replace(settings, epochs=6), tmp_path / "p", device=Estimated(), workers=1)
    target_ms = 0.8 * float(Estimated().latency_ms([ARCHITECTURE])[0])
    assert outcome.met
    assert outcome.target_ms == pytest.approx(target_ms)
    result = load_trained(tmp_path / "p")
    assert outcome.after.latency.ms == pytest.approx(float(Estimated().latency_ms([result.architecture])[0]))
    assert outcome.after.latency.ms <= target_ms
    assert result.facts["test_accuracy"] == outcome.after.top1
    table = rows(tmp_path / "p" / "steps.csv")
    assert [int(row["number"]) for row in table] == list(range(1, len(table) + 1))
    assert all(float(row["top1_std"]) > 0 and int(row["trained_images"]) == 4 * int(row["proposals"]) for row in table)
    last = load_trained(tmp_path / "p" / table[-1]["weights"])
    assert last.architecture == result.architecture
    assert not same_weights(weights_of(last.network), weights_of(result.network)), "a long fine-tune followed"
    assert load_architecture(tmp_path / "p" / "network.json") == result.architecture
    told = json.loads((tmp_path / "p" / "result.json").read_text())
    assert (told["steps"], told["target"]["met"], told["judged_by"]) == (len(table), True, "test images")
    assert told["before"]["madds"] == count(ARCHITECTURE).madds > told["after"]["madds"]
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert (manifest["status"], manifest["format"]) == ("finished", "mnv3search.pruning")
    for picture in ("netadapt.png", "netadapt.svg"):
        assert (tmp_path / "p" / picture).stat().st_size > 5_000


@pytest.mark.parametrize("after", [1, 5])
def test_interrupted_anywhere_it_ends_the_same(settings: PruningSettings, tmp_path: Path, after: int) -> None:
    settings = replace(settings, finish="none")
    start_pruning(settings, tmp_path / "whole", device=Estimated(), workers=1)
    with pytest.raises(KeyboardInterrupt):
        start_pruning(settings, tmp_path / "cut", device=Estimated(), workers=1, progress=StopAt(after))
    assert json.loads((tmp_path / "cut" / "manifest.json").read_text())["status"] == "interrupted"
    log = tmp_path / "cut" / "proposals.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 1, "propo')  # as a kill leaves it
    (tmp_path / "cut" / "steps" / "best.safetensors").unlink()  # lost: it is made again
    before_s = json.loads((tmp_path / "cut" / "manifest.json").read_text())["seconds"]
    outcome = resume_pruning(tmp_path / "cut", device=Estimated(), workers=1)
    assert outcome.folder.manifest["sessions"] == 2
    assert outcome.seconds > before_s > 0, "of all sessions"
    one, other = load_trained(tmp_path / "whole"), load_trained(tmp_path / "cut")
    assert same_weights(weights_of(one.network), weights_of(other.network))
    steps = [(r["change"], r["top1"], r["loss"]) for r in rows(tmp_path / "whole" / "steps.csv")]
    assert steps == [(r["change"], r["top1"], r["loss"]) for r in rows(tmp_path / "cut" / "steps.csv")]


def test_the_target_is_held_by_whole_times_and_missed_prices_are_repaired(
    settings: PruningSettings, tmp_path: Path
) -> None:
    settings = replace(settings, finish="none")
    host = Host()
    even = start_pruning(settings, tmp_path / "even", device=host, workers=1)
    assert host.calibrated_on[0] == ARCHITECTURE, "a table is fitted on the network and its narrowings"
    assert (even.met, even.trajectory.repairs) == (True, 0), "a constant factor is tied to the seed's whole time"
    assert even.target_ms == pytest.approx(0.8 * 1.2 * Host().seed_ms)
    worse = start_pruning(settings, tmp_path / "worse", device=Host(worse=0.45), workers=1)
    assert worse.trajectory.repairs > 0
    assert worse.met
    assert worse.after.latency.measured
    assert worse.after.latency.ms <= worse.target_ms
    again = resume_pruning(tmp_path / "worse", device=Host(worse=0.45), workers=1)
    assert (again.trajectory.repairs, again.after.latency) == (worse.trajectory.repairs, worse.after.latency)


def test_the_first_step_that_is_timed_fast_enough_is_the_result(settings: PruningSettings, tmp_path: Path) -> None:
    settings = replace(settings, finish="none", target="0.7x", step_fraction=0.05)
    outcome = start_pruning(settings, tmp_path / "p", device=Host(worse=-1.2), workers=1)
    steps, number = outcome.trajectory.narrowed.steps, outcome.trajectory.number
    assert 0 < number < len(steps), "whole networks were faster than their prices said"
    assert load_trained(tmp_path / "p").architecture == steps[number - 1].step.architecture
    assert outcome.after.latency.ms <= outcome.target_ms
    if number > 1:
        before = Host(worse=-1.2).measure([steps[number - 2].step.architecture])[0]
        assert before.latency_ms + 1.2815 * before.error_ms > outcome.target_ms
    assert any("the others were not needed" in note for note in outcome.notes)


def test_the_cost_is_said_before_anything_is_trained_and_progress_is_in_images(
    settings: PruningSettings, tmp_path: Path
) -> None:
    heard = Heard()
    outcome = start_pruning(
        replace(settings, finish="none"), tmp_path / "p", device=Estimated(), workers=1, progress=heard
    )
    (steps,) = (s.step for s in outcome.trajectory.narrowed.steps[:1])
    cost = heard.told[heard.place("NetAdapt takes up to")][1]
    judged = outcome.trajectory.narrowed.seed.images
    learned = 30 - judged
    assert f"up to 2 steps of about {steps.proposals} proposals, each trained on 4 images (1 steps of 4)" in cost
    assert f"scored on {judged:,}" in cost
    assert "images/s, one after the other, about" in cost
    assert heard.place("NetAdapt takes up to") < heard.place("best top-1")
    judging, images = heard.place("scoring the network, images"), heard.place("NetAdapt, images")
    assert heard.told[judging][3] == judged
    advances = [told for told in heard.told[images:] if told[0] == "advance" and "step 1" in told[1]]
    each = 4 + learned + judged  # its norms are measured on all images that it learns from, as these are few
    assert advances[0][2:] == (0, 2 * steps.proposals * each)
    done = [done for _, _, done, _ in advances]
    assert done == sorted(done)
    assert done[-1] == steps.proposals * each, "of every batch that is learned from or judged"


def test_a_step_with_one_proposal_is_said_before_it_is_trained(settings: PruningSettings, tmp_path: Path) -> None:
    heard = Heard()
    coarse = replace(settings, finish="none", target="0.7x", step_fraction=0.3)
    outcome = start_pruning(coarse, tmp_path / "p", device=Estimated(), workers=1, progress=heard)
    assert outcome.trajectory.narrowed.steps[0].step.proposals == 1
    said = heard.place("only one layer can be cut by the")
    assert "a smaller --step, such as 0.075, gives more proposals" in heard.told[said][1]
    assert said < heard.place("best top-1")


def test_it_is_said_whether_the_network_had_learned_from_what_scores_its_proposals(
    settings: PruningSettings, tmp_path: Path
) -> None:
    settings = replace(settings, finish="none")
    seen = start_pruning(settings, tmp_path / "seen", device=Estimated(), workers=1)
    assert seen.heading.endswith("; proposals scored on images that it may have learned from")
    assert any("mnv3search train --held-out 0.3 leaves them out" in note for note in seen.notes)
    assert json.loads((tmp_path / "seen" / "manifest.json").read_text())["held_out_unseen"] is False
    apart = replace(fake_trained(ARCHITECTURE), facts={"held_out": 0.3})
    save_trained(tmp_path / "apart.safetensors", apart)
    unseen = start_pruning(
        replace(settings, run=str(tmp_path / "apart.safetensors")), tmp_path / "q", device=Estimated(), workers=1
    )
    assert (unseen.unseen, unseen.to_mapping()["held_out_unseen"]) == (True, True)
    assert "may have learned" not in " ".join([unseen.heading, *unseen.notes])


def test_what_a_training_leaves_out_is_what_pruning_holds_out(settings: PruningSettings) -> None:
    settings = replace(settings, images=None)
    whole, rest = open_data(settings.data), open_data(settings.data, netadapt_share=0.3)
    seed = replace(fake_trained(ARCHITECTURE), facts={"held_out": rest.held_out})
    for share in (0.3, 0.1):
        data = pruning_data(whole, replace(settings, held_out=share), seed)
        assert data.unseen
        assert not set(data.held_out.files) & set(rest.train.files)
    assert set(data.learn.files) | set(data.held_out.files) == set(whole.train.files)
    assert not pruning_data(whole, replace(settings, held_out=0.5), seed).unseen, "more than the training left out"


def test_images_that_moved_are_named_anew_and_others_are_refused(settings: PruningSettings, tmp_path: Path) -> None:
    settings = replace(settings, finish="none")
    with pytest.raises(KeyboardInterrupt):
        start_pruning(settings, tmp_path / "p", device=Estimated(), workers=1, progress=StopAt(1))
    moved = Path(settings.data).rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"if the images moved: mnv3search netadapt --resume .* --data WHERE"):
        resume_pruning(tmp_path / "p", device=Estimated(), workers=1)
    other = make_image_folder(tmp_path / "other", per_class=8, side=SIDE, split=("train", "val", "test"))
    with pytest.raises(RunError, match=r"train was 30 images .* and is 24 images"):
        resume_pruning(tmp_path / "p", data=str(other), device=Estimated(), workers=1)
    assert resume_pruning(tmp_path / "p", data=str(moved), device=Estimated(), workers=1).met
    assert resume_pruning(tmp_path / "p", device=Estimated(), workers=1).met, "it is known where they are now"


def test_files_of_a_folder_that_are_links_are_refused(settings: PruningSettings, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start_pruning(settings, tmp_path / "p", device=Estimated(), workers=1, progress=StopAt(1))
    for name in ("proposals.jsonl", "steps"):
        mine, inside = tmp_path / f"mine-{name}", tmp_path / "p" / name
        inside.rename(mine)
        inside.symlink_to(mine, target_is_directory=mine.is_dir())
        before = [(f.name, f.stat().st_mtime_ns) for f in (mine, *(mine.iterdir() if mine.is_dir() else ()))]
        with pytest.raises(RunError, match="is a link"):
            resume_pruning(tmp_path / "p", device=Estimated(), workers=1)
        assert before == [(f.name, f.stat().st_mtime_ns) for f in (mine, *(mine.iterdir() if mine.is_dir() else ()))]
        inside.unlink()
        mine.rename(inside)


def test_baselines_are_evaluated_on_the_same_images(settings: PruningSettings, tmp_path: Path) -> None:
    narrower = replace(
        ARCHITECTURE, blocks=(ARCHITECTURE.blocks[0], replace(ARCHITECTURE.blocks[1], expanded_channels=32))
    )
    save_trained(tmp_path / "narrower.safetensors", fake_trained(narrower))
    settings = replace(settings, finish="none", baselines=(str(tmp_path / "narrower.safetensors"),))
    outcome = start_pruning(settings, tmp_path / "p", device=Estimated(), workers=1)
    assert [figures.name for figures in outcome.baselines] == ["narrower"]
    assert outcome.baselines[0].madds == count(narrower).madds


def test_an_impossible_target_leaves_no_folder_and_names_the_bounds(settings: PruningSettings, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError) as caught:
        start_pruning(replace(settings, target="0.01x"), tmp_path / "p", device=Estimated(), workers=1)
    assert caught.value.fastest_ms < caught.value.slowest_ms
    assert not (tmp_path / "p").exists()


def test_a_confidence_that_is_in_the_way_is_named(settings: PruningSettings, tmp_path: Path) -> None:
    class Unsure(Estimated):
        def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
            return 2 * self.latency_ms(architectures)

    with pytest.raises(InfeasibleError, match=r"--confidence 0\.\d+ or less makes it feasible") as caught:
        start_pruning(replace(settings, target="0.9x", confidence=0.99), tmp_path / "p", device=Unsure(), workers=1)
    target = 0.9 * caught.value.slowest_ms  # the seed's own latency is the slowest
    assert caught.value.target_latency_ms == pytest.approx(target)
    assert caught.value.fastest_ms < target


def test_images_of_other_classes_are_refused(settings: PruningSettings, tmp_path: Path) -> None:
    other = make_image_folder(tmp_path / "other", ["cat", "dog", "owl"], per_class=4, side=SIDE)
    with pytest.raises(DataError, match="cat, dog, owl, but the network was trained on class_0"):
        start_pruning(replace(settings, data=str(other)), tmp_path / "p", device=Estimated(), workers=1)


def test_steps_too_large_for_any_layer_are_named_as_the_cause(settings: PruningSettings, tmp_path: Path) -> None:
    coarse = replace(settings, target="0.4x", step_fraction=0.5, finish="none")
    outcome = start_pruning(coarse, tmp_path / "p", device=Estimated(), workers=1)
    seed_ms = float(Estimated().latency_ms([ARCHITECTURE])[0])
    asked_ms = min(0.5 * seed_ms, outcome.after.latency.ms - 0.4 * seed_ms)
    assert not outcome.met
    assert outcome.trajectory.stuck_ms == pytest.approx(asked_ms)
    assert "the target is missed" in outcome.heading
    assert "Pruned to" not in outcome.heading
    assert "smaller --step, such as 0.25" in outcome.notes[0]
    finer = start_pruning(replace(coarse, step_fraction=0.1), tmp_path / "q", device=Estimated(), workers=1)
    assert (finer.met, finer.trajectory.stuck_ms) == (True, None), "the remedy that was named"


def test_a_seed_that_no_step_can_narrow_is_not_said_to_meet_a_surer_target(
    settings: PruningSettings, tmp_path: Path
) -> None:
    class Unsure(Estimated):
        def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
            return self.latency_ms(architectures)

    asked = replace(settings, target="1.1x", confidence=0.9, step_fraction=0.9, finish="none")
    outcome = start_pruning(asked, tmp_path / "p", device=Unsure(), workers=1)
    assert (outcome.met, outcome.trajectory.number) == (False, 0)
    assert "already meets" not in " ".join(outcome.notes)


def test_the_limit_that_a_confidence_sets_is_told_and_drawn(settings: PruningSettings, tmp_path: Path) -> None:
    class Unsure(Estimated):
        def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
            return 0.1 * self.latency_ms(architectures)

    sure = start_pruning(replace(settings, finish="none", confidence=0.9), tmp_path / "p", device=Unsure(), workers=1)
    limit_ms = sure.target_ms / (1 + 0.1 * NormalDist().inv_cdf(0.9))
    assert sure.trajectory.limit_ms == pytest.approx(limit_ms)
    assert sure.after.latency.ms <= limit_ms
    assert f"90 % confidence by the latency's own error makes the limit {limit_ms:.3f} ms" in " ".join(sure.notes)
    assert json.loads((tmp_path / "p" / "result.json").read_text())["target"]["limit_ms"] == pytest.approx(limit_ms)
    assert f"limit {limit_ms:.4g} ms, 90 % sure" in (tmp_path / "p" / "netadapt.svg").read_text()
    even = start_pruning(replace(settings, finish="none", confidence=0.5), tmp_path / "q", device=Unsure(), workers=1)
    assert "confidence" not in " ".join(even.notes)
    assert "sure of the target" not in (tmp_path / "q" / "netadapt.svg").read_text()


def test_a_target_that_is_met_keeps_the_network(settings: PruningSettings, tmp_path: Path) -> None:
    outcome = start_pruning(replace(settings, target="2x"), tmp_path / "p", device=Estimated(), workers=1)
    assert outcome.met
    assert "already meets" in outcome.notes[0]
    assert "nothing was pruned" in outcome.heading
    assert "Pruned to" not in outcome.heading
    assert same_weights(
        weights_of(load_trained(tmp_path / "p").network), weights_of(load_trained(Path(settings.run)).network)
    )


def test_a_damaged_folder_is_named_by_file_and_line(settings: PruningSettings, tmp_path: Path) -> None:
    start_pruning(replace(settings, finish="none"), tmp_path / "p", device=Estimated(), workers=1)
    log = tmp_path / "p" / "proposals.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], '{"step": 1, "proposal": 0, "score": {"top1": 300}}', *lines[2:]]) + "\n")
    with pytest.raises(RunError, match=r"proposals\.jsonl:2: a damaged line"):
        FolderJournal(tmp_path / "p", load_trained(Path(settings.run)))
    (tmp_path / "p" / "manifest.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        resume_pruning(tmp_path / "p")
    assert not PruningFolder.is_one(tmp_path / "p")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"held_out": 1.0}, RunError, "above 0 and below 1"),
        ({"images": 0}, RunError, "at least one"),
        ({"epochs": 0}, RunError, "from 1"),
        ({"finish": "short"}, RunError, "long, scratch, none"),
        ({"target": "fast"}, TargetError, "not a number"),
        ({"confidence": 1.0}, TargetError, "below 1"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, Any], error: type[Exception], said: str) -> None:
    values: dict[str, Any] = {"run": "r", "data": "d", "target": "0.5x", "device": "host", **change}
    with pytest.raises(error, match=said):
        PruningSettings(**values)


@pytest.mark.parametrize(("recipe", "fitted"), [(None, True), ("small_32", True), ("mine.yaml", False)])
def test_a_shipped_recipe_of_the_end_is_fitted_to_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str | None, fitted: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(load_recipe("small_32").to_mapping()))
    settings = PruningSettings("r", "d", "0.5x", "host", recipe=recipe, epochs=4)
    many, few = (settings.finishing_recipe(32, images) for images in (1_000_000, 300))
    assert few == (many.for_images(300) if fitted else many)
    assert (few.batch_size < many.batch_size) == fitted
    older = {name: value for name, value in settings.to_mapping().items() if name != "fit_recipe"}
    kept = PruningSettings.from_mapping(json.loads(json.dumps(older)), "m")
    assert kept.finishing_recipe(32, 300) == many, "one that was begun before goes on by its recipe"


def test_settings_come_back_from_a_manifest_and_damage_is_named() -> None:
    settings = PruningSettings("r", "d", "0.5x", "host", images=10, baselines=("a", "b"))
    kept = json.loads(json.dumps(settings.to_mapping()))
    assert PruningSettings.from_mapping(kept, "m") == settings
    before = {"beside" if name == "baselines" else name: value for name, value in kept.items()}
    assert PruningSettings.from_mapping(before, "m") == settings, "as manifests named the baselines before"
    wrong: list[object] = [
        {**kept, "epochs": "3"},
        {**kept, "shell": "x"},
        {**kept, "held_out": True},
        [],
        {"run": "r"},
    ]
    for damaged in wrong:
        with pytest.raises(RunError, match="m: "):
            PruningSettings.from_mapping(damaged, "m")
